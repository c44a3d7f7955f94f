"""Boxes in pixels of the original image, and their text in the database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

WHOLE_IMAGE: Final = ""
"""Text of the boxes where the whole image is meant."""


@dataclass(frozen=True, order=True)
class Box:
    """A rectangle of whole pixels: `left` and `top` are at least 0, `width` and `height` at least 1.

    Attributes:
        is_point: whether it is a point, a single pixel whose class is asked for or was answered.
    """

    left: int
    top: int
    width: int
    height: int
    is_point: bool = field(default=False, compare=False, repr=False)

    @classmethod
    def point(cls, row: int, column: int) -> Box:
        """Return a point at a pixel."""
        return cls(column, row, 1, 1, is_point=True)

    @property
    def area(self) -> int:
        """Number of pixels inside."""
        return self.width * self.height

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of its pixels in an (H,W) array."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def corners_in_picture(self, size: tuple[int, int], picture_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the first and last pixels of the box in a picture that shows the whole image at another size.

        Args:
            size: (height, width) of the image.
            picture_size: (height, width) of the picture.

        Returns:
            Left, top, right and bottom column or row, each inside the picture.
        """
        down, across = picture_size[0] / size[0], picture_size[1] / size[1]
        left, top = int(self.left * across), int(self.top * down)
        right, bottom = round((self.left + self.width) * across) - 1, round((self.top + self.height) * down) - 1
        return left, top, min(max(right, left), picture_size[1] - 1), min(max(bottom, top), picture_size[0] - 1)


@dataclass(frozen=True)
class Query:
    """The boxes of an image that an annotator is asked to label.

    Attributes:
        boxes: the most informative first; none: the whole image, although of other images parts are asked for.
        cost: expected effort for them, in clicks or seconds (see NEXTMASK_COST_MEASURE); None when it is unknown.
    """

    boxes: tuple[Box, ...]
    cost: float | None = None

    @property
    def asks_for_points(self) -> bool:
        """Whether the class of single pixels is asked for, and nothing else."""
        return are_points(self.boxes)


def are_points(boxes: Sequence[Box]) -> bool:
    """Whether boxes are points, and there are any."""
    return bool(boxes) and all(box.is_point for box in boxes)


def boxes_to_text(boxes: Iterable[Box]) -> str:
    """Return boxes as text for the database; points without their size.

    >>> boxes_to_text([Box(1, 2, 3, 4), Box.point(5, 6)])
    '[[1, 2, 3, 4], [6, 5]]'
    """
    return json.dumps([[box.left, box.top, *([] if box.is_point else [box.width, box.height])] for box in boxes])


def boxes_from_text(text: str) -> tuple[Box, ...]:
    """Return the boxes of a text of `boxes_to_text`; none for WHOLE_IMAGE.

    >>> boxes_from_text("[[1, 2, 3, 4]]")
    (Box(left=1, top=2, width=3, height=4),)
    """
    return tuple(map(_box, json.loads(text))) if text else ()


def _box(numbers: Sequence[int]) -> Box:
    left, top, *size = numbers
    return Box(left, top, size[0], size[1]) if size else Box.point(top, left)


def covered_pixels(boxes: Iterable[Box], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return (H,W) bool: True at the pixels that a box covers, in an image of `size` (height, width)."""
    covered = np.zeros(size, dtype=np.bool_)
    for box in boxes:
        covered[box.slices] = True
    return covered
