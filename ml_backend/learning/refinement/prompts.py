"""Clicks and boxes on an image, and what they say of its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ml_backend.errors import PromptError

Pixels = npt.NDArray[np.bool_]


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


def _inside(prompt: Prompt, height: int, width: int) -> Prompt:
    top, left = min(max(prompt.top, 0), height - 1), min(max(prompt.left, 0), width - 1)
    bottom, right = min(max(prompt.bottom, top + 1), height), min(max(prompt.right, left + 1), width)
    return replace(prompt, top=top, left=left, bottom=bottom, right=right)
