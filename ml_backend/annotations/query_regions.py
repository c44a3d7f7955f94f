"""Query rectangles <-> boxes: what an annotator is asked to label, and what was labelled.

Query rectangles are regions of the query control. Coordinates are percent of the image. A pixel belongs to a rectangle
when its centre does, as with all other shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ml_backend.annotations.boxes import Box
from ml_backend.annotations.fields import number_in
from ml_backend.annotations.label_map import LabelMap
from ml_backend.annotations.sizes import check_size
from ml_backend.errors import MaskError, shown

TYPES: Final = ("rectanglelabels", "rectangle")
"""Types of query rectangles in results: with a label, and without."""
_ROUNDING = 1e-6
"""Fraction of a pixel by which a coordinate may be off after the editor rounded its percentage."""
_LISTED_PROBLEMS = 5  # the others are counted
_LARGEST = 1e7
"""Largest coordinate, in percent: nobody can draw farther outside."""

_Region = Mapping[str, Any]


@dataclass(frozen=True)
class Rectangles:
    """The query rectangles of a result.

    Attributes:
        boxes: clipped to the image, in the order of the result, without duplicates.
        problems: why other rectangles cannot be used, a sentence each.
    """

    boxes: tuple[Box, ...] = ()
    problems: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether the result has query rectangles, usable or not."""
        return bool(self.boxes or self.problems)


def is_query(region: object, label_map: LabelMap) -> bool:
    """Whether a region of a result is a rectangle of the query control."""
    if label_map.query_control is None or not isinstance(region, Mapping):
        return False
    return region.get("from_name") == label_map.query_control and region.get("type") in TYPES


def read_rectangles(result: Sequence[object], label_map: LabelMap, size: tuple[int, int]) -> Rectangles:
    """Return the query rectangles of a result.

    A rotated rectangle counts as the largest upright rectangle inside it, since what is outside may be unchecked.

    Args:
        result: of an annotation or a prediction.
        size: (height, width) of the image in pixels.
    """
    boxes: dict[Box, None] = {}
    problems: list[str] = []
    for region in result:
        if isinstance(region, Mapping) and is_query(region, label_map):
            try:
                boxes.setdefault(pixel_box(region, size))
            except MaskError as error:
                problems.append(f"rectangle {shown(region.get('id'))}: {error}")
    rest = len(problems) - _LISTED_PROBLEMS
    if rest > 0:
        problems[_LISTED_PROBLEMS:] = [f"and {rest} more rectangles that cannot be used"]
    return Rectangles(tuple(boxes), tuple(problems))


def labelled_boxes(
    result: Sequence[object], label_map: LabelMap, size: tuple[int, int], *, was_asked: Callable[[], bool]
) -> Rectangles:
    """Return the rectangles inside which an annotation is a label; without boxes, the whole image is labelled.

    Args:
        result: of the annotation.
        size: (height, width) of the image in pixels.
        was_asked: returns whether the annotator was shown rectangles; only called when the result has none.

    Raises:
        MaskError: it is unknown which pixels were checked: predicted pixels must not become labels unseen.
    """
    rectangles = read_rectangles(result, label_map, size)
    if rectangles.boxes:
        return rectangles
    remedy = f"Draw a rectangle with {label_map.query_control!r} around what is labelled (around all of the image, too)"
    if rectangles.problems:
        raise MaskError(f"none of its rectangles can be used ({'; '.join(rectangles.problems)}). {remedy}.")
    if was_asked():
        raise MaskError(
            "it was to be labelled inside rectangles, and returns none: what was checked is not known."
            f" {remedy}, or delete the annotation and label the task again"
        )
    return rectangles


def write_rectangles(boxes: Iterable[Box], label_map: LabelMap, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Return boxes as regions that annotators see and cannot change; `read_rectangles` returns the same boxes.

    Args:
        boxes: inside the image.
        label_map: of a configuration with a query control.
        size: (height, width) of the image in pixels.
    """
    height, width = size
    kind = "rectanglelabels" if label_map.query_label else "rectangle"
    labels = {kind: [label_map.query_label]} if label_map.query_label else {}
    return [
        {
            "id": f"query-{number}",
            "from_name": label_map.query_control,
            "to_name": label_map.image_name,
            "type": kind,
            "readonly": True,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "x": box.left / width * 100,
                "y": box.top / height * 100,
                "width": box.width / width * 100,
                "height": box.height / height * 100,
                "rotation": 0,
                **labels,
            },
        }
        for number, box in enumerate(boxes)
    ]


def overlap(boxes: Iterable[Box], others: Iterable[Box]) -> bool:
    """Whether any of the boxes shares a pixel with any of the others."""
    others = list(others)
    return any(
        a.left < b.left + b.width
        and b.left < a.left + a.width
        and a.top < b.top + b.height
        and b.top < a.top + a.height
        for a in boxes
        for b in others
    )


def pixel_box(region: _Region, size: tuple[int, int]) -> Box:
    """Return the pixels of a rectangle, clipped to the image; of a rotated one, the largest upright box inside it.

    Args:
        size: (height, width) of the image in pixels.

    Raises:
        MaskError: its coordinates are no numbers, it covers no pixel, or it was drawn in an image on its side.
    """
    value = region.get("value")
    if not isinstance(value, Mapping):
        raise MaskError("it has no value")
    check_size(region, size)
    height, width = size
    x, y = number_in(value, "x", -_LARGEST, _LARGEST), number_in(value, "y", -_LARGEST, _LARGEST)
    across, down = number_in(value, "width", 0, _LARGEST), number_in(value, "height", 0, _LARGEST)
    degrees = 0.0 if value.get("rotation") is None else number_in(value, "rotation", -3600, 3600)
    left, top, right, bottom = _upright(
        x / 100 * width, y / 100 * height, across / 100 * width, down / 100 * height, degrees
    )
    (left, right), (top, bottom) = _pixels(left, right, width), _pixels(top, bottom, height)
    if left >= right or top >= bottom:
        raise MaskError("it covers no pixel of the image")
    return Box(left, top, right - left, bottom - top)


def _pixels(first: float, last: float, length: int) -> tuple[int, int]:
    """Return the first pixel whose centre is inside, and the pixel after the last."""
    start, stop = (math.ceil(min(max(end, 0.0), length) - 0.5 - _ROUNDING) for end in (first, last))
    return start, stop


def _upright(x: float, y: float, width: float, height: float, degrees: float) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of the largest upright rectangle inside a rectangle rotated about its corner."""
    if degrees % 360 == 0:
        return x, y, x + width, y + height
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    centre_x = x + (width * cosine - height * sine) / 2
    centre_y = y + (width * sine + height * cosine) / 2
    inner_width, inner_height = _inscribed(width, height, abs(sine), abs(cosine))
    return (
        centre_x - inner_width / 2,
        centre_y - inner_height / 2,
        centre_x + inner_width / 2,
        centre_y + inner_height / 2,
    )


def _inscribed(width: float, height: float, sine: float, cosine: float) -> tuple[float, float]:
    """Return width and height of the largest upright rectangle inside a rectangle rotated about its centre."""
    longer, shorter = max(width, height), min(width, height)
    if shorter <= 2 * sine * cosine * longer or abs(sine - cosine) < 1e-9:
        # Two of its corners touch the longer sides, in the middle between the shorter ones.
        half = shorter / 2
        along, across = (half / sine, half / cosine) if width >= height else (half / cosine, half / sine)
        return along, across
    double = cosine * cosine - sine * sine
    return (width * cosine - height * sine) / double, (height * cosine - width * sine) / double
