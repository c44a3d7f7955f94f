"""Clicks counted by hand on small masks: outlines, windows, and where in the image the clicks are made."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml_backend.annotations.boxes import Box
from ml_backend.simulation.polygons import clicks_at, polygons, window_clicks

Mask = NDArray[np.uint8]


def blank(height: int = 24, width: int = 24) -> Mask:
    return np.zeros((height, width), np.uint8)


def square() -> Mask:
    """Pixels 4 to 13, of class 1."""
    mask = blank()
    mask[4:14, 4:14] = 1
    return mask


def in_window(mask: Mask, *box: int) -> int:
    """Clicks of one window: left, top, width, height."""
    return len(window_clicks(polygons(mask, background=0), mask, Box(*box), background=0))


# -- whole images ------------------------------------------------------------------------------------------------------
def test_a_square_takes_four_corners_and_its_class() -> None:
    found = polygons(square(), background=0)
    assert {tuple(corner) for corner in found.vertices.tolist()} == {(4, 4), (13, 4), (13, 13), (4, 13)}
    assert found.clicks == 4 + 1


def test_the_next_vertex_is_a_neighbour_along_the_outline() -> None:
    found = polygons(square(), background=0)
    steps = np.abs(found.following - found.vertices)
    assert sorted(map(tuple, steps.tolist())) == [(0, 9), (0, 9), (9, 0), (9, 0)]


def test_an_l_takes_six_corners() -> None:
    mask = blank()
    mask[2:20, 2:8] = 1
    mask[14:20, 2:20] = 1
    assert polygons(mask, background=0).clicks == 6 + 1


def test_components_are_counted_one_by_one_and_by_class() -> None:
    mask = square()
    mask[16:22, 2:8] = 1
    mask[16:22, 14:20] = 2
    found = polygons(mask, background=0)
    assert found.clicks == 3 * (4 + 1)
    assert found.first.tolist() == [0, 4, 8]


def test_components_that_touch_at_a_corner_are_one() -> None:
    mask = blank()
    mask[2:8, 2:8] = 1
    mask[8:14, 8:14] = 1
    found = polygons(mask, background=0)
    assert len(found.first) == 1
    assert in_window(mask, 0, 0, 24, 24) == found.clicks


def test_a_hole_is_free() -> None:
    mask = square()
    mask[7:11, 7:11] = 0
    assert polygons(mask, background=0).clicks == polygons(square(), background=0).clicks


def test_what_lies_in_a_hole_is_drawn() -> None:
    mask = square()
    mask[6:12, 6:12] = 2
    assert polygons(mask, background=0).clicks == 2 * (4 + 1)


def test_a_component_in_a_hole_of_its_own_class_is_drawn() -> None:
    mask = square()
    mask[5:13, 5:13] = 0
    mask[7:11, 7:11] = 1
    assert polygons(mask, background=0).clicks == 2 * (4 + 1)


def test_background_is_free_only_where_nobody_draws_it() -> None:
    assert polygons(square(), background=0).clicks == 5
    assert polygons(square(), background=None).clicks == 5 + 5
    assert polygons(square(), background=1).clicks == 5  # the class 0 around it


def test_ignored_pixels_are_never_drawn() -> None:
    mask = square()
    mask[mask == 0] = 255
    assert polygons(mask).clicks == 5


@pytest.mark.parametrize("mask", [blank(), np.full((5, 5), 255, np.uint8), np.zeros((0, 0), np.uint8)])
def test_nothing_to_draw_takes_no_click(mask: Mask) -> None:
    found = polygons(mask, background=0)
    assert (found.clicks, len(found.vertices), len(found.first)) == (0, 0, 0)
    assert len(found.made()) == 0
    if mask.size:
        assert len(window_clicks(found, mask, Box(0, 0, *mask.shape[::-1]), background=0)) == 0


def test_a_pixel_is_a_click_and_its_class() -> None:
    mask = blank()
    mask[5, 7] = 1
    found = polygons(mask, background=0)
    assert (found.vertices.tolist(), found.clicks) == ([[7, 5]], 2)
    assert in_window(mask, 7, 5, 1, 1) == 2
    assert in_window(mask, 8, 5, 1, 1) == 0


def test_simplification_is_within_the_tolerance() -> None:
    mask = square()
    mask[3, 8] = 1  # a bump of one pixel
    assert polygons(mask, background=0).clicks == 5
    mask[:3, 8] = 1  # no longer within a pixel and a half
    assert polygons(mask, background=0).clicks > 5


# -- windows -----------------------------------------------------------------------------------------------------------
def test_a_window_without_anything_takes_no_click() -> None:
    assert in_window(square(), 16, 16, 8, 8) == 0


def test_a_window_around_a_component_takes_what_the_component_takes() -> None:
    assert in_window(square(), 2, 2, 14, 14) == 5


def test_a_window_inside_a_component_takes_one_click() -> None:
    assert in_window(square(), 6, 6, 4, 4) == 1


def test_a_window_on_a_corner() -> None:
    """One vertex, two edges that leave, one component."""
    assert in_window(square(), 0, 0, 8, 8) == 1 + 2 + 1


def test_a_window_on_an_edge() -> None:
    """The upper edge, from x = 4 to 13 at y = 4, crosses both sides of the columns 6 to 9."""
    assert in_window(square(), 6, 0, 4, 8) == 0 + 2 + 1


def test_a_window_across_the_whole_component() -> None:
    """The columns 6 to 9 hold parts of two edges."""
    assert in_window(square(), 6, 0, 4, 24) == 0 + 4 + 1


def test_a_component_that_falls_apart_in_a_window_is_named_twice() -> None:
    """A U, of which a window sees the two arms: a click for each, and four edges that leave it downwards."""
    mask = blank()
    mask[2:20, 2:6] = 1
    mask[2:20, 14:18] = 1
    mask[16:20, 2:18] = 1
    assert in_window(mask, 0, 0, 24, 10) == 4 + 4 + 2


def test_an_edge_along_the_border_of_a_window_is_inside_or_outside() -> None:
    """The left edge of the square lies on pixels of x = 4: a window from there has it inside, one from 5 has not."""
    assert in_window(square(), 4, 6, 4, 4) == 0 + 2 + 1  # it enters above and leaves below
    assert in_window(square(), 5, 6, 4, 4) == 0 + 0 + 1
    assert in_window(square(), 0, 6, 4, 4) == 0  # ends one pixel before it


def diamond() -> Mask:
    """Corners at (12, 4), (20, 12), (12, 20), (4, 12); its edges are diagonal."""
    rows, columns = np.mgrid[:24, :24]
    return (np.abs(rows - 12) + np.abs(columns - 12) <= 8).astype(np.uint8)


def test_an_edge_that_only_touches_a_corner_of_a_window_does_not_cross_it() -> None:
    """The edge from (12, 4) to (4, 12) runs on x + y = 16 through (7.5, 8.5), the corner of a window."""
    assert set(map(tuple, polygons(diamond(), background=0).vertices.tolist())) == {
        (12, 4),
        (20, 12),
        (12, 20),
        (4, 12),
    }
    assert in_window(diamond(), 0, 0, 8, 9) == 0  # columns up to 7.5, rows up to 8.5: no pixel of it either
    assert in_window(diamond(), 0, 0, 9, 9) == 0 + 2 + 1  # with (8, 8), where it enters and leaves


def test_an_edge_through_a_corner_into_a_window_crosses_once() -> None:
    """The edge from (4, 12) to (12, 20) runs on y = x + 8 through (5.5, 13.5), the upper left corner of a window."""
    assert in_window(diamond(), 6, 14, 4, 6) == 0 + 2 + 1  # in through the corner, out on the right


def test_clicks_of_a_window_have_their_places() -> None:
    """The corner at (4, 4), two crossings of the border between columns and rows 7 and 8, and the class."""
    found = window_clicks(polygons(square(), background=0), square(), Box(0, 0, 8, 8), background=0)
    assert sorted(found.tolist()) == [[4, 4], [4, 4], [4, 7], [7, 4]]


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    """Rectangles of three classes and of ignored pixels, one over the other, next to the left half or the right."""
    mask = blank(20, 26)
    for _ in range(draw(st.integers(0, 4))):
        top, left = draw(st.integers(0, 19)), draw(st.integers(0, 25))
        value = draw(st.sampled_from([1, 2, 255]))
        mask[top : top + draw(st.integers(1, 12)), left : left + draw(st.integers(1, 12))] = value
    return mask


def nests(mask: Mask) -> bool:
    """Whether a component lies in a hole of its own class (see the expected failure above)."""
    for value in (1, 2):
        _, kinship = cv2.findContours((mask == value).astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
        if kinship is not None and any(kinship[0][one][3] >= 0 for one in kinship[0][:, 3] if one >= 0):
            return True
    return False


@settings(max_examples=60, deadline=None)
@given(masks())
def test_a_window_of_the_whole_image_takes_what_the_image_takes(mask: Mask) -> None:
    if not nests(mask):
        outlines = polygons(mask, background=0)
        assert len(window_clicks(outlines, mask, Box(0, 0, 26, 20), background=0)) == outlines.clicks


@settings(max_examples=60, deadline=None)
@given(masks(), st.integers(0, 25), st.integers(0, 19), st.data())
def test_a_window_has_an_even_number_of_crossings(mask: Mask, left: int, top: int, data: st.DataObject) -> None:
    """Outlines are closed: they leave as often as they enter. So vertices and components leave an even rest."""
    box = Box(left, top, data.draw(st.integers(1, 26 - left)), data.draw(st.integers(1, 20 - top)))
    outlines = polygons(mask, background=0)
    made = window_clicks(outlines, mask, box, background=0)
    assert ((made >= [box.left, box.top]) & (made < [box.left + box.width, box.top + box.height])).all()
    clicks = len(made)
    x, y = outlines.vertices.T
    inside = (x >= left) & (x < left + box.width) & (y >= top) & (y < top + box.height)
    part = mask[box.slices]
    components = sum(cv2.connectedComponents((part == one).astype(np.uint8))[0] - 1 for one in (1, 2))
    rest = clicks - int(inside.sum()) - components
    assert rest >= 0
    assert rest % 2 == 0


# -- where -------------------------------------------------------------------------------------------------------------
def test_clicks_lie_on_the_vertices_and_the_class_at_the_first() -> None:
    found = polygons(square(), background=0).made()
    assert sorted(set(map(tuple, found.tolist()))) == [(4, 4), (4, 13), (13, 4), (13, 13)]
    assert len(found) == 5


def test_clicks_are_found_again_in_a_smaller_image() -> None:
    rows, columns = clicks_at(polygons(square(), background=0).made(), (24, 24), (2, 2))  # quarters of 12 pixels
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 0), (0, 0), (0, 1), (1, 0), (1, 1)]
