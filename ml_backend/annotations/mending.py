"""The clicks that drawing a mask takes, and those that mending one takes which was predicted, counted from the masks.

    drawing   the vertices of the outline of each connected component, simplified, and one click that chooses its class
    mending   the same for each part of a true component that is predicted as another class; or drawing the component
              anew, where that takes fewer

What is predicted right costs nothing. Neither does what is off by no more than a drawn outline is: a pixel beside one
that is predicted as its class. Nor do parts under a minimum area, which no region is made for. Holes are free, because
what lies in them is drawn over its surroundings; so is drawing a background, which nobody does, but what was predicted
on it has to be taken away. Mending never takes more than drawing all of it: a prediction can be thrown away.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ml_backend.annotations.label_map import IGNORE_INDEX

TOLERANCE: Final = 1.5
"""Distance in pixels that a simplified outline may be off."""
_NEIGHBOURS: Final = np.ones((3, 3), np.uint8)
"""Pixels that are within the tolerance of another."""

Mask = NDArray[np.uint8]
Pixels = NDArray[np.bool_]


def outlines(pixels: Pixels) -> list[NDArray[np.float64]]:
    """Return the simplified outlines, each (N,2) x and y, of the connected components of a set (H,W)."""
    contours, kin = cv2.findContours(pixels.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return []
    outer = (contour for contour, (*_, parent) in zip(contours, kin[0], strict=True) if parent < 0)  # others are holes
    simple = (cv2.approxPolyDP(contour, TOLERANCE, closed=True) for contour in outer)
    return [points.reshape(-1, 2).astype(np.float64) for points in simple]


def drawn_classes(mask: Mask, background: int | None) -> list[int]:
    """Return the classes of a mask that somebody draws."""
    return [int(value) for value in np.unique(mask) if value not in (IGNORE_INDEX, background)]


def drawing_clicks(mask: Mask, *, background: int | None = None) -> int:
    """Return the clicks that drawing a mask (H,W) of class indices takes; pixels of 255 are not drawn."""
    classes = drawn_classes(mask, background)
    return sum(len(points) + 1 for value in classes for points in outlines(mask == value))


def mending_clicks(predicted: Mask, truth: Mask, *, background: int | None = None, minimum_area: int = 0) -> int:
    """Return the clicks that it takes to make the true mask of a predicted one.

    Args:
        predicted: (H,W) uint8 of class indices.
        truth: (H,W) uint8; pixels of 255 may be predicted as anything.
        background: a class that nobody draws; None: all are drawn.
        minimum_area: smaller parts are left as they are, in pixels.

    Raises:
        ValueError: the masks have different sizes.

    >>> truth = np.zeros((20, 20), np.uint8)
    >>> truth[2:12, 2:12] = 1
    >>> mending_clicks(truth, truth, background=0)
    0
    >>> mending_clicks(np.zeros_like(truth), truth, background=0)  # all of it is missing: four corners and its class
    5
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"a predicted mask of {predicted.shape} for a true one of {truth.shape}")
    total = 0
    for value in drawn_classes(truth, None):
        pixels = truth == value
        right = predicted == value
        near = cv2.dilate(right.astype(np.uint8), _NEIGHBOURS).astype(bool)
        wrong = _of_area(pixels & ~right, minimum_area) & ~near
        if wrong.any():
            total += sum(_parts(wrong, pixels, is_drawn=value != background))
    return min(total, drawing_clicks(truth, background=background))


def _parts(wrong: Pixels, pixels: Pixels, *, is_drawn: bool) -> list[int]:
    """Return what mending takes of each component of a class (H,W) that is wrong somewhere."""
    _, components = cv2.connectedComponents(pixels.astype(np.uint8), connectivity=8)
    clicks: dict[int, int] = {}
    for points in outlines(wrong):
        column, row = points[0].astype(int)
        component = int(components[row, column])
        clicks[component] = clicks.get(component, 0) + len(points) + 1
    if not is_drawn:
        return list(clicks.values())
    anew = {component: sum(len(points) + 1 for points in outlines(components == component)) for component in clicks}
    return [min(count, anew[component]) for component, count in clicks.items()]


def _of_area(pixels: Pixels, least: int) -> Pixels:
    """Return (H,W) without connected components of fewer pixels."""
    if least < 2 or not pixels.any():
        return pixels
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)
    kept = statistics[:, cv2.CC_STAT_AREA] >= least
    kept[0] = False
    large: Pixels = kept[parts]
    return large
