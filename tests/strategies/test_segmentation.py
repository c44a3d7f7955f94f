from __future__ import annotations

import itertools

import pytest
import torch

from strategies.segmentation import boundary_length, predicted_classes


def test_predicted_classes_are_those_of_the_mean():
    probabilities = torch.randn(3, 2, 4, 5, 6, generator=torch.Generator().manual_seed(0)).softmax(dim=2)
    assert torch.equal(predicted_classes(probabilities), probabilities.mean(dim=0).argmax(dim=1))


def test_first_of_tied_classes():
    assert predicted_classes(torch.full((2, 1, 3, 2, 2), 1 / 3)).eq(0).all()


def naive_length(classes):
    """Count the pairs of neighbours (of four) that differ."""
    height, width = classes.shape
    pairs = [((y, x), (y, x + 1)) for y, x in itertools.product(range(height), range(width - 1))]
    pairs += [((y, x), (y + 1, x)) for y, x in itertools.product(range(height - 1), range(width))]
    return sum(bool(classes[one] != classes[other]) for one, other in pairs)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (5, 8)])
def test_boundaries_equal_the_naive_count(size):
    classes = torch.randint(3, size, generator=torch.Generator().manual_seed(1))
    length = boundary_length(classes, size)
    assert length.shape == size
    assert length.sum().item() == naive_length(classes)


def test_measured_in_pixels_of_the_original():
    # an upright edge is as long as the image is high, whatever the resolution it was found at
    classes = torch.zeros(4, 6, dtype=torch.int64)
    classes[:, 3:] = 1
    assert boundary_length(classes, (40, 12)).sum().item() == 40
    assert boundary_length(classes.T, (12, 40)).sum().item() == 40


def test_one_class_has_no_boundary():
    assert boundary_length(torch.ones(4, 4, dtype=torch.int64), (4, 4)).sum().item() == 0
