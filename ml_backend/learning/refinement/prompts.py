"""Clicks and boxes on an image, and what they say of its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from ml_backend.errors import PromptError

Pixels = npt.NDArray[np.bool_]

_GRID: Final = 12
"""Clicks that stand for a mask along the longer side of an image."""


@dataclass(frozen=True)
class Prompt:
    """A click or a box of a person. A click is a box of one pixel.

    Attributes:
        klass: the class that it speaks of.
        is_positive: whether the class is there; False: it is not.
        top, left, bottom, right: rows and columns of the image in pixels, half-open.
    """

    klass: int
    is_positive: bool
    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def click(cls, klass: int, row: int, column: int, *, is_positive: bool = True) -> Prompt:
        """Return a click on a pixel."""
        return cls(klass, is_positive, row, column, row + 1, column + 1)

    @property
    def is_point(self) -> bool:
        """Whether it is a click."""
        return (self.bottom - self.top, self.right - self.left) == (1, 1)

    @property
    def centre(self) -> tuple[int, int]:
        """Row and column of its middle."""
        return (self.top + self.bottom - 1) // 2, (self.left + self.right - 1) // 2

    def holds(self, click: Prompt) -> bool:
        """Whether the middle of a click is in it."""
        row, column = click.centre
        return self.top <= row < self.bottom and self.left <= column < self.right

    @property
    def area(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def about(target: int, prompts: Sequence[Prompt], height: int, width: int) -> list[Prompt]:
    """Return what prompts say of a class, in their order, inside the image.

    What is another class is not this one; that it is not another class says nothing. A prompt outside the image moves
    to the pixels next to it, and a box without pixels is a click: what a hand near the border means.

    Raises:
        PromptError: a prompt is a box whose end lies before its start.
    """
    for prompt in prompts:
        if prompt.bottom < prompt.top or prompt.right < prompt.left:
            raise PromptError(
                f"A box goes from row {prompt.top} to {prompt.bottom} and from column {prompt.left} to "
                f"{prompt.right}: give the upper left corner first."
            )
    said = [prompt for prompt in prompts if prompt.klass == target or prompt.is_positive]
    return [
        _inside(replace(prompt, klass=target, is_positive=prompt.is_positive and prompt.klass == target), height, width)
        for prompt in said
    ]


def settled(prompts: Sequence[Prompt], height: int, width: int) -> tuple[Pixels, Pixels]:
    """Return the pixels (H,W) that must be of the class, and those that must not: at each pixel the last prompt counts.

    Positive boxes say nothing of single pixels: an object rarely fills its box.
    """
    inside, outside = np.zeros((height, width), bool), np.zeros((height, width), bool)
    for prompt in prompts:
        if prompt.is_positive and not prompt.is_point:
            continue
        inside[prompt.area], outside[prompt.area] = prompt.is_positive, not prompt.is_positive
    return inside, outside


def bounds(prompts: Sequence[Prompt], height: int, width: int) -> Pixels:
    """Return where the mask may be (H,W): in positive boxes; anywhere without one, or with a click outside of them."""
    allowed = np.zeros((height, width), bool)
    boxes = [prompt for prompt in prompts if prompt.is_positive and not prompt.is_point]
    for box in boxes:
        allowed[box.area] = True
    clicks = [prompt for prompt in prompts if prompt.is_positive and prompt.is_point]
    if not boxes or not all(allowed[click.centre] for click in clicks):
        allowed[:] = True
    return allowed


def standing_for(drawn: Pixels, target: int, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return clicks that stand for what is drawn of a class (H,W), away from what a person says.

    Without them, a click that says where the class is not would take away all that is near it, and all that is like it.
    They are on a grid; small parts that lie between its lines get one where a person says that they are too large.
    """
    numbers, by_number = numbered(drawn), dict[int, list[Prompt]]()
    for prompt in prompts:
        by_number.setdefault(int(numbers[prompt.centre]), []).append(prompt)
    places = [
        elsewhere(numbers == number, clicks)
        for number, clicks in by_number.items()
        if number and not any(click.is_positive for click in clicks)
    ]
    found = [Prompt.click(target, *place) for place in places if place is not None]
    step = max(drawn.shape) // _GRID + 1
    grid = np.argwhere(drawn[step // 2 :: step, step // 2 :: step]) * step + step // 2
    return found + [
        Prompt.click(target, int(row), int(column))
        for row, column in grid
        if all(_distance(int(row), int(column), prompt) > step for prompt in prompts)
    ]


def numbered(drawn: Pixels) -> npt.NDArray[np.int32]:
    """Return the number of the connected part, of eight neighbours, that each pixel (H,W) is in; 0: none."""
    _, numbers = cv2.connectedComponents(drawn.astype(np.uint8), connectivity=8)
    return np.asarray(numbers, np.int32)


def elsewhere(drawn: Pixels, clicks: Sequence[Prompt]) -> tuple[int, int] | None:
    """Return the pixel of a part (H,W) that is deepest in it and away from clicks that say it is not there.

    It stands for the rest of the part. None where nothing of half the part's depth is left: a click into its middle
    says that none of it is there.
    """
    rows, columns = (np.flatnonzero(drawn.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    padded = np.pad(drawn[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)
    for click in clicks:
        row, column = click.centre
        padded[row - top + 1, column - left + 1] = 0
    rest = cv2.distanceTransform(padded, cv2.DIST_L2, 5)
    if rest.max() <= depth.max() / 2 + 1:
        return None
    row, column = divmod(int(rest.argmax()), rest.shape[1])
    return row + top - 1, column + left - 1


def _distance(row: int, column: int, prompt: Prompt) -> int:
    """Return how far a pixel is from a prompt, along rows or columns."""
    down = max(prompt.top - row, row - prompt.bottom + 1, 0)
    across = max(prompt.left - column, column - prompt.right + 1, 0)
    return max(down, across)


def _inside(prompt: Prompt, height: int, width: int) -> Prompt:
    top, left = min(max(prompt.top, 0), height - 1), min(max(prompt.left, 0), width - 1)
    bottom, right = min(max(prompt.bottom, top + 1), height), min(max(prompt.right, left + 1), width)
    return replace(prompt, top=top, left=left, bottom=bottom, right=right)
