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
from ml_backend.simulation.polygons import Points, clicks_at, window_clicks


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
        return sum(map(len, self._made(picture, pick.boxes))) if pick.boxes else picture.outlines.clicks

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
        """Return the number of clicks at each pixel of the labelled part, at the network's size: (h,w) float32.

        They are the clicks that are charged. One at the border of a box is put to its nearest pixel that is known.
        """
        picture = self.pictures[number]
        size = (picture.mask.shape[0], picture.mask.shape[1])
        counts = np.zeros(size, np.float32)
        if self.is_whole(number):
            np.add.at(counts, clicks_at(picture.outlines.made(), picture.size, size), 1)
        boxes = self.boxes(number)
        for box, made in zip(boxes, self._made(picture, boxes) if boxes else (), strict=True):
            seen = resize_mask(covered_pixels([box], picture.size), size).numpy().nonzero()
            if len(seen[0]):
                places = zip(clicks_at(made, picture.size, size), seen, strict=True)
                np.add.at(counts, tuple(at.clip(known.min(), known.max()) for at, known in places), 1)
        return torch.from_numpy(counts)

    def _made(self, picture: Picture, boxes: Sequence[Box]) -> list[Points]:
        """Return where the clicks in each of some boxes are made, which are labelled each by itself."""
        mask = picture.truth()
        return [window_clicks(picture.outlines, mask, box, background=self._background) for box in boxes]
