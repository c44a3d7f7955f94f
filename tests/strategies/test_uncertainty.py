from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from strategies.uncertainty import (
    COMMITTEE_MEASURES,
    MEASURES,
    area_shares,
    bald,
    entropy,
    image_information,
    image_mean,
    least_confidence,
    margin,
    pixel_maps,
    std,
    var,
    vote_entropy,
)

OF_THE_MEAN = [least_confidence, margin, entropy]
ALL = list(MEASURES.values())


def pixel(*probabilities, dtype=torch.float32):
    return torch.tensor(probabilities, dtype=dtype).view(1, 1, -1, 1, 1)


def softmaxes(*shape, seed=0, scale=3.0):
    """Probabilities (M,B,C,H,W) in float64, from nearly uniform to nearly one-hot."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).softmax(dim=2)


def reference(measure, probabilities):
    """The definitions, written the obvious way in float64."""
    mean = np.asarray(probabilities.double()).mean(axis=0)  # (B,C,H,W)
    ordered = np.sort(mean, axis=1)
    if measure is least_confidence:
        return 1 - ordered[:, -1]
    if measure is margin:
        return 1 - (ordered[:, -1] - ordered[:, -2])
    if measure is entropy:
        return nats(mean, axis=1) / math.log(mean.shape[1])
    return committee_reference(measure, np.asarray(probabilities.double()))


def nats(distribution, axis):
    logs = np.log(distribution, out=np.zeros_like(distribution), where=distribution > 0)
    return -(distribution * logs).sum(axis=axis)


def committee_reference(measure, members):
    count, _, classes, _, _ = members.shape
    if measure is std:
        return members.std(axis=0).mean(axis=1)
    if measure is var:
        return members.var(axis=0).mean(axis=1)
    if measure is bald:
        return (nats(members.mean(axis=0), 1) - nats(members, 2).mean(axis=0)) / math.log(classes)
    votes = np.eye(classes)[members.argmax(axis=2)].mean(axis=0)  # (B,H,W,C)
    return nats(votes, -1) / math.log(max(min(count, classes), 2))


@pytest.mark.parametrize("classes", [2, 3, 19, 255])
def test_one_hot_and_uniform(classes):
    one_hot = torch.zeros(1, 1, classes, 1, 1)
    one_hot[:, :, classes // 2] = 1
    uniform = torch.full((1, 1, classes, 1, 1), 1 / classes)
    assert [measure(one_hot).item() for measure in OF_THE_MEAN] == [0, 0, 0]
    expected = [1 - 1 / classes, 1, 1]
    assert [measure(uniform).item() for measure in OF_THE_MEAN] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_two_classes(p):
    bits = -sum(q * math.log2(q) for q in (p, 1 - p) if q)
    values = [measure(pixel(p, 1 - p)).item() for measure in OF_THE_MEAN]
    assert values == pytest.approx([min(p, 1 - p), 2 * min(p, 1 - p), bits], abs=1e-6)


def test_measures_disagree_as_they_should():
    # the second is as confident, but has a rival; entropy alone sees the tail of the third
    lone, rival, tail = pixel(0.6, 0.2, 0.2, 0.0), pixel(0.6, 0.4, 0.0, 0.0), pixel(0.6, 0.2, 0.1, 0.1)
    assert least_confidence(lone) == least_confidence(rival) == least_confidence(tail)
    assert margin(rival) > margin(lone) == margin(tail)
    assert entropy(tail) > entropy(lone) > entropy(rival)


def test_a_single_class_is_certain():
    assert [measure(torch.ones(1, 1, 1, 2, 2)).abs().max().item() for measure in ALL] == [0] * 7


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("members", [1, 5])
def test_agrees_with_the_definition(measure, members):
    probabilities = softmaxes(members, 2, 7, 9, 11)
    expected = torch.from_numpy(reference(measure, probabilities))
    assert torch.allclose(measure(probabilities), expected, rtol=0, atol=1e-12)
    single = measure(probabilities.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_input_loses_nothing_more(measure, dtype):
    halved = softmaxes(20, 1, 19, 5, 6).to(dtype)
    result = measure(halved)
    assert result.dtype == torch.float32
    expected = torch.from_numpy(reference(measure, halved)).clamp(0, 1)
    assert torch.allclose(result.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("measure", ALL)
def test_memory_layout_does_not_matter(measure):
    probabilities = softmaxes(3, 2, 5, 13, 17).float()
    strided = probabilities.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)  # channels last
    assert torch.equal(measure(strided), measure(probabilities))


@pytest.mark.parametrize("measure", ALL)
def test_wrong_input_is_refused(measure):
    with pytest.raises(ValueError, match=r"expected shape \(M, B=3, C, H, W\), received \(2, 3, 8, 8\)"):
        measure(torch.rand(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"expected shape \(M, B, C, H, W\), received \(8,\)"):
        measure(torch.rand(8))
    with pytest.raises(ValueError, match=r"expected floating-point values, received torch\.int64"):
        measure(torch.ones(1, 1, 2, 3, 3, dtype=torch.int64))


@pytest.mark.parametrize("measure", ALL)
def test_input_is_left_alone(measure):
    for members in (1, 2):
        probabilities = softmaxes(members, 1, 3, 4, 4).requires_grad_()
        before = probabilities.clone()
        assert not measure(probabilities).requires_grad
        assert torch.equal(probabilities, before)


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=5, max_dims=5, max_side=5), elements=st.floats(-40, 40)),
    st.randoms(use_true_random=False),
)
def test_bounds_and_symmetry(logits, randomness):
    probabilities = torch.from_numpy(logits).softmax(dim=2)
    order = list(range(probabilities.shape[2]))
    randomness.shuffle(order)
    for measure in ALL:
        result = measure(probabilities)
        assert ((result >= 0) & (result <= 1)).all()
        if measure is not vote_entropy:  # where a member's classes tie, their order decides its vote
            assert torch.allclose(measure(probabilities[:, :, order]), result, rtol=0, atol=1e-12)
        assert torch.allclose(measure(probabilities.flip(0)), result, rtol=0, atol=1e-12)


# committees


def committee(*members):
    """A committee's words on one pixel: (M,C) -> (M,1,C,1,1)."""
    return torch.tensor(members, dtype=torch.float64)[:, None, :, None, None]


