"""Boxes inside an image, in pixels of the original image, and how the store keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

WHOLE_IMAGE: Final = ""
"""What the store keeps where all of an image is meant."""


@dataclass(frozen=True, order=True)
class Box:
    """A rectangle of whole pixels: `left` and `top` from 0, `width` and `height` from 1."""

    left: int
    top: int
    width: int
    height: int

    @property
    def area(self) -> int:
        """Pixels inside."""
        return self.width * self.height

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of its pixels in an (H,W) array."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Query:
    """What is asked for of one image.

    Attributes:
        boxes: the best first.
        cost: effort that is expected for them, in the unit of the cost measure; None where nothing predicts it.
    """

    boxes: tuple[Box, ...]
    cost: float | None = None


def boxes_to_text(boxes: Iterable[Box]) -> str:
    """Return boxes as the store keeps them.

    >>> boxes_to_text([Box(1, 2, 3, 4)])
    '[[1, 2, 3, 4]]'
    """
    return json.dumps([[box.left, box.top, box.width, box.height] for box in boxes])


def boxes_from_text(text: str) -> tuple[Box, ...]:
    """Read boxes back; WHOLE_IMAGE gives none.

    >>> boxes_from_text("[[1, 2, 3, 4]]")
    (Box(left=1, top=2, width=3, height=4),)
    """
    return tuple(Box(*numbers) for numbers in json.loads(text)) if text else ()


def covered_pixels(boxes: Iterable[Box], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return (H,W) bool: True at the pixels that a box covers, in an image of `size` (height, width)."""
    covered = np.zeros(size, dtype=np.bool_)
    for box in boxes:
        covered[box.slices] = True
    return covered
