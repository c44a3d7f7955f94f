from __future__ import annotations

import math

import pytest
import torch

from strategies import Batch, Budget, create


def observed(*images):
    """Each image: (M,C) on its single pixel."""
    probabilities = torch.tensor(images).transpose(0, 1)[..., None, None]  # (M,B,C,1,1)
    ids = tuple(range(len(images)))
    return create("vote_entropy").observe(
        Batch(ids=ids, images=torch.zeros(len(ids), 3, 1, 1), probabilities=probabilities)
    )


def test_by_hand():
    # votes 2 : 1 : 1 of four members on three classes, / log 3
    split = [[0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]
    expected = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)) / math.log(3)
    assert observed(split).information.item() == pytest.approx(expected, abs=1e-7)


def test_votes_count_not_probabilities():
    faint = [[0.51, 0.49], [0.49, 0.51]]
    strong = [[0.99, 0.01], [0.01, 0.99]]
    unsure = [[0.51, 0.49], [0.52, 0.48]]
    assert observed(faint, strong, unsure).information.tolist() == [1, 1, 0]


def test_order_by_disagreement():
    committees = [[[1.0, 0.0]] * (10 - against) + [[0.0, 1.0]] * against for against in (1, 4, 0, 2, 5)]
    ranking = create("vote_entropy").rank(
        observed(*committees), None, budget=Budget(images=1), generator=torch.Generator()
    )
    assert ranking.ids == (4, 1, 3, 0, 2)


def test_mean_over_the_pixels_that_count():
    votes = torch.tensor([[[0.9, 0.9], [0.1, 0.1]], [[0.8, 0.2], [0.2, 0.8]]])[:, None, :, None]  # (M,1,C,1,2)
    given = {"ids": (1,), "images": torch.zeros(1, 3, 1, 2), "probabilities": votes}
    right = torch.tensor([[[False, True]]])
    assert create("vote_entropy").observe(Batch(**given)).information.item() == 0.5
    assert create("vote_entropy").observe(Batch(**given, valid=right)).information.item() == 1
    assert create("vote_entropy").observe(Batch(**given, labelled=right)).information.item() == 0
