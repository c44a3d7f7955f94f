"""How many clicks an annotation took, and where: what Label Studio keeps of it, compared with what was shown.

    polygons, vectors    one click for each vertex that was not there
    brush, bitmask       one click for each 10 pixels of the boundary of what was changed
    rectangles, ellipses one click
    any region           one click more when it was added; one when it was deleted

A region that still is as it was predicted costs nothing. Label Studio's open-source edition logs no clicks and no
history: this is what can be told from the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ml_backend.annotations import masks, shapes
from ml_backend.annotations.boxes import Box, covered_pixels
from ml_backend.annotations.effort import Points, as_points, spread
from ml_backend.annotations.fields import lead_time_of, number_in, regions_of
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap
from ml_backend.annotations.masks import Mask
from ml_backend.errors import MaskError

PIXELS_PER_CLICK: Final = 10.0
_ROUNDED = 3
"""Decimals of a percentage to which vertices are compared: a tenth of a pixel in an image of 10,000."""
_UNTOUCHED = "prediction"

Measure = Literal["clicks", "seconds"]
_Region = Mapping[str, Any]
_Rows = list[tuple[float, float, float]]


def clicks(
    result: Sequence[object], label_map: LabelMap, before: Mask, *, minimum_area: int = 0, tolerance: float = 1.0
) -> Points:
    """Return where an annotator clicked, in pixels of the image, and how often.

    Args:
        result: of the annotation.
        before: (H,W) uint8, the mask that was shown; unpainted all over where none was.
        minimum_area, tolerance: what the shown regions were written with; see `masks.write_result`.
    """
    shown = _Shown(before, label_map, minimum_area, tolerance)
    regions = [region for region in masks.mask_regions(result, label_map) if label_map.class_of(region) is not None]
    rows: _Rows = []
    for region in regions:
        if region.get("origin") != _UNTOUCHED:
            rows += _drawn(region, shown)
    for index in range(len(label_map.classes)):
        painted = [region for region in regions if label_map.class_of(region) == index and _is_painted(region)]
        rows += _painted(painted, index, shown)
    rows += _deleted(regions, label_map, shown)
    return as_points(rows)


def annotation_effort(
    annotation: Mapping[str, Any],
    label_map: LabelMap,
    before: Mask,
    boxes: Sequence[Box],
    *,
    measure: Measure,
    minimum_area: int,
    tolerance: float,
) -> Points | None:
    """Return the effort of an annotation as points; None where it cannot be told.

    Args:
        annotation: Label Studio's, with `result` and `lead_time`.
        before: (H,W) uint8, the mask that was shown; unpainted all over where none was.
        boxes: of a label of parts: effort outside of them is left out. Empty: the label is of the whole image.
        measure: "clicks", or "seconds": the clicks rescaled so that they sum to the lead time.
        minimum_area, tolerance: as in `clicks`.
    """
    points = clicks(regions_of(annotation), label_map, before, minimum_area=minimum_area, tolerance=tolerance)
    height, width = before.shape
    if boxes and len(points):
        columns = points[:, 0].clip(0, width - 1).astype(np.intp)
        rows = points[:, 1].clip(0, height - 1).astype(np.intp)
        points = points[covered_pixels(boxes, (height, width))[rows, columns]]
    if measure == "clicks":
        return points
    seconds = lead_time_of(annotation)
    if not seconds:
        return None
    places = [(box.left, box.top, box.width, box.height) for box in boxes] or [(0, 0, width, height)]
    return spread(points, seconds, places)


class _Shown:
    """What the annotation started from, as the regions that were written of it."""

    def __init__(self, mask: Mask, label_map: LabelMap, minimum_area: int, tolerance: float) -> None:
        self.mask, self._minimum_area = mask, minimum_area
        writers = {int(index): label_map.writer_of(int(index)) for index in np.unique(mask) if index != IGNORE_INDEX}
        outlined = [index for index, one in writers.items() if one is not None and one.tag == "PolygonLabels"]
        painted = [index for index, one in writers.items() if one is not None and one.tag != "PolygonLabels"]
        self.painted = {f"class-{index}-0": index for index in painted if self.pixels(index).any()}
        lines = np.where(np.isin(mask, outlined), mask, IGNORE_INDEX).astype(np.uint8)
        written = (
            masks.write_result(lines, label_map, minimum_area=minimum_area, tolerance=tolerance) if outlined else []
        )
        self.outlined = {str(region["id"]): np.array(region["value"]["points"]) for region in written}
        self.vertices = {tuple(point) for points in self.outlined.values() for point in points.round(_ROUNDED).tolist()}

    def has(self, region: _Region) -> bool:
        """Whether a region was shown, in whatever form it is now."""
        return any(str(region.get("id")) in shown for shown in (self.painted, self.outlined))

    def pixels(self, index: int) -> NDArray[np.bool_]:
        """Return (H,W) bool, the pixels that were shown as a class: specks were not."""
        pixels: NDArray[np.bool_] = self.mask == index
        if self._minimum_area < 2 or not pixels.any():
            return pixels
        _, parts, statistics, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)
        kept = statistics[:, cv2.CC_STAT_AREA] >= self._minimum_area
        kept[0] = False
        large: NDArray[np.bool_] = kept[parts]
        return large


def _drawn(region: _Region, shown: _Shown) -> _Rows:
    """Clicks on the outline of a region: its vertices, or one for a shape that is dragged; one more for a new one."""
    height, width = shown.mask.shape
    added = not shown.has(region)
    if _is_painted(region):
        return _added(_pixels(region, shown.mask.shape)) if added else []
    try:
        points = shapes.vertices(region["value"])
    except MaskError:
        return []  # such a region is no part of the label
    if points is None:
        value = region["value"]
        try:
            x, y = (number_in(value, key, -1e7, 1e7) for key in ("x", "y"))
        except MaskError:
            return []
        points = np.array([[x + _half(value, "width"), y + _half(value, "height")]])
    there = shown.vertices if not added else set()
    new = [point for point in points.tolist() if tuple(np.round(point, _ROUNDED).tolist()) not in there]
    rows = [(x / 100 * width, y / 100 * height, 1.0) for x, y in new]
    return [*rows, rows[0]] if added and rows else rows


def _half(value: Mapping[str, Any], side: str) -> float:
    """Return half the side of a rectangle; nothing for ellipses, whose x and y are their centre already."""
    return number_in(value, side, -1e7, 1e7) / 2 if side in value else 0.0


def _painted(regions: Sequence[_Region], index: int, shown: _Shown) -> _Rows:
    """Clicks along the boundary of what was changed of a class with brush or bitmask."""
    if not any(region.get("origin") != _UNTOUCHED for region in regions):
        return []
    after = np.zeros(shown.mask.shape, dtype=np.bool_)
    for region in regions:
        after |= _pixels(region, shown.mask.shape)
    changed = after ^ shown.pixels(index)
    rows, columns = np.nonzero(boundary(changed))
    return [(x + 0.5, y + 0.5, 1 / PIXELS_PER_CLICK) for x, y in zip(columns.tolist(), rows.tolist(), strict=True)]


def boundary(pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (H,W) bool, the pixels with a neighbour (of four, or the image's border) that is not among them."""
    inner = np.pad(pixels, 1)
    inner = inner[1:-1, 1:-1] & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    outline: NDArray[np.bool_] = pixels & ~inner
    return outline


