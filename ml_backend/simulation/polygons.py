"""The clicks that drawing a mask with polygons takes, counted from the mask.

Paper: Mackowiak et al., "CEREALS: Cost-effective region-based active learning for semantic segmentation", 2018, arXiv
1810.09726, counts the clicks that Cityscapes' annotators made. Published masks keep no clicks, so they are counted on
the outlines of connected components, simplified to a pixel or two:

    of a whole image    the vertices of all outlines, and one click per component, which chooses its class
    of a window         the vertices inside it, each crossing of its border by an outline, where an annotator would
                        have to start and to end, and one click per component inside it

Deviations: holes are free, because what lies in them is drawn over its surroundings; so is a background class, which
nobody draws. Neighbours that share a boundary are each counted along it.

What is charged and what a strategy learns from are the same clicks: each has its place, and their number is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ml_backend.annotations.boxes import Box
from ml_backend.annotations.mending import Mask, drawn_classes
from ml_backend.annotations.mending import outlines as outlines_of

Points = NDArray[np.float64]
"""(N,2), x and y in pixels of the mask; a pixel's centre has whole coordinates."""


@dataclass(frozen=True, eq=False)
class Polygons:
    """The outlines of a mask's components, in pixels of the mask; a pixel's centre has whole coordinates.

    Attributes:
        vertices: (V,2) float64, x and y.
        following: (V,2) float64, the next vertex of the same outline.
        first: (N) int64, the position in `vertices` of the first vertex of each component.
    """

    vertices: NDArray[np.float64]
    following: NDArray[np.float64]
    first: NDArray[np.int64]

    @property
    def clicks(self) -> int:
        """Clicks that drawing the whole image takes."""
        return len(self.vertices) + len(self.first)

    def made(self) -> Points:
        """Return where in the image those clicks are made; the class of a component is clicked at its first vertex."""
        return np.concatenate([self.vertices, self.vertices[self.first]])


def polygons(mask: Mask, *, background: int | None = None) -> Polygons:
    """Outline every connected component of a mask (H,W) uint8 of class indices.

    Args:
        background: a class that nobody draws; None: all are drawn. Pixels of 255 are never drawn.
    """
    outlines = [points for value in drawn_classes(mask, background) for points in outlines_of(mask == value)]
    if not outlines:
        nothing = np.zeros((0, 2))
        return Polygons(nothing, nothing, np.zeros(0, np.int64))
    starts = np.cumsum([0, *(len(points) for points in outlines[:-1])])
    following = [np.roll(points, -1, axis=0) for points in outlines]
    return Polygons(np.concatenate(outlines), np.concatenate(following), starts.astype(np.int64))


def window_clicks(outlines: Polygons, mask: Mask, box: Box, *, background: int | None = None) -> Points:
    """Return where the clicks are made that labelling a window of an image takes: (N,2), all of them inside it.

    Args:
        outlines: of the whole mask.
        mask: (H,W) uint8.
        background: as for `polygons`.
    """
    low = np.array([box.left, box.top]) - 0.5
    high = low + np.array([box.width, box.height])
    vertices = outlines.vertices[((outlines.vertices > low) & (outlines.vertices < high)).all(axis=1)]
    inside = mask[box.slices]
    named = [point for value in drawn_classes(inside, background) for point in _first_pixels(inside == value)]
    components = np.array(named, np.float64).reshape(-1, 2) + np.array([box.left, box.top])
    made = np.concatenate([vertices, _crossings(outlines, low, high), components])
    return made.clip(low + 0.5, high - 0.5)


def clicks_at(made: Points, of: tuple[int, int], size: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows (N) and columns (N) of clicks in an image of (height, width) that is shrunk to `size`."""
    rows = ((made[:, 1] + 0.5) * size[0] / of[0]).astype(np.intp).clip(0, size[0] - 1)
    columns = ((made[:, 0] + 0.5) * size[1] / of[1]).astype(np.intp).clip(0, size[1] - 1)
    return rows, columns


def _crossings(outlines: Polygons, low: Points, high: Points) -> Points:
    """Return where edges cross the border of the rectangle from `low` to `high`, both (x, y): (N,2).

    No vertex lies on the border, which runs between pixels. The part of an edge that is inside goes from t = `enter`
    to t = `leave` (Liang and Barsky's clipping); an end of it within the edge is a crossing.
    """
    start, step = outlines.vertices, outlines.following - outlines.vertices
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (low - start) / step, (high - start) / step
    still = step == 0
    outside = still & ((start < low) | (start > high))
    enter = np.where(still, -np.inf, np.minimum(first, second)).max(axis=1, initial=-np.inf)
    leave = np.where(still, np.inf, np.maximum(first, second)).min(axis=1, initial=np.inf)
    meets = (enter < leave) & ~outside.any(axis=1)
    crossed = [meets & (t > 0) & (t < 1) for t in (enter, leave)]
    found = [start[at] + t[at, None] * step[at] for at, t in zip(crossed, (enter, leave), strict=True)]
    return np.concatenate(found)


def _first_pixels(pixels: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the first pixel (x, y) in reading order of each connected component of (H,W)."""
    count, parts = cv2.connectedComponents(pixels.astype(np.uint8), connectivity=8)
    _, first = np.unique(parts, return_index=True)
    rows, columns = np.divmod(first, parts.shape[1])
    found = zip(columns.tolist(), rows.tolist(), strict=True)
    return [point for point in found if pixels[point[1], point[0]]] if count > 1 else []
