"""What is labelled at a point of a simulation, and what it has taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ml_backend.annotations.boxes import Box, covered_pixels
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.learning.prediction.batches import resize_mask
from ml_backend.simulation.material import Picture
from ml_backend.simulation.polygons import window_clicks


@dataclass(frozen=True)
class Pick:
    """A label that is asked for: boxes of an image, all of it where there are none."""

    number: int
    boxes: tuple[Box, ...] = ()

    def to_json(self) -> list[Any]:
        """Return plain values; `from_json` is the way back."""
        return [self.number, [[box.left, box.top, box.width, box.height] for box in self.boxes]]

    @classmethod
    def from_json(cls, values: Sequence[Any]) -> Pick:
        """Rebuild a pick."""
        return cls(int(values[0]), tuple(Box(*box) for box in values[1]))


class Labels:
    """Labels collected from picks.

    Attributes:
        pixels: labelled pixels of the original masks.
        clicks: what they took.
    """

    def __init__(self, pictures: Mapping[int, Picture], background: int | None) -> None:
        self._pictures, self._background = pictures, background
        self._boxes: dict[int, tuple[Box, ...]] = {}
        self.pixels = 0
        self.clicks = 0

    def __len__(self) -> int:
        return len(self._boxes)

    def __contains__(self, number: int) -> bool:
        return number in self._boxes

    @property
    def numbers(self) -> list[int]:
        """Images of which anything is labelled, in order."""
        return sorted(self._boxes)

    def is_whole(self, number: int) -> bool:
        """Whether all of an image is labelled at once."""
        return self._boxes.get(number) == ()

    def boxes(self, number: int) -> tuple[Box, ...]:
        """What is labelled of an image: its boxes; none where all of it is, or nothing."""
        return self._boxes.get(number, ())

    def cost(self, pick: Pick) -> int:
        """Return the clicks that a pick takes."""
        picture = self._pictures[pick.number]
        if not pick.boxes:
            return picture.outlines.clicks
        return window_clicks(picture.outlines, picture.truth(), pick.boxes, background=self._background)

    def area(self, pick: Pick) -> int:
        """Return the pixels of a pick."""
        return sum(box.area for box in pick.boxes) if pick.boxes else self._pictures[pick.number].area

    def add(self, picks: Sequence[Pick]) -> None:
        """Label what is asked for.

        Raises:
            ValueError: it is labelled already, in whole.
        """
        for pick in picks:
            if self.is_whole(pick.number) or (pick.number in self and not pick.boxes):
                raise ValueError(f"image {pick.number} is labelled already")
            self.pixels += self.area(pick)
            self.clicks += self.cost(pick)
            self._boxes[pick.number] = (*self.boxes(pick.number), *pick.boxes)

    def known(self, number: int) -> Tensor:
        """Return (h,w) bool, which pixels of the network's image are labelled."""
        picture = self._pictures[number]
        size = (picture.mask.shape[0], picture.mask.shape[1])
        if number not in self:
            return torch.zeros(size, dtype=torch.bool)
        if self.is_whole(number):
            return torch.ones(size, dtype=torch.bool)
        return resize_mask(covered_pixels(self.boxes(number), picture.size), size)

    def mask(self, number: int) -> Tensor:
        """Return the labelled part (h,w) uint8 of a mask, 255 elsewhere."""
        mask = self._pictures[number].mask
        return torch.where(self.known(number).to(mask.device), mask, torch.full_like(mask, IGNORE_INDEX))

    def effort(self, number: int) -> Tensor:
        """Return where in the labelled part the clicks were made: (h,w) float32."""
        picture = self._pictures[number]
        size = (picture.mask.shape[0], picture.mask.shape[1])
        counts = picture.outlines.effort(*picture.size, size)
        return torch.from_numpy(np.where(self.known(number).numpy(), counts, 0))