def _deleted(regions: Sequence[_Region], label_map: LabelMap, shown: _Shown) -> _Rows:
    """One click for each shown region that is gone; a class that was painted anew has its price already."""
    there = {str(region.get("id")) for region in regions}
    repainted = {label_map.class_of(region) for region in regions if _is_painted(region)}
    height, width = shown.mask.shape
    rows: _Rows = []
    for name, index in shown.painted.items():
        if name not in there and index not in repainted:
            rows += _added(shown.pixels(index))
    for name, points in shown.outlined.items():
        if name not in there:
            rows.append((points[0, 0] / 100 * width, points[0, 1] / 100 * height, 1.0))
    return rows


def _added(pixels: NDArray[np.bool_]) -> _Rows:
    """One click on a region, at a pixel in the middle of its list."""
    rows, columns = np.nonzero(pixels)
    middle = len(rows) // 2
    return [(float(columns[middle]) + 0.5, float(rows[middle]) + 0.5, 1.0)] if len(rows) else []


def _is_painted(region: _Region) -> bool:
    value = region.get("value")
    return isinstance(value, Mapping) and ("rle" in value or "imageDataURL" in value)


def _pixels(region: _Region, size: tuple[int, ...]) -> NDArray[np.bool_]:
    canvas = np.zeros(size, dtype=np.uint8)
    with suppress(MaskError):  # such a region is no part of the label
        shapes.paint(canvas, region["value"], 1)
    painted: NDArray[np.bool_] = canvas > 0
    return painted