@pytest.mark.parametrize("measure", [MEASURES[name] for name in sorted(COMMITTEE_MEASURES)])
def test_members_that_agree_and_single_ones(measure):
    unsure = softmaxes(1, 2, 5, 4, 6)
    assert measure(unsure).abs().max() == 0
    assert measure(unsure.expand(7, -1, -1, -1, -1)).abs().max() < 1e-15


@pytest.mark.parametrize("classes", [2, 3, 19])
def test_members_that_are_sure_of_different_classes(classes):
    opposed = committee(*np.eye(classes).tolist())
    shares = np.array([1] + [0] * (classes - 1))
    expected = [1, 1, shares.std(), shares.var()]
    assert [one(opposed).item() for one in (vote_entropy, bald, std, var)] == pytest.approx(expected, abs=1e-12)


def test_vote_entropy_is_normalised_by_what_the_votes_can_reach():
    # three members on 19 classes: / log 19 would call full disagreement a third
    three = softmaxes(3, 1, 19, 1, 1)
    three[:] = 0
    for member in range(3):
        three[member, 0, member] = 1
    assert vote_entropy(three).item() == pytest.approx(1)
    many = committee(*[[1.0, 0.0]] * 5, *[[0.0, 1.0]] * 5)
    assert vote_entropy(many).item() == pytest.approx(1)


def test_votes_are_hard_and_ties_go_to_the_first_class():
    assert vote_entropy(committee([0.51, 0.49], [0.99, 0.01])).item() == 0
    assert vote_entropy(committee([0.5, 0.5], [0.9, 0.1])).item() == 0
    assert vote_entropy(committee([0.5, 0.5], [0.1, 0.9])).item() == 1


def test_bald_is_not_the_entropy_of_the_mean():
    unsure, opposed = committee([0.5, 0.5], [0.5, 0.5]), committee([1.0, 0.0], [0.0, 1.0])
    assert entropy(unsure) == entropy(opposed) == 1
    assert (bald(unsure).item(), bald(opposed).item()) == (0, 1)


def test_bald_is_never_negative():
    # rounding alone makes the difference of the entropies negative somewhere among nearly equal members
    members = softmaxes(1, 4, 19, 20, 20).expand(3, -1, -1, -1, -1) + 0
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        assert (bald(members.to(dtype)) >= 0).all()


def test_spread_does_not_cancel():
    # as E[p²] - E[p]² in single precision, deviations below 1e-4 vanish
    members = committee([0.7, 0.3], [0.7 + 1e-7, 0.3 - 1e-7])
    assert std(members).item() == pytest.approx(5e-8, rel=1e-6)
    assert var(members).item() == pytest.approx(2.5e-15, rel=1e-6)


def test_maps_at_once_are_the_maps_one_by_one():
    probabilities = softmaxes(5, 2, 7, 33, 41).float()
    maps = pixel_maps(probabilities)
    assert list(maps) == list(MEASURES)
    for name, pixels in maps.items():
        assert torch.equal(pixels, MEASURES[name](probabilities)), name


def test_unknown_map_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"unknown measure 'gini'; available: bald, entropy, .*var, vote_entropy"):
        pixel_maps(softmaxes(1, 1, 2, 2, 2), ["gini"])


