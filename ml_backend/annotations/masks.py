"""Label Studio results <-> masks of class indices, (H,W) uint8.

Reading paints regions over each other in the order of the result, as the editor shows them. `image_rotation` is not
applied: it tells how the image was turned on the annotator's screen, while the editor stores masks and coordinates of
the upright image (observed in Label Studio 1.23.2 with rectangles, brush and bitmask).

Writing gives a region per class for brush and bitmask controls, and a polygon per connected component (of eight
neighbours) for polygon controls. Polygons have no holes: the outline is cut open, see `outlines.trace`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ml_backend.annotations import brush, outlines, shapes
from ml_backend.annotations.fields import labels_of, number_in
from ml_backend.annotations.label_map import IGNORE_INDEX, Control, LabelMap
from ml_backend.errors import MaskError, first_few, shown

MAXIMUM_PIXELS: Final = 100_000_000
"""Pixels of the largest mask that is read."""

_READ_TYPES = frozenset(
    ("brushlabels", "bitmasklabels", "polygonlabels", "ellipselabels", "rectanglelabels", "vectorlabels", "labels")
)

Mask = NDArray[np.uint8]
_Value = Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """A mask read from a result.

    Attributes:
        mask: (H,W) uint8, class indices and IGNORE_INDEX.
        regions: number of painted regions.
        vertices: number of points of the polygons and vectors among them.
        problems: why regions were skipped, a sentence each.
    """

    mask: Mask
    regions: int
    vertices: int
    problems: tuple[str, ...]


def read_result(
    result: Sequence[Mapping[str, Any]], label_map: LabelMap, *, size: tuple[int, int] | None = None
) -> Reading:
    """Paint the regions of an annotation or a prediction.

    Other results (choices, relations, key points, query rectangles, regions of other images) are left out. A region
    that cannot be read is skipped and listed in `problems`. Pixels outside all regions get
    `label_map.unpainted_index`.

    Args:
        result: the `result` of an annotation or prediction.
        label_map: the project's labels.
        size: (height, width) of the image in pixels; None: as the regions' original_height and original_width say.

    Raises:
        MaskError: the size is unknown, sizes disagree, or the image is larger than MAXIMUM_PIXELS.
    """
    regions = mask_regions(result, label_map)
    height, width = _size(regions, size)
    mask = np.full((height, width), label_map.unpainted_index, np.uint8)
    painted = vertices = 0
    problems: list[str] = []
    for region in regions:
        drawn, problem = _painted(mask, region, label_map)
        if problem is None:
            painted, vertices = painted + 1, vertices + drawn
        else:
            problems.append(problem)
    return Reading(mask, painted, vertices, tuple(problems))


def mask_regions(result: Sequence[object], label_map: LabelMap) -> list[_Value]:
    """Return the regions of a result that are masks of the project's image by their type and names, in order."""
    return [region for region in result if isinstance(region, Mapping) and _is_region(region, label_map)]


def write_result(mask: Mask, label_map: LabelMap, *, minimum_area: int, tolerance: float = 1.0) -> list[dict[str, Any]]:
    """Return the regions of a mask as a prediction's `result`. The same mask always gives the same regions.

    Args:
        mask: (H,W) uint8, class indices or IGNORE_INDEX. Unpainted and ignored pixels, and classes that no brush,
            bitmask or polygon control has, are not written.
        label_map: the project's labels.
        minimum_area: smaller connected components, and smaller holes in polygons, are left out; in pixels.
        tolerance: how far simplified polygons may be off, in pixels; 0 keeps every corner of a pixel.

    Raises:
        MaskError: the mask has another shape or type, or a value that is no class.
    """
    _check(mask, len(label_map.classes))
    height, width = mask.shape
    regions: list[dict[str, Any]] = []
    for index in _values_of(mask):
        control = label_map.writer_of(index)
        if control is None:
            continue
        for number, value in enumerate(_values(mask == index, control, minimum_area, tolerance)):
            tag = control.tag.lower()
            regions.append(
                {
                    "id": f"class-{index}-{number}",
                    "from_name": control.name,
                    "to_name": control.to_name,
                    "type": tag,
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "value": {**value, tag: [label_map.spelling(control, index)]},
                }
            )
    return regions


