from __future__ import annotations

import math

import pytest
import torch

from strategies import Batch, Budget, create


def observed(*images):
    """Each image: (M,C) on its single pixel."""
    probabilities = torch.tensor(images).transpose(0, 1)[..., None, None]  # (M,B,C,1,1)
    ids = tuple(range(len(images)))
    return create("bald").observe(Batch(ids=ids, images=torch.zeros(len(ids), 3, 1, 1), probabilities=probabilities))


def bits(*distribution):
    return -sum(p * math.log2(p) for p in distribution if p)


def test_by_hand():
    seen = observed([[0.75, 0.25], [0.25, 0.75]])
    assert seen.information.item() == pytest.approx(1 - bits(0.75, 0.25), abs=1e-7)


def test_noise_that_all_members_see_is_no_reason_to_label():
    # entropy would put them the other way round
    noisy = [[0.5, 0.5], [0.5, 0.5], [0.45, 0.55]]
    unknown = [[0.95, 0.05], [0.95, 0.05], [0.3, 0.7]]
    ranking = create("bald").rank(observed(noisy, unknown), None, budget=Budget(images=1), generator=torch.Generator())
    assert ranking.ids == (1, 0)


def test_comparable_between_numbers_of_classes():
    for classes in (2, 5, 19):
        assert observed(torch.eye(classes).tolist()).information.item() == pytest.approx(1)


def test_never_negative(pools):
    close = torch.rand(1, 4, 6, 8, 8, generator=torch.Generator().manual_seed(0)).softmax(dim=2)
    members = close.repeat(3, 1, 1, 1, 1)
    members[0, :, 0, 0, 0] += 1e-7
    batch = Batch(ids=(1, 2, 3, 4), images=torch.zeros(4, 3, 8, 8), probabilities=members)
    assert (create("bald").observe(batch).information >= 0).all()
