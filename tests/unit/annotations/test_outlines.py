"""Filling and tracing of outlines."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ml_backend.annotations import outlines
from ml_backend.errors import MaskError


def filled(points: list[tuple[float, float]], height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    outlines.fill(mask, np.array(points, dtype=np.float64), 1)
    return mask


def test_a_pixel_is_in_when_its_centre_is() -> None:
    assert filled([(1, 1), (3, 1), (3, 2), (1, 2)], 4, 5).tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    assert filled([(0.6, 0), (2.6, 0), (2.6, 1), (0.6, 1)], 1, 4).tolist() == [[0, 1, 1, 0]]
    assert filled([(0, 0), (4, 0), (0, 4)], 4, 4).sum() == 6  # the diagonal itself is outside


def test_direction_does_not_matter_and_outside_is_cut_off() -> None:
    ring = [(-3.0, -2.0), (2.0, -2.0), (2.0, 9.0), (-3.0, 9.0)]
    assert (filled(ring, 4, 4) == filled(ring[::-1], 4, 4)).all()
    assert filled(ring, 4, 4).tolist() == [[1, 1, 0, 0]] * 4
    assert filled([(-9, -9), (-5, -9), (-5, -5)], 4, 4).sum() == 0


def test_non_zero_winding_fills_what_crosses_itself() -> None:
    star = [(50 + 45 * math.sin(4 * math.pi * k / 5), 50 - 45 * math.cos(4 * math.pi * k / 5)) for k in range(5)]
    assert filled(star, 100, 100)[50, 50] == 1  # the even-odd rule leaves it open

    bow_tie = [(10, 10), (90, 90), (90, 10), (10, 90)]
    mask = filled(bow_tie, 100, 100)
    assert (mask[50, 30], mask[50, 70], mask[30, 50], mask[70, 50]) == (1, 1, 0, 0)


def inside(points: np.ndarray, x: float, y: float) -> bool:
    """Winding number by summed angles: slow, and written otherwise than `fill`."""
    angles = np.arctan2(points[:, 1] - y, points[:, 0] - x)
    steps = (np.roll(angles, -1) - angles + np.pi) % (2 * np.pi) - np.pi
    return round(steps.sum() / (2 * np.pi)) != 0


# Odd multiples of 1/64 never put an edge exactly on a centre's height; points on an edge may fall either way.
coordinate = st.integers(-64 * 3, 64 * 13).map(lambda n: (2 * n + 1) / 128)


@given(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9))
def test_fill_agrees_with_the_winding_number(points: list[tuple[float, float]]) -> None:
    ring = np.array(points)
    mask = filled(points, 10, 10)
    edges = np.stack([ring, np.roll(ring, -1, axis=0)], axis=1)
    for row, column in np.ndindex(mask.shape):
        x, y = column + 0.5, row + 0.5
        direction = edges[:, 1] - edges[:, 0]
        offset = np.array([x, y]) - edges[:, 0]
        if np.abs(direction[:, 0] * offset[:, 1] - direction[:, 1] * offset[:, 0]).min() > 1e-9:
            assert mask[row, column] == inside(ring, x, y)


def test_an_absurdly_long_outline_is_refused() -> None:
    zigzag = [(float(n), 0.0 if n % 2 else 20_000.0) for n in range(2000)]
    with pytest.raises(MaskError, match="crosses"):
        filled(zigzag, 20_000, 4)


def components(mask: np.ndarray) -> list[np.ndarray]:
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    return [(labels == number).astype(np.uint8) for number in range(1, count)]


masks = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1))


@given(masks)
def test_exact_tracing_gives_any_region_back(mask: np.ndarray) -> None:
    for region in components(mask):
        points = outlines.trace(region, tolerance=0, minimum_hole=0)
        back = np.zeros_like(region)
        outlines.fill(back, points, 1)
        assert (back == region).all()


def test_a_hole_is_cut_open_without_covering_a_pixel() -> None:
    region = np.ones((9, 9), np.uint8)
    region[3:6, 4:7] = 0
    points = outlines.trace(region, tolerance=1, minimum_hole=0)

    assert len(points) == 4 + 4 + 2  # both rings, and the two ends of the cut once more
    assert (filled([tuple(p) for p in points], 9, 9) == region).all()


def test_small_holes_are_closed() -> None:
    region = np.ones((9, 9), np.uint8)
    region[3:5, 3:5] = 0
    assert len(outlines.trace(region, tolerance=1, minimum_hole=5)) == 4
    assert len(outlines.trace(region, tolerance=1, minimum_hole=4)) == 10


@pytest.mark.parametrize("region", [np.eye(30, dtype=np.uint8), np.ones((1, 1), np.uint8), np.ones((1, 40), np.uint8)])
def test_simplifying_never_loses_thin_regions(region: np.ndarray) -> None:
    points = outlines.trace(region, tolerance=3, minimum_hole=0)
    back = np.zeros_like(region)
    outlines.fill(back, points, 1)
    assert (back & region).sum() >= 0.9 * region.sum()


def test_an_empty_region_has_no_outline() -> None:
    with pytest.raises(MaskError, match="empty"):
        outlines.trace(np.zeros((3, 3), np.uint8), tolerance=1, minimum_hole=0)


def test_turned_rectangle_about_its_corner_and_ellipse_about_its_centre() -> None:
    corners = outlines.rectangle(10, 20, 4, 2, 90)  # clockwise on screen: the right side points down
    assert np.allclose(corners, [[10, 20], [10, 24], [8, 24], [8, 20]])

    points = outlines.ellipse(10, 20, 6, 2, 90)
    assert np.allclose([points.min(axis=0), points.max(axis=0)], [[8, 14], [12, 26]], atol=0.02)


def test_ellipse_area_is_that_of_the_formula() -> None:
    mask = np.zeros((400, 600), np.uint8)
    outlines.fill(mask, outlines.ellipse(300, 200, 250, 100, 17), 1)
    assert mask.sum() == pytest.approx(math.pi * 250 * 100, rel=1e-3)


def test_curve_passes_through_its_middle() -> None:
    points = outlines.curve(*(np.array(p, dtype=float) for p in ((0, 0), (0, 8), (8, 8), (8, 0))))
    assert np.allclose(points[[0, 32]], [[0, 0], [4, 6]])
