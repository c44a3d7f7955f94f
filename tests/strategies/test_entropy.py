from __future__ import annotations

import math

import pytest
import torch

from strategies import Batch, Budget, create


def observed(probabilities, **fields):
    _, count, _, height, width = probabilities.shape
    images = torch.zeros(count, 3, height, width)
    return create("entropy").observe(
        Batch(ids=tuple(range(count)), images=images, probabilities=probabilities, **fields)
    )


def test_by_hand():
    # two pixels of four classes: (log 2 / log 4 + log 4 / log 4) / 2
    pixels = torch.tensor([[0.5, 0.25], [0.5, 0.25], [0.0, 0.25], [0.0, 0.25]])
    assert observed(pixels.view(1, 1, 4, 1, 2)).information.item() == 0.75


def test_normalised_by_the_number_of_classes_so_that_projects_compare():
    for classes in (2, 5, 19):
        assert observed(torch.full((1, 1, classes, 3, 3), 1 / classes)).information.item() == pytest.approx(1)


def test_never_rescaled_per_image():
    # a map stretched to [0, 1] per image would make both images equal
    faint = torch.tensor([[0.99, 0.98], [0.01, 0.02]]).view(1, 2, 1, 2)
    strong = torch.tensor([[0.6, 0.5], [0.4, 0.5]]).view(1, 2, 1, 2)
    information = observed(torch.stack([faint, strong], dim=1)).information
    assert information[1] > 5 * information[0]


def test_order_by_known_uncertainty():
    temperatures = (0.1, 10.0, 1.0, 0.5, 3.0)
    logits = torch.randn(1, 1, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    seen = observed(torch.cat([(logits / t).softmax(dim=2) for t in temperatures], dim=1))
    ranking = create("entropy").rank(seen, None, budget=Budget(images=2), generator=torch.Generator())
    assert [temperatures[one] for one in ranking.ids] == sorted(temperatures, reverse=True)


def test_committee_is_judged_by_its_mean():
    # two members, each certain, of different opinion: the mean is undecided
    votes = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(2, 1, 2, 1, 1)
    assert observed(votes).information.item() == 1
    assert math.isclose(observed(votes).confidence.item(), 0.5)


def test_labelled_pixels_do_not_count():
    probabilities = torch.tensor([[0.5, 1.0], [0.5, 0.0]]).view(1, 1, 2, 1, 2)
    labelled = torch.tensor([[[True, False]]])
    assert observed(probabilities).information.item() == 0.5
    assert observed(probabilities, labelled=labelled).information.item() == 0
    assert observed(probabilities, labelled=~labelled).information.item() == 1
    assert observed(probabilities, labelled=torch.ones_like(labelled)).information.item() == 0
