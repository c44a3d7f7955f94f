from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import Batch
from strategies.cost_network import CostNetwork, blurred, crops, poisson_loss, stacked
from strategies.training import drawn


def annotated(count=4, size=(20, 24), **fields):
    generator = torch.Generator().manual_seed(0)
    given = {
        "ids": tuple(range(count)),
        "images": torch.rand(count, 3, *size, generator=generator),
        "labelled": torch.ones(count, *size, dtype=torch.bool),
        "cost": torch.rand(count, *size, generator=generator),
    }
    return Batch(**given | fields)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 25), st.integers(1, 25), st.floats(0.3, 6), st.integers(0, 2**32))
def test_blurring_preserves_the_mass(height, width, sigma, seed):
    generator = torch.Generator().manual_seed(seed)
    known = torch.rand(height, width, generator=generator) < 0.7
    effort = torch.where(known, torch.rand(height, width, generator=generator), 0)
    soft = blurred(effort, known, sigma)
    assert soft.sum().item() == pytest.approx(effort.sum().item(), rel=1e-5, abs=1e-6)
    assert (soft[~known] == 0).all(), "what is not labelled is not supervised"
    assert (soft >= 0).all()


def test_poisson_loss_is_least_at_the_mean_of_the_targets():
    target = torch.tensor([[[0.0, 1.0, 5.0]]])
    known = torch.ones(1, 1, 3, dtype=torch.bool)
    rate = torch.tensor(2.0, requires_grad=True)  # (0 + 1 + 5) / 3
    torch.autograd.backward(poisson_loss(rate.expand(1, 1, 3), target, known))
    assert rate.grad.item() == pytest.approx(0, abs=1e-6)


def test_loss_ignores_what_is_not_known():
    target, known = torch.tensor([[[1.0, 1e9]]]), torch.tensor([[[True, False]]])
    assert poisson_loss(torch.ones(1, 1, 2), target, known).item() == pytest.approx(1)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 1), (33, 40)])
def test_network_takes_any_size_and_is_not_negative(size):
    network = drawn(lambda: CostNetwork(4), 0)
    for brightness in (0.0, 1.0):
        effort = network.effort(torch.full((1, 3, *size), brightness))
        assert effort.shape == (1, *size)
        assert (effort >= 0).all()


def test_crops_follow_from_the_ids_alone():
    together = annotated(size=(150, 200))
    single = [
        replace(
            together,
            ids=(one,),
            **{
                name: getattr(together, name)[one : one + 1] for name in ("images", "labelled", "valid", "cost", "size")
            },
        )
        for one in (2, 0, 3, 1)
    ]
    for one, other in zip(crops([together], 2), crops(single, 2), strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.effort, other.effort)
    assert {tuple(part.known.shape) for part in crops([together], 2)} == {(128, 128)}
    assert len(crops([together], 2)) == 16


def test_a_small_image_is_one_crop():
    (part,) = crops([annotated(1)], 2)
    assert part.pixels.shape == (3, 20, 24)
    assert part.effort.sum().item() == pytest.approx(annotated(1).cost.sum().item(), rel=1e-5)


def test_only_labelled_pixels_with_a_cost_are_learned_from():
    assert crops([annotated(cost=None)], 2) == []
    assert crops([annotated(labelled=None)], 2) == []
    half = annotated(1)
    half.labelled[:, :, 12:] = False
    spoilt = replace(half, cost=torch.where(half.labelled, half.cost, 1e6))
    (one,), (other,) = crops([half], 2), crops([spoilt], 2)
    assert torch.equal(one.effort, other.effort)
    assert not one.known[:, 12:].any()


def test_stacked_pads_with_unknown():
    small, large = crops([annotated(1, size=(4, 9))], 1)[0], crops([annotated(1, size=(8, 3), ids=(9,))], 1)[0]
    images, effort, known = stacked([small, large])
    assert images.shape == (2, 3, 8, 9)
    assert effort.shape == known.shape == (2, 8, 9)
    assert known.sum(dim=(1, 2)).tolist() == [36, 24]
    assert images.max() <= 1
