"""Label Studio results <-> masks of class indices, (H,W) uint8.

Reading paints regions over each other in the order of the result, as the editor shows them; a point paints its pixel.
`image_rotation` is not applied: it tells how the image was turned on the annotator's screen, while the editor stores
masks and coordinates of the upright image (observed in Label Studio 1.23.2 with rectangles, brush and bitmask).

Writing gives a region per class for brush and bitmask controls, and a polygon per connected component (of eight
neighbours) for polygon controls. Polygons have no holes: the outline is cut open, see `outlines.trace`.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ml_backend.annotations import brush, outlines, shapes
from ml_backend.annotations.fields import labels_of
from ml_backend.annotations.key_points import Answer, Answers, pixel_of
from ml_backend.annotations.label_map import IGNORE_INDEX, Control, LabelMap
from ml_backend.annotations.regions import Region, sort_out
from ml_backend.annotations.sizes import MAXIMUM_PIXELS, check_size, checked_size, common_size
from ml_backend.errors import MaskError, MaskWithoutArea

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Reading:
    """A mask read from a result.

    Attributes:
        mask: (H,W) uint8, class indices and IGNORE_INDEX.
        regions: number of painted regions, points left out.
        vertices: number of points of the polygons and vectors among them.
        problems: why regions were not painted that ought to be, a sentence each.
        others: what else is drawn, and is no mask.
        answers: what points say of their pixels, where nothing was painted over it.
    """

    mask: Mask
    regions: int
    vertices: int
    problems: tuple[str, ...]
    others: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()


def read_result(
    result: Sequence[Mapping[str, Any]],
    label_map: LabelMap,
    *,
    size: tuple[int, int] | None = None,
    unpainted: int | None = None,
) -> Reading:
    """Paint the regions of an annotation or a prediction; `regions` says which of them are masks.

    Pixels outside all regions get `label_map.unpainted_index`, and IGNORE_INDEX where points are all that was drawn:
    who answers points says nothing about other pixels. What cannot be understood is listed in `problems`, and its
    pixels become IGNORE_INDEX: they are something, and not known to be background. Where even the place of a mask is
    unknown, that is so of all pixels outside the painted regions.

    Args:
        result: the `result` of an annotation or prediction.
        label_map: the project's labels.
        size: (height, width) of the image in pixels; None: as the regions' original_height and original_width say.
        unpainted: value of pixels outside all regions, where it is known to be another.

    Raises:
        MaskError: the size is unknown, sizes disagree, or the image is larger than MAXIMUM_PIXELS.
    """
    found = sort_out(result, label_map)
    height, width = common_size(region.entry for region in found.drawn) if size is None else checked_size(*size)
    value = label_map.unpainted_index if unpainted is None else unpainted
    painting = _Painting(height, width, value)
    painting.paint(found.drawn)
    only_points = unpainted is None and not painting.regions and any(region.is_point for region in found.drawn)
    if painting.has_lost_region or only_points:
        painting = _Painting(height, width, IGNORE_INDEX)
        painting.paint(found.drawn)
    if painting.regions and not (painting.mask != value).any():
        painting.check_coverage(found.drawn)
    return Reading(
        painting.mask,
        painting.regions,
        painting.vertices,
        (*painting.problems, *painting.answers.problems),
        found.others,
        tuple(
            answer for answer in painting.answers.taken() if painting.mask[answer.row, answer.column] == answer.index
        ),
    )


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
    regions: list[dict[str, Any]] = []
    for index in _values_of(mask):
        control = label_map.writer_of(index)
        if control is None:
            continue
        written = write_class(mask == index, index, control, label_map, minimum_area=minimum_area, tolerance=tolerance)
        regions += [{"id": f"class-{index}-{number}", **region} for number, region in enumerate(written)]
    return regions


def write_class(
    pixels: NDArray[np.bool_],
    index: int,
    control: Control,
    label_map: LabelMap,
    *,
    minimum_area: int,
    tolerance: float,
) -> Iterator[dict[str, Any]]:
    """Yield the regions of a class, without their ids.

    Args:
        pixels: (H,W) of the class.
        control: that they are written with: brush, bitmask or polygon.
        minimum_area, tolerance: as of `write_result`.
    """
    (height, width), tag = pixels.shape, control.tag.lower()
    for value in _values(pixels, control, minimum_area, tolerance):
        yield {
            "from_name": control.name,
            "to_name": control.to_name,
            "type": tag,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {**value, tag: [label_map.spelling(control, index)]},
        }


def as_written(mask: Mask, label_map: LabelMap, *, minimum_area: int, tolerance: float = 1.0) -> Mask:
    """Return what `read_result` makes of the regions that `write_result` writes for a mask: what annotators are shown.

    Args:
        mask, minimum_area, tolerance: as of `write_result`.
    """
    _check(mask, len(label_map.classes))
    written = np.full_like(mask, label_map.unpainted_index)
    for index in _values_of(mask):
        control = label_map.writer_of(index)
        if control is None:
            continue
        if control.tag == "PolygonLabels":
            for value in _values(mask == index, control, minimum_area, tolerance):
                with suppress(MaskError):  # one too long to be read
                    shapes.paint(written, value, index)
        else:
            written[_without_specks(mask == index, minimum_area)] = index
    return written


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


class _Painting:
    """A mask, and what became of the regions that were painted into it.

    Args:
        unpainted: value of its pixels at first.

    Attributes:
        regions, vertices, problems: as in a Reading.
        answers: those of points.
        has_lost_region: whether there is a region of which nobody knows where it lies.
    """

    def __init__(self, height: int, width: int, unpainted: int) -> None:
        self._size = height, width
        self.mask = np.full(self._size, unpainted, np.uint8)
        self.regions, self.vertices, self.has_lost_region = 0, 0, False
        self.answers = Answers(self._size)
        self.problems: list[str] = []

    def paint(self, regions: Sequence[Region]) -> None:
        """Paint regions over each other; what cannot be used becomes IGNORE_INDEX where it lies."""
        for region in regions:
            problem = region.problem
            try:
                if region.is_point:
                    self._answer(region)
                else:
                    self._paint(region)
            except MaskError as error:
                problem = problem or str(error)
                self.has_lost_region |= not region.is_point and not isinstance(error, MaskWithoutArea)
            if problem:
                self.problems.append(region.described(problem))

    def _paint(self, region: Region) -> None:
        check_size(region.entry, self.mask.shape)
        index = IGNORE_INDEX if region.problem or region.index is None else region.index
        vertices = shapes.paint(self.mask, region.value, index)
        used = not region.problem
        self.regions, self.vertices = self.regions + used, self.vertices + vertices * used

    def _answer(self, point: Region) -> None:
        if point.problem:
            if point.index is None and labels_of(point.entry):  # one that was not answered says nothing
                self.mask[pixel_of(point, self._size)] = IGNORE_INDEX
        elif (answer := self.answers.add(point)) is not None:
            self.mask[answer.row, answer.column] = answer.index

    def check_coverage(self, regions: Sequence[Region]) -> None:
        """Take regions for a problem if none of them covers a pixel; asked where nothing but background is left."""
        used = [region for region in regions if not region.problem and not region.is_point]
        if any(_covers(region, self.mask.shape) for region in used):
            return
        self.regions = self.vertices = 0
        self.problems += [region.described("it covers no pixel of the image") for region in used]


def _covers(region: Region, size: tuple[int, ...]) -> bool:
    canvas = np.zeros(size, np.uint8)
    with suppress(MaskError):
        shapes.paint(canvas, region.value, 1)
    return bool(canvas.any())


# Writing


def _values(
    pixels: NDArray[np.bool_], control: Control, minimum_area: int, tolerance: float
) -> Iterator[dict[str, Any]]:
    """Yield the values, without labels, of the regions of a class."""
    if not pixels.any():
        return
    if control.tag == "PolygonLabels":
        yield from _polygons(pixels, minimum_area, tolerance)
        return
    painted = _without_specks(pixels, minimum_area)
    if painted.any():
        yield _brush(painted) if control.tag == "BrushLabels" else _bitmask(painted)


def _without_specks(pixels: NDArray[np.bool_], minimum_area: int) -> NDArray[np.bool_]:
    """Return pixels (H,W), of which there is one, without the connected components of fewer than so many."""
    box = _box(pixels)
    inside = pixels[box]
    _, components = cv2.connectedComponents(inside.astype(np.uint8), connectivity=8)
    own = components[inside]
    large = np.bincount(own) >= minimum_area
    if large[own].all():
        return pixels
    painted = np.zeros_like(pixels)
    painted[box][inside] = large[own]
    return painted


def _polygons(pixels: NDArray[np.bool_], minimum_area: int, tolerance: float) -> Iterator[dict[str, Any]]:
    box = _box(pixels)
    _, components, statistics, _ = cv2.connectedComponentsWithStats(pixels[box].astype(np.uint8), connectivity=8)
    origin = (box[1].start, box[0].start)
    for component in range(1, len(statistics)):
        left, top, width, height, area = statistics[component].tolist()
        if area < minimum_area:
            continue
        region = (components[top : top + height, left : left + width] == component).astype(np.uint8)
        points = outlines.trace(region, tolerance=tolerance, minimum_hole=minimum_area)
        percent = np.add(points, np.add(origin, (left, top))) / pixels.shape[::-1] * 100
        yield {"points": percent.round(6).tolist(), "closed": True}


def _box(pixels: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns outside of which a set (H,W) has no pixel: only there components are looked for."""
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(pixels).view(np.uint8))
    return slice(top, top + height), slice(left, left + width)


def _brush(painted: NDArray[np.bool_]) -> dict[str, Any]:
    return {"format": "rle", "rle": list(brush.encode(painted.view(np.uint8) * np.uint8(255)))}


def _bitmask(painted: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a PNG of one bit a pixel: a palette of black, transparent and opaque. RGBA takes 13 times as long."""
    image, png = Image.fromarray(painted.view(np.uint8), "P"), io.BytesIO()
    image.putpalette(bytes(2 * 3))
    packed = {"compress_level": 6, "compress_type": zlib.Z_RLE}
    image.save(png, "PNG", bits=1, transparency=bytes([0, 255]), **packed)
    return {"imageDataURL": shapes.PNG_PREFIX + base64.b64encode(png.getvalue()).decode()}


def _png(pixels: Mask) -> bytes:
    # Masks are long runs of equal values: this strategy packs them as tightly as the best level in a third of the time.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    _, data = cv2.imencode(".png", pixels, options)
    return data.tobytes()


def touched(mask: NDArray[np.bool_], by: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the connected parts of a mask (H,W), of eight neighbours, that hold one of some pixels."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    kept = np.zeros(count, np.bool_)
    kept[parts[by & mask]] = True
    of_those: NDArray[np.bool_] = kept[parts]
    return of_those
