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
from ml_backend.simulation.tariff import Tariff
from strategies import Prices


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
        (Pick(1), Pick(1, points=((0, 0),))),
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


# -- points ------------------------------------------------------------------------------------------------------------
def test_points_are_answered_with_the_class_of_their_very_pixel() -> None:
    """Seen at half the size: the square's corner (5, 5) is in a place whose middle is none of it."""
    mask = np.zeros((64, 64), np.uint8)
    mask[5, 5], mask[40, 41] = 1, 255
    labels = Labels({1: picture(1, mask)}, background=0)
    labels.add([Pick(1, points=((5, 5), (20, 30), (40, 41)))])
    assert labels.answers(1) == {(5, 5): 1, (20, 30): 0, (40, 41): 255}
    seen = labels.mask(1)
    assert seen.shape == (32, 32)
    assert (seen[2, 2], seen[10, 15]) == (1, 0)
    assert int((seen != 255).sum()) == 2, "everything else, and a pixel without a class, trains nothing"
    assert set(map(tuple, labels.known(1).nonzero().tolist())) == {(2, 2), (10, 15), (20, 20)}, (
        "void is not asked again"
    )


def test_points_are_charged_and_so_is_opening_an_image() -> None:
    pictures = {number: one_square(number) for number in (1, 2)}
    labels = Labels(pictures, background=0, tariff=Tariff(point=3, opening=2))
    labels.add([Pick(1, points=((0, 0), (5, 5)))])
    assert (labels.pixels, labels.clicks) == (2, 2 * 3 + 2)
    labels.add([Pick(1, points=((9, 9),)), Pick(2)])  # opened again; a square of five clicks
    assert (labels.pixels, labels.clicks) == (3 + 384, 8 + 3 + 2 + 5 + 2)
    assert labels.effort(1).sum() == 9
    assert (len(labels), labels.is_whole(1), labels.is_whole(2)) == (2, False, True)
    assert labels.asked(1) == (Box(0, 0, 1, 1), Box(5, 5, 1, 1), Box(9, 9, 1, 1))


@pytest.mark.parametrize("second", [Pick(1, points=((3, 7),)), Pick(1, points=((0, 0), (3, 7)))])
def test_no_point_is_answered_twice(labels: Labels, second: Pick) -> None:
    labels.add([Pick(1, points=((3, 7),))])
    with pytest.raises(ValueError, match=r"pixel \(3, 7\) of image 1 is answered already"):
        labels.add([second])


def test_boxes_and_points_of_an_image_go_together(labels: Labels) -> None:
    labels.add([Pick(1, (Box(0, 0, 8, 8),))])
    labels.add([Pick(1, points=((15, 23), (2, 2)))])
    assert int(labels.known(1).sum()) == 65
    assert labels.boxes(1) == (Box(0, 0, 8, 8),)


def test_picks_of_points_come_back_from_json() -> None:
    for pick in (Pick(4, points=((1, 2), (3, 4))), Pick(4, (Box(1, 2, 3, 4),)), Pick(4)):
        assert Pick.from_json(json.loads(json.dumps(pick.to_json()))) == pick
    assert len(Pick(4).to_json()) == 2, "as files of choices have it that know no points"


# -- a mask after parts of it ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("part", [Pick(1, points=((0, 0), (5, 5))), Pick(1, (Box(0, 0, 8, 8),))])
def test_a_mask_follows_what_was_labelled_in_part(part: Pick) -> None:
    """Its pixels are known once, its clicks are charged beside those of the part, and nothing is asked any more."""
    labels = Labels({number: one_square(number) for number in (1, 2)}, background=0, tariff=Tariff(point=3, opening=2))
    labels.add([part])
    before = labels.clicks
    labels.add([Pick(1), Pick(2)])
    assert labels.pixels == 2 * 384
    assert labels.clicks == before + 2 * (5 + 2)
    assert (len(labels), labels.is_whole(1)) == (2, True)
    assert torch.equal(labels.mask(1), torch.from_numpy(one_square(1).truth()))
    assert labels.known(1).all()
    openings = 2 * labels.opened
    assert float(labels.effort(1).sum() + labels.effort(2).sum()) == labels.clicks - openings
    with pytest.raises(ValueError, match="image 1 is labelled already"):
        labels.add([Pick(1)])


def test_what_is_needed_for_other_prices_is_counted(labels: Labels) -> None:
    labels.add([Pick(1, points=((0, 0), (5, 5))), Pick(2, (Box(0, 0, 8, 8),))])
    assert (labels.drawn, labels.mended, labels.points, labels.opened) == (4, 4, 2, 2)
    labels.add([Pick(1), Pick(3)], {1: 2})  # the one is mended, the other drawn; a square takes five
    assert (labels.drawn, labels.mended, labels.points, labels.opened) == (14, 11, 2, 4)
    assert labels.clicks == 14 + 2
    assert Tariff(point=3, opening=5).clicks(masks=labels.mended, points=labels.points, opened=labels.opened) == 37


def test_what_points_and_masks_take_on_average() -> None:
    labels = Labels({number: one_square(number) for number in (1, 2, 3)}, background=0, tariff=Tariff(opening=2))
    assert labels.prices == Prices()
    labels.add([Pick(1, points=((0, 0), (5, 5))), Pick(2, points=((0, 0),)), Pick(3, (Box(0, 0, 8, 8),))])
    assert labels.prices == Prices(points=(4 + 3) / 2)
    labels.add([Pick(1)])
    assert labels.prices == Prices(points=3.5, mask=7)