def test_tiles_do_not_show(monkeypatch):
    probabilities = softmaxes(3, 2, 4, 19, 23).float()
    whole = pixel_maps(probabilities)
    monkeypatch.setattr("strategies.committee.TILE", 1)  # a row at a time
    for name, pixels in pixel_maps(probabilities).items():
        assert torch.equal(pixels, whole[name])


PEAK = """
import torch
from strategies.uncertainty import pixel_maps

def high_water():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

torch.set_num_threads(1)
pixel_maps(torch.full((2, 1, 19, 64, 64), 1 / 19))  # what the first call loads is not counted
probabilities = torch.full((20, 2, 19, 128, 256), 1 / 19)
before = high_water()
pixel_maps(probabilities)
print((high_water() - before) / probabilities.nbytes)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the high-water mark from /proc")
def test_all_maps_take_half_of_the_input_again_at_most():
    run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 0.5  # copies of (M,B,C,H,W) would make it 1 and more


# from pixels to images


def masks(height, width):
    valid = torch.ones(1, height, width, dtype=torch.bool)
    return valid, torch.zeros_like(valid)


def test_image_information_is_the_mean():
    valid, labelled = masks(2, 2)
    pixels = torch.tensor([[[0.125, 0.25], [0.5, 0.125]]])
    assert image_information(pixels, valid=valid, labelled=labelled).item() == 0.25


def test_partly_labelled_images_are_judged_by_the_rest():
    valid, labelled = masks(2, 2)
    labelled[0, 0] = True
    pixels = torch.tensor([[[1.0, 1.0], [0.25, 0.75]]])
    assert image_information(pixels, valid=valid, labelled=labelled).item() == 0.5
    assert image_information(pixels, valid=valid, labelled=valid).item() == 0


@pytest.mark.parametrize("garbage", [-5.0, 1e30, math.nan, math.inf])
def test_invalid_pixels_change_nothing(garbage):
    pixels = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(0))
    valid = torch.zeros(2, 6, 7, dtype=torch.bool)
    valid[:, :4, :5] = True
    tight = image_information(pixels[:, :4, :5], valid=valid[:, :4, :5], labelled=~valid[:, :4, :5])
    spoilt = torch.where(valid, pixels, garbage)
    assert torch.equal(image_information(spoilt, valid=valid, labelled=torch.zeros_like(valid)), tight)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**32))
def test_padding_keeps_every_bit(height, width, below, right, seed):
    probabilities = softmaxes(1, 1, 3, height, width, seed=seed).float()
    padded = torch.nn.functional.pad(probabilities, (0, right, 0, below), value=math.nan)
    valid = torch.nn.functional.pad(torch.ones(1, height, width, dtype=torch.bool), (0, right, 0, below))
    for measure in ALL:
        tight = image_mean(measure(probabilities), torch.ones(1, height, width, dtype=torch.bool))
        assert torch.equal(image_mean(measure(padded), valid), tight)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_means_of_large_images_do_not_drift(dtype):
    pixels = torch.full((1, 1024, 2048), 0.1, dtype=dtype)
    mean = image_mean(pixels, torch.ones(1, 1024, 2048, dtype=torch.bool)).item()
    assert mean == pytest.approx(pixels[0, 0, 0].item(), abs=1e-9)


def test_wrong_maps_are_refused():
    valid, labelled = masks(2, 2)
    with pytest.raises(ValueError, match="pixels: expected finite"):
        image_information(torch.full((1, 2, 2), math.nan), valid=valid, labelled=labelled)
    with pytest.raises(ValueError, match=r"valid: expected torch\.bool, received torch\.uint8"):
        image_information(torch.zeros(1, 2, 2), valid=valid.byte(), labelled=labelled)
    with pytest.raises(ValueError, match=r"where: expected shape \(B=1, H=2, W=3\), received \(1, 2, 2\)"):
        image_information(torch.zeros(1, 2, 3), valid=valid, labelled=labelled)


def test_area_shares():
    probabilities = softmaxes(3, 4, 5, 12, 9)
    valid = torch.ones(4, 12, 9, dtype=torch.bool)
    valid[1, 6:] = False
    shares = area_shares(probabilities, valid)
    predicted = probabilities.mean(dim=0).argmax(dim=1)
    for image in range(4):
        counts = torch.bincount(predicted[image][valid[image]], minlength=5)
        assert torch.allclose(shares[image], counts / valid[image].sum())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gpu_agrees_with_cpu(measure, dtype):
    probabilities = softmaxes(3, 2, 5, 33, 47).to(dtype)
    on_gpu = measure(probabilities.cuda())
    assert on_gpu.is_cuda
    assert torch.allclose(on_gpu.cpu(), measure(probabilities), rtol=0, atol=1e-6)