def agreement(a: Mask, b: Mask, classes: int) -> float | None:
    """Return the mean IoU of two masks, such as pre-annotation and label, over the classes that occur in them.

    Pixels that are IGNORE_INDEX in either mask are left out.

    Args:
        a, b: (H,W) uint8, class indices below `classes` and IGNORE_INDEX.
        classes: number of classes.

    Returns:
        In [0, 1]; None when no pixel remains.

    Raises:
        MaskError: shapes differ, or a value is no class.
    """
    if a.shape != b.shape:
        raise MaskError(f"masks of shapes {a.shape} and {b.shape} cannot be compared")
    _check(a, classes)
    _check(b, classes)
    valid = (a != IGNORE_INDEX) & (b != IGNORE_INDEX)
    counts = confusion(a[valid], b[valid], classes)
    shared = counts.diagonal()
    union = counts.sum(axis=0) + counts.sum(axis=1) - shared
    present = union > 0
    return float((shared[present] / union[present]).mean()) if present.any() else None


def confusion(truth: Mask, predicted: Mask, classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix (C,C) int64 of two masks of the same shape; rows are the truth.

    Args:
        truth, predicted: uint8, all values below `classes`.
    """
    pairs = truth.ravel().astype(np.intp) * classes + predicted.ravel()
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def translated(mask: Mask, classes: Sequence[str], label_map: LabelMap) -> Mask:
    """Return a mask whose indices are those of the label map, by class name.

    Args:
        mask: (H,W) uint8, indices of `classes` and IGNORE_INDEX.
        classes: index -> name; classes that the label map does not have become unpainted.
    """
    if tuple(classes) == label_map.classes:
        return mask
    table = np.full(256, label_map.unpainted_index, dtype=np.uint8)
    table[IGNORE_INDEX] = IGNORE_INDEX
    for index, name in enumerate(classes):
        target = label_map.index_of(name)
        table[index] = label_map.unpainted_index if target is None else target
    return table[mask]


def png_bytes(mask: Mask) -> bytes:
    """Return a mask (H,W) uint8 as a greyscale PNG of 8 bits, without loss.

    Raises:
        MaskError: the array has another shape or type, or no pixel.
    """
    _check_array(mask)
    return _png(mask)


def mask_from_png(data: bytes) -> Mask:
    """Return the mask (H,W) uint8 of a PNG of 8 bits: its grey values, or the indices of its palette.

    Raises:
        MaskError: it is no PNG, damaged, larger than MAXIMUM_PIXELS, or has several channels.
    """
    image = shapes.open_png(data)
    if image.size[0] * image.size[1] > MAXIMUM_PIXELS:
        raise MaskError(f"a mask of {image.size[0]} x {image.size[1]} pixels is over {MAXIMUM_PIXELS}")
    if image.mode not in ("L", "P"):
        raise MaskError(f"a mask needs one channel of 8 bits with class indices, this PNG is {image.mode}")
    return np.array(shapes.load_png(image), dtype=np.uint8)


def _check_array(mask: Mask) -> None:
    if mask.ndim != 2 or mask.dtype != np.uint8 or not mask.size:
        raise MaskError(f"a mask is (H, W) uint8, not {mask.shape} {mask.dtype}")


def _check(mask: Mask, classes: int) -> None:
    _check_array(mask)
    unknown = [value for value in _values_of(mask) if value >= classes and value != IGNORE_INDEX]
    if unknown:
        raise MaskError(f"a mask of {classes} classes has the values {unknown}")


def _values_of(mask: Mask) -> list[int]:
    """Return the values of a mask, ascending. NumPy would turn each pixel into 8 bytes to count them."""
    counts = cv2.calcHist([np.ascontiguousarray(mask)], [0], None, [256], [0, 256])
    values: list[int] = np.flatnonzero(counts).tolist()
    return values


# Reading


def _is_region(region: _Value, label_map: LabelMap) -> bool:
    """Whether type and names of a result say that it is a mask of the project's image."""
    if str(region.get("type")) not in _READ_TYPES:
        return False
    queried = label_map.query_control is not None and region.get("from_name") == label_map.query_control
    return region.get("to_name") == label_map.image_name and not queried


def _size(regions: Sequence[_Value], size: tuple[int, int] | None) -> tuple[int, int]:
    sizes = {} if size is None else {size: "the image"}
    for region in regions:
        if region.get("original_height") is not None and region.get("original_width") is not None:
            height, width = (number_in(region, f"original_{side}", 1, MAXIMUM_PIXELS) for side in ("height", "width"))
            sizes.setdefault((int(height), int(width)), f"region {shown(region.get('id'))}")
    if not sizes:
        raise MaskError("nothing says the size of the image: no region has original_width and original_height")
    described = ", ".join(first_few([f"{width} x {height} ({source})" for (height, width), source in sizes.items()]))
    if len(sizes) > 1:
        raise MaskError(f"sizes disagree: {described}; was the image replaced after it was labelled?")
    (height, width) = next(iter(sizes))
    if height * width > MAXIMUM_PIXELS:
        raise MaskError(f"an image of {described} pixels is over {MAXIMUM_PIXELS}")
    return height, width


def _painted(mask: Mask, region: _Value, label_map: LabelMap) -> tuple[int, str | None]:
    """Paint a region; return the number of its vertices, and what was wrong with it (None: nothing)."""
    try:
        return _paint(mask, region, label_map), None
    except MaskError as error:
        return 0, f"region {shown(region.get('id'))} of {shown(region.get('from_name'))}: {error}"


def _paint(mask: Mask, region: _Value, label_map: LabelMap) -> int:
    """Paint a region; return the number of its vertices."""
    value = region.get("value")
    if not isinstance(value, Mapping):
        raise MaskError("it has no value")
    if not any(region.get("from_name") == control.name for control in label_map.controls):
        raise MaskError("the labelling configuration has no such control that is read as masks")
    index = label_map.class_of(region)
    if index is None:
        labels = labels_of(region)
        raise MaskError(
            f"its label {shown(labels[0])} is not in the labelling configuration" if labels else "it has no label"
        )
    return shapes.paint(mask, value, index)


# Writing


def _values(
    pixels: NDArray[np.bool_], control: Control, minimum_area: int, tolerance: float
) -> Iterator[dict[str, Any]]:
    """Yield the values, without labels, of the regions of a class."""
    _, components, statistics, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)
    kept = statistics[:, cv2.CC_STAT_AREA] >= minimum_area
    kept[0] = False  # the component outside all others
    if control.tag == "PolygonLabels":
        for component in np.flatnonzero(kept).tolist():
            yield _polygon(components, component, statistics[component], minimum_area, tolerance)
    elif kept.any():
        painted = kept[components].astype(np.uint8) * 255
        yield _brush(painted) if control.tag == "BrushLabels" else _bitmask(painted)


def _polygon(
    components: NDArray[Any], component: int, statistics: NDArray[Any], minimum_area: int, tolerance: float
) -> dict[str, Any]:
    left, top, width, height = statistics[: cv2.CC_STAT_AREA].tolist()
    region = (components[top : top + height, left : left + width] == component).astype(np.uint8)
    points = outlines.trace(region, tolerance=tolerance, minimum_hole=minimum_area)
    percent = np.add(points, (left, top)) / components.shape[::-1] * 100
    return {"points": percent.round(6).tolist(), "closed": True}


def _brush(painted: Mask) -> dict[str, Any]:
    return {"format": "rle", "rle": list(brush.encode(painted))}


def _bitmask(painted: Mask) -> dict[str, Any]:
    black = np.zeros((*painted.shape, 4), np.uint8)
    black[..., 3] = painted
    return {"imageDataURL": shapes.PNG_PREFIX + base64.b64encode(_png(black)).decode()}


def _png(pixels: Mask) -> bytes:
    # Masks are long runs of equal values: this strategy packs them as tightly as the best level in a third of the time.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    _, data = cv2.imencode(".png", pixels, options)
    return data.tobytes()
