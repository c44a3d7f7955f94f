"""Outlines <-> pixels: pure geometry, in pixels of the image.

Pixel (row, column) is the square from column to column + 1 and from row to row + 1. Points are (N,2) float64, x and y.
A pixel belongs to an outline when its centre does, by the non-zero winding rule, as in the canvas of Label Studio's
editor. (OpenCV's `fillPoly` rounds points to pixels, paints the border on both sides and fills by the even-odd rule.)
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ml_backend.errors import MaskError

MAXIMUM_CROSSINGS: Final = 10_000_000
"""Rows that all edges of an outline may cross together: bounds the work and memory of `fill`."""

Points = NDArray[np.float64]


def fill(mask: NDArray[np.uint8], points: Points, value: int) -> None:
    """Set the pixels inside a closed outline to a value; what lies outside the mask is left out.

    Args:
        mask: (H,W) uint8, changed in place.
        points: (N,2).
        value: 0 to 255.

    Raises:
        MaskError: the outline is too long, see MAXIMUM_CROSSINGS.
    """
    row, column, direction = _crossings(points, *mask.shape)
    if not row.size:
        return
    order = np.lexsort((column, row))
    row, column = row[order], column[order]
    inside = np.flatnonzero(np.cumsum(direction[order]))  # crossing i opens a span that ends at i + 1, in the same row
    top, bottom, left, right = int(row[0]), int(row[-1]) + 1, int(column.min()), int(column.max())
    place = (row - top) * (right - left) + column - left
    edges = np.zeros((bottom - top) * (right - left) + 1, np.int8)
    np.add.at(edges, place[inside], 1)
    np.add.at(edges, place[inside + 1], -1)
    covered = np.cumsum(edges[:-1], dtype=np.int8).reshape(bottom - top, right - left)
    mask[top:bottom, left:right][covered != 0] = value


def _crossings(points: Points, height: int, width: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """Where edges cross the centre lines of rows: row, first column right of the crossing, and +1 or -1."""
    ends = np.roll(points, -1, axis=0)
    downward = points[:, 1] <= ends[:, 1]
    # From the upper end in either direction, so that a line drawn there and back cancels exactly.
    x, y = np.where(downward[:, None], points, ends).T
    end_x, end_y = np.where(downward[:, None], ends, points).T
    first = np.clip(np.ceil(y - 0.5), 0, height).astype(np.intp)
    rows = np.clip(np.ceil(end_y - 0.5), 0, height).astype(np.intp) - first
    total = int(rows.sum())
    if total > MAXIMUM_CROSSINGS:
        raise MaskError(f"an outline of {len(points)} points crosses {total} rows; {MAXIMUM_CROSSINGS} are the limit")
    edge = np.repeat(np.arange(len(points)), rows)
    row = np.arange(total) - np.repeat(np.cumsum(rows) - rows, rows) + first[edge]
    along = (row + 0.5 - y[edge]) / (end_y - y)[edge]
    column = np.clip(np.ceil(x[edge] + along * (end_x - x)[edge] - 0.5), 0, width).astype(np.intp)
    return row, column, np.where(downward, 1, -1)[edge]


def trace(region: NDArray[np.uint8], *, tolerance: float, minimum_hole: float) -> Points:
    """Return a closed outline along the pixel borders of a connected region, with its holes cut open.

    A polygon has no holes. So the outline runs from its nearest point to the hole, around the hole in the opposite
    direction, and back along the same line: filled by either rule, the hole stays open, and the cut covers no pixel.

    Args:
        region: (H,W) uint8, non-zero inside a single 8-connected component.
        tolerance: how far simplification (Douglas-Peucker) may move the outline, in pixels; 0 keeps every corner.
            It is lowered where a small or thin region would lose its shape.
        minimum_hole: smaller holes are closed; in square pixels.

    Returns:
        (N,2) points, x and y from the upper left corner of `region`. With tolerance 0, `fill` gives the region back.

    Raises:
        MaskError: the region is empty.
    """
    # At twice the size, each side of a pixel has border pixels of its own, and rounding moves them onto that side.
    doubled = region.repeat(2, axis=0).repeat(2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        raise MaskError("an empty region has no outline")
    outer: Points = np.empty((0, 2))
    holes: list[Points] = []
    for contour, (_, _, _, parent) in zip(contours, hierarchy[0], strict=True):
        ring = ((contour[:, 0, :] + 1) // 2).astype(np.int32)
        if parent < 0:
            outer = _oriented(_simplified(ring, tolerance), positive=True)
        elif cv2.contourArea(ring) >= minimum_hole:
            holes.append(_oriented(_simplified(ring, tolerance), positive=False))
    return _cut_open(outer, holes)


def _simplified(ring: NDArray[np.int32], tolerance: float) -> NDArray[np.int32]:
    area = cv2.contourArea(ring)
    while tolerance >= 0.25:  # corners of pixels are at least half a pixel off any line that leaves them out
        simple = cv2.approxPolyDP(ring, tolerance, True)[:, 0, :]
        if len(simple) >= 3 and abs(cv2.contourArea(simple) - area) <= 0.05 * area:
            return simple.astype(np.int32)
        tolerance /= 2
    return ring


def _oriented(ring: NDArray[np.int32], *, positive: bool) -> Points:
    as_wanted = (cv2.contourArea(ring, oriented=True) >= 0) is positive
    return (ring if as_wanted else ring[::-1]).astype(np.float64)


def _cut_open(outline: Points, holes: list[Points]) -> Points:
    for hole in sorted(holes, key=lambda ring: float(ring[:, 0].min())):
        start = int(hole[:, 0].argmin())
        near = int(((outline - hole[start]) ** 2).sum(axis=1).argmin())
        around = np.roll(hole, -start, axis=0)
        outline = np.concatenate([outline[: near + 1], around, around[:1], outline[near:]])
    return outline


def rectangle(x: float, y: float, width: float, height: float, degrees: float) -> Points:
    """Return the corners (4,2) of a rectangle rotated clockwise, as seen on screen, about its first corner (x, y)."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
    return np.array([x, y]) + _turned(corners, degrees)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float) -> Points:
    """Return points (N,2) of an ellipse rotated clockwise, as seen on screen, about its centre (x, y).

    The outline through them is off by 0.02 pixels at most.
    """
    steps = 8 + math.ceil(math.pi * math.sqrt(max(radius_x, radius_y, 0) / 0.04))
    angle = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    points = np.stack([radius_x * np.cos(angle), radius_y * np.sin(angle)], axis=1)
    return np.array([x, y]) + _turned(points, degrees)


def curve(start: Points, control: Points, second_control: Points, end: Points) -> Points:
    """Return 64 points (64,2) of a cubic Bézier curve without its end. All arguments are (2,)."""
    t = np.linspace(0, 1, 64, endpoint=False)[:, None]
    inner = 3 * (1 - t) ** 2 * t * control + 3 * (1 - t) * t**2 * second_control
    points: Points = (1 - t) ** 3 * start + inner + t**3 * end
    return points


def _turned(points: Points, degrees: float) -> Points:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned: Points = points @ np.array([[cosine, sine], [-sine, cosine]])
    return turned
