"""The labels at a point of a simulation, and the pixels and clicks that they took."""

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
    """A label to be made: boxes of an image, or all of it where there are no boxes."""

    number: int
    boxes: tuple[Box, ...] = ()

    def to_json(self) -> list[Any]:
        """Return values that JSON can hold; `from_json` reads them."""
        return [self.number, [[box.left, box.top, box.width, box.height] for box in self.boxes]]

    @classmethod
    def from_json(cls, values: Sequence[Any]) -> Pick:
        """Return the pick that `to_json` wrote."""
        return cls(int(values[0]), tuple(Box(*box) for box in values[1]))


class Labels:
    """Labels collected from picks.

    Attributes:
        pictures: number -> picture that can be labelled.
        pixels: number of labelled pixels of the original masks.
        clicks: number of clicks that drawing them took.
    """

    def __init__(self, pictures: Mapping[int, Picture], background: int | None) -> None:
        self.pictures = pictures
        self._background = background
        self._boxes: dict[int, tuple[Box, ...]] = {}
        self.pixels = 0
        self.clicks = 0

    def __len__(self) -> int:
        return len(self._boxes)

    def __contains__(self, number: int) -> bool:
        return number in self._boxes

    @property
    def numbers(self) -> list[int]:
        """Numbers of the images of which anything is labelled, ascending."""
        return sorted(self._boxes)

    def is_whole(self, number: int) -> bool:
        """Whether an image was labelled as a whole."""
        return self._boxes.get(number) == ()

    def boxes(self, number: int) -> tuple[Box, ...]:
        """Return the labelled boxes of an image; none where it is labelled as a whole, or not at all."""
        return self._boxes.get(number, ())

    def cost(self, pick: Pick) -> int:
        """Return the clicks that a pick takes."""
        picture = self.pictures[pick.number]
        if not pick.boxes:
            return picture.outlines.clicks
        return window_clicks(picture.outlines, picture.truth(), pick.boxes, background=self._background)

    def area(self, pick: Pick) -> int:
        """Return the pixels of a pick."""
        return sum(box.area for box in pick.boxes) if pick.boxes else self.pictures[pick.number].area

    def add(self, picks: Sequence[Pick]) -> None:
        """Label picks.

        Raises:
            ValueError: an image is labelled already as a whole, or a whole image is picked that has labelled boxes.
        """
        for pick in picks:
            if self.is_whole(pick.number) or (pick.number in self and not pick.boxes):
                raise ValueError(f"image {pick.number} is labelled already")
            self.pixels += self.area(pick)
            self.clicks += self.cost(pick)
            self._boxes[pick.number] = (*self.boxes(pick.number), *pick.boxes)

    def known(self, number: int) -> Tensor:
        """Return which pixels of an image are labelled, at the network's size: (h,w) bool."""
        picture = self.pictures[number]
        size = (picture.mask.shape[0], picture.mask.shape[1])
        if number not in self:
            return torch.zeros(size, dtype=torch.bool)
        if self.is_whole(number):
            return torch.ones(size, dtype=torch.bool)
        return resize_mask(covered_pixels(self.boxes(number), picture.size), size)

    def mask(self, number: int) -> Tensor:
        """Return the labelled part (h,w) uint8 of a mask, 255 elsewhere."""
        mask = self.pictures[number].mask
        return torch.where(self.known(number).to(mask.device), mask, torch.full_like(mask, IGNORE_INDEX))

    def effort(self, number: int) -> Tensor:
        """Return the number of clicks at each pixel of the labelled part, at the network's size: (h,w) float32."""
        picture = self.pictures[number]
        size = (picture.mask.shape[0], picture.mask.shape[1])
        counts = picture.outlines.effort(*picture.size, size)
        return torch.from_numpy(np.where(self.known(number).numpy(), counts, 0))
