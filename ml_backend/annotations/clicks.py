"""Estimates the clicks of an annotation, and their places, by comparing its result with the mask that was shown.

    polygons, vectors     1 click for each new vertex
    brush, bitmask        1 click for each 10 pixels of the boundary of the changed pixels
    rectangles, ellipses  1 click
    points                1 click for each answer, that to a guess which was kept as well: it was looked at
    any region            1 more click when it was added; 1 click when it was deleted

An unchanged predicted mask costs nothing. Label Studio's open-source edition logs neither clicks nor history, so the
result is all there is to estimate from.
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
from ml_backend.annotations.key_points import read_points
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap
from ml_backend.annotations.masks import Mask
from ml_backend.annotations.regions import mask_regions
from ml_backend.errors import MaskError

PIXELS_PER_CLICK: Final = 10.0
"""Pixels of a changed boundary that count as a click."""
_DECIMALS = 3
"""Decimals of the percentages by which vertices are compared: a tenth of a pixel in an image of 10,000."""
_UNTOUCHED = "prediction"
"""The `origin` of regions that are as they were predicted."""

Measure = Literal["clicks", "seconds"]
_Region = Mapping[str, Any]
_Rows = list[tuple[float, float, float]]


def clicks(
    result: Sequence[object], label_map: LabelMap, before: Mask, *, minimum_area: int = 0, tolerance: float = 1.0
) -> Points:
    """Return the estimated clicks of an annotator as points (N,3) float32: x, y in pixels, and number of clicks.

    Args:
        result: of the annotation.
        before: (H,W) uint8, the mask that was shown; unpainted everywhere when no mask was shown.
        minimum_area, tolerance: arguments of `masks.write_result` that the shown regions were written with.

    Raises:
        MaskError: `before` is no mask of the label map.
    """
    shown = _Shown(before, label_map, minimum_area, tolerance)
    regions = [region for region in mask_regions(result, label_map) if label_map.class_of(region) is not None]
    rows: _Rows = []
    for region in regions:
        if region.get("origin") != _UNTOUCHED:
            rows += _drawn(region, shown)
    for index in range(len(label_map.classes)):
        painted = [region for region in regions if label_map.class_of(region) == index and _is_painted(region)]
        rows += _painted(painted, index, shown)
    rows += _deleted(regions, label_map, shown)
    answers, _ = read_points(result, label_map, (before.shape[0], before.shape[1]))
    rows += [(answer.column + 0.5, answer.row + 0.5, 1.0) for answer in answers]
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
    """Return the effort of an annotation as points (N,3) float32, in the unit of `measure`.

    Args:
        annotation: Label Studio's, with `result` and `lead_time`.
        before: (H,W) uint8, the mask that was shown; unpainted everywhere when no mask was shown.
        boxes: what was labelled; effort outside is left out. Empty: the whole image was labelled.
        measure: "clicks", or "seconds": clicks rescaled so that they sum to the lead time.
        minimum_area, tolerance: see `clicks`.

    Returns:
        None when seconds are measured and the lead time is unknown or 0.
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
    """The mask that an annotation started from, and the regions that were written for it.

    Attributes:
        mask: (H,W) uint8.
        painted: id of a brush or bitmask region -> class index.
        outlined: id of a polygon -> its points (N,2), in percent.
        vertices: all points of the polygons, rounded.
    """

    def __init__(self, mask: Mask, label_map: LabelMap, minimum_area: int, tolerance: float) -> None:
        self.mask, self._minimum_area = mask, minimum_area
        writers = {int(index): label_map.writer_of(int(index)) for index in np.unique(mask) if index != IGNORE_INDEX}
        tags = {index: control.tag for index, control in writers.items() if control is not None}
        outlined = [index for index, tag in tags.items() if tag == "PolygonLabels"]
        painted = [index for index, tag in tags.items() if tag != "PolygonLabels"]
        self.painted = {f"class-{index}-0": index for index in painted if self.pixels(index).any()}
        lines = np.where(np.isin(mask, outlined), mask, IGNORE_INDEX).astype(np.uint8)
        written = (
            masks.write_result(lines, label_map, minimum_area=minimum_area, tolerance=tolerance) if outlined else []
        )
        self.outlined = {str(region["id"]): np.array(region["value"]["points"]) for region in written}
        self.vertices = {
            tuple(point) for points in self.outlined.values() for point in points.round(_DECIMALS).tolist()
        }

    def has(self, region: _Region) -> bool:
        """Whether a region was shown, changed since or not."""
        return any(str(region.get("id")) in shown for shown in (self.painted, self.outlined))

    def pixels(self, index: int) -> NDArray[np.bool_]:
        """Return (H,W) bool, the pixels that were shown as a class: without components under the minimum area."""
        pixels: NDArray[np.bool_] = self.mask == index
        if self._minimum_area < 2 or not pixels.any():
            return pixels
        _, parts, statistics, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)
        kept = statistics[:, cv2.CC_STAT_AREA] >= self._minimum_area
        kept[0] = False
        large: NDArray[np.bool_] = kept[parts]
        return large


def _drawn(region: _Region, shown: _Shown) -> _Rows:
    """Clicks on the outline of a region: 1 for each new vertex or for a dragged shape, and 1 more for a new region."""
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
    known = shown.vertices if not added else set()
    new = [point for point in points.tolist() if tuple(np.round(point, _DECIMALS).tolist()) not in known]
    rows = [(x / 100 * width, y / 100 * height, 1.0) for x, y in new]
    return [*rows, rows[0]] if added and rows else rows


def _half(value: Mapping[str, Any], side: str) -> float:
    """Return half the side of a rectangle; 0 for ellipses, whose x and y are their centre."""
    return number_in(value, side, -1e7, 1e7) / 2 if side in value else 0.0


def _painted(regions: Sequence[_Region], index: int, shown: _Shown) -> _Rows:
    """Clicks along the boundary of the changed pixels of a class that is painted with brush or bitmask."""
    if not any(region.get("origin") != _UNTOUCHED for region in regions):
        return []
    after = np.zeros(shown.mask.shape, dtype=np.bool_)
    for region in regions:
        after |= _pixels(region, shown.mask.shape)
    changed = after ^ shown.pixels(index)
    rows, columns = np.nonzero(boundary(changed))
    return [(x + 0.5, y + 0.5, 1 / PIXELS_PER_CLICK) for x, y in zip(columns.tolist(), rows.tolist(), strict=True)]


def boundary(pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (H,W) bool, the pixels of a set (H,W) bool at its boundary or the image's, by four neighbours."""
    inner = np.pad(pixels, 1)
    inner = inner[1:-1, 1:-1] & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    outline: NDArray[np.bool_] = pixels & ~inner
    return outline


def _deleted(regions: Sequence[_Region], label_map: LabelMap, shown: _Shown) -> _Rows:
    """1 click for each shown region that is gone, unless its class was painted anew: that is counted already."""
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
    """1 click on a region, at the middle one of its pixels in reading order."""
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
