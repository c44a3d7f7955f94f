"""What is labelled, and what it has taken: counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_data import picture

from ml_backend.annotations.boxes import Box
from ml_backend.simulation.labels import Labels, Pick
from ml_backend.simulation.material import Picture


def one_square(number: int, side: int = 10) -> Picture:
    """16 rows, 24 columns; a square from (4, 4): 5 clicks, 384 pixels."""
    mask = np.zeros((16, 24), np.uint8)
    mask[4 : 4 + side, 4 : 4 + side] = 1
    return picture(number, mask)


@pytest.fixture
def labels() -> Labels:
    return Labels({number: one_square(number) for number in (3, 1, 2)}, background=0)


def test_nothing_is_labelled_at_first(labels: Labels) -> None:
    assert (len(labels), labels.numbers, labels.pixels, labels.clicks) == (0, [], 0, 0)
    assert not labels.known(1).any()
    assert (labels.mask(1) == 255).all()
    assert labels.effort(1).sum() == 0


def test_whole_images_and_boxes_add_up_over_rounds(labels: Labels) -> None:
    labels.add([Pick(3)])
    assert (len(labels), labels.pixels, labels.clicks) == (1, 384, 5)
    corner, nothing = Box(0, 0, 8, 8), Box(16, 0, 8, 16)
    labels.add([Pick(1, (corner, nothing))])  # a vertex, two crossings, a component; nothing
    assert (len(labels), labels.pixels, labels.clicks) == (2, 384 + 64 + 128, 5 + 4)
    labels.add([Pick(1, (Box(8, 0, 8, 16),)), Pick(2)])  # two vertices, two crossings, a component; the whole
    assert (len(labels), labels.pixels, labels.clicks) == (3, 384 + 64 + 128 + 128 + 384, 5 + 4 + 5 + 5)
    assert labels.numbers == [1, 2, 3]
    assert labels.boxes(1) == (corner, nothing, Box(8, 0, 8, 16))


def test_a_label_is_a_whole_image_or_boxes(labels: Labels) -> None:
    labels.add([Pick(3), Pick(1, (Box(0, 0, 8, 8),))])
    assert [labels.is_whole(number) for number in (1, 2, 3)] == [False, False, True]
    assert [number in labels for number in (1, 2, 3)] == [True, False, True]
    assert (labels.boxes(3), labels.boxes(2)) == ((), ())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Pick(1), Pick(1)),
        (Pick(1), Pick(1, (Box(0, 0, 8, 8),))),
        (Pick(1, (Box(0, 0, 8, 8),)), Pick(1)),
    ],
)
def test_what_is_labelled_is_not_labelled_again(labels: Labels, first: Pick, second: Pick) -> None:
    labels.add([first])
    before = (labels.pixels, labels.clicks)
    with pytest.raises(ValueError, match="image 1 is labelled already"):
        labels.add([second])
    assert (labels.pixels, labels.clicks) == before


def test_an_unknown_image_has_no_label(labels: Labels) -> None:
    with pytest.raises(KeyError):
        labels.add([Pick(99)])


def test_a_mask_is_known_inside_only(labels: Labels) -> None:
    labels.add([Pick(1, (Box(0, 0, 8, 8),)), Pick(2)])
    truth = torch.from_numpy(one_square(1).truth())
    mask = labels.mask(1)
    assert torch.equal(mask[:8, :8], truth[:8, :8])
    outside = torch.ones(16, 24, dtype=torch.bool)
    outside[:8, :8] = False
    assert (mask[outside] == 255).all()
    assert torch.equal(labels.mask(2), truth)
    assert labels.known(1).sum() == 64
    assert labels.known(2).all()


def test_ignored_pixels_stay_so() -> None:
    mask = np.full((16, 24), 255, np.uint8)
    mask[:, 12:] = 1
    labels = Labels({1: picture(1, mask)}, background=0)
    labels.add([Pick(1)])
    assert torch.equal(labels.mask(1), torch.from_numpy(mask))


def test_boxes_shrink_with_the_image() -> None:
    """64 pixels wide, seen with 32: half of the columns are known."""
    mask = np.ones((32, 64), np.uint8)
    labels = Labels({1: picture(1, mask)}, background=0)
    labels.add([Pick(1, (Box(0, 0, 32, 32),))])
    assert labels.known(1).shape == (16, 32)
    assert labels.known(1)[:, :16].all()
    assert not labels.known(1)[:, 16:].any()
    assert labels.pixels == 32 * 32  # of the original


def test_effort_is_known_inside_only(labels: Labels) -> None:
    labels.add([Pick(1, (Box(0, 0, 8, 8),)), Pick(2)])
    assert labels.effort(2).sum() == 5
    inside = labels.effort(1)
    assert inside.sum() == 4  # the vertex (4, 4), the class that is clicked there, and two crossings of the border
    assert (inside[4, 4], inside[4, 7], inside[7, 4]) == (2, 1, 1)
    assert inside.dtype == torch.float32


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12), st.integers(0, 8), st.integers(4, 12), st.integers(4, 8), st.sampled_from([1, 2, 8]))
def test_the_effort_that_is_learned_is_the_effort_that_is_charged(
    left: int, top: int, width: int, height: int, scale: int
) -> None:
    """Crossings of a window's border and its components, too, whatever the size that the network sees."""
    mask = one_square(1).truth()
    mask[2:6, 12:23] = 2
    large = picture(1, np.kron(mask, np.ones((scale, scale), np.uint8)))
    labels = Labels({1: large, 2: large}, background=0)
    box = Box(left * scale, top * scale, width * scale, height * scale)
    labels.add([Pick(1, (box,)), Pick(2)])
    efforts = [labels.effort(number) for number in (1, 2)]
    assert sum(float(one.sum()) for one in efforts) == labels.clicks
    assert (efforts[0] > 0)[~labels.known(1)].sum() == 0


def test_costs_are_told_before_anything_is_labelled(labels: Labels) -> None:
    assert (labels.cost(Pick(1)), labels.area(Pick(1))) == (5, 384)
    box = Pick(1, (Box(0, 0, 8, 8), Box(6, 6, 4, 4)))
    assert (labels.cost(box), labels.area(box)) == (4 + 1, 64 + 16)
    assert len(labels) == 0


def test_a_drawn_background_costs() -> None:
    labels = Labels({1: picture(1, one_square(1).truth(), background=None)}, background=None)
    assert labels.cost(Pick(1)) == 5 + 5
    assert labels.cost(Pick(1, (Box(16, 0, 4, 4),))) == 1 + 2  # its class; the upper edge of the image in and out


@pytest.mark.parametrize("pick", [Pick(7), Pick(7, (Box(1, 2, 3, 4), Box(5, 6, 7, 8)))])
def test_picks_survive_json(pick: Pick) -> None:
    assert Pick.from_json(json.loads(json.dumps(pick.to_json()))) == pick
