"""The labels at a point of a simulation, and the pixels and clicks that they took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ml_backend.annotations.boxes import Box, covered_pixels
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.learning.prediction.batches import resize_mask
from ml_backend.simulation.material import Picture
from ml_backend.simulation.polygons import Points, clicks_at, window_clicks
from ml_backend.simulation.tariff import USUAL, Tariff
from strategies import Prices

Pixel = tuple[int, int]
"""Row and column in the original image."""


@dataclass(frozen=True)
class Pick:
    """A label to be made: boxes of an image, or single pixels, or all of it where there is neither."""

    number: int
    boxes: tuple[Box, ...] = ()
    points: tuple[Pixel, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether all of the image is to be labelled."""
        return not self.boxes and not self.points

    def to_json(self) -> list[Any]:
        """Return values that JSON can hold; `from_json` reads them."""
        values: list[Any] = [self.number, [[box.left, box.top, box.width, box.height] for box in self.boxes]]
        return [*values, [list(point) for point in self.points]] if self.points else values

    @classmethod
    def from_json(cls, values: Sequence[Any]) -> Pick:
        """Return the pick that `to_json` wrote."""
        number, boxes, *rest = values
        points = tuple((row, column) for pixels in rest for row, column in pixels)
        return cls(int(number), tuple(Box(*box) for box in boxes), points)


class Labels:
    """Labels collected from picks.

    An image may be labelled in part, several times, and at last as a whole: the mask then holds what was known of it.

    Args:
        tariff: what is charged besides the clicks of outlines.

    Attributes:
        pictures: number -> picture that can be labelled.
        pixels: number of labelled pixels of the original masks.
        drawn: clicks that the masks and parts of masks take that were labelled, drawn from nothing.
        mended: what they take where the masks that were predicted are mended.
        points: number of answers to points.
        opened: how often an image was opened.
    """

    def __init__(self, pictures: Mapping[int, Picture], background: int | None, tariff: Tariff = USUAL) -> None:
        self.pictures = pictures
        self._background, self._tariff = background, tariff
        self._picks: dict[int, Pick] = {}
        self._whole = set[int]()
        self._answers: dict[int, dict[Pixel, int]] = {}
        self.pixels = 0
        self.drawn = self.mended = self.points = self.opened = 0
        self._costs: dict[str, list[int]] = {"points": [], "mask": []}

    def __len__(self) -> int:
        return len(self._picks)

    def __contains__(self, number: int) -> bool:
        return number in self._picks

    @property
    def numbers(self) -> list[int]:
        """Numbers of the images of which anything is labelled, ascending."""
        return sorted(self._picks)

    @property
    def clicks(self) -> int:
        """Clicks that drawing and answering took."""
        return int(self._tariff.clicks(masks=self.drawn, points=self.points, opened=self.opened))

    @property
    def prices(self) -> Prices:
        """Mean clicks of the points of an image, and of a mask, opening included."""
        points, mask = (fmean(costs) if costs else None for costs in self._costs.values())
        return Prices(points=points, mask=mask)

    def is_whole(self, number: int) -> bool:
        """Whether an image was labelled as a whole."""
        return number in self._whole

    def boxes(self, number: int) -> tuple[Box, ...]:
        """Return the boxes of an image that were labelled by themselves."""
        return self._picks[number].boxes if number in self else ()

    def answers(self, number: int) -> Mapping[Pixel, int]:
        """Return the pixels of an image that were asked for one by one, with their classes; 255: there is none."""
        return self._answers.get(number, {})

    def asked(self, number: int) -> tuple[Box, ...]:
        """Return all that was asked for of an image that is not labelled as a whole; a point is a box of one pixel."""
        return (*self.boxes(number), *(Box(column, row, 1, 1) for row, column in self.answers(number)))

    def cost(self, pick: Pick, *, is_open: bool = False) -> int:
        """Return the clicks that a pick takes.

        Args:
            is_open: the image is open already.
        """
        opened = 0 if is_open else 1
        return int(self._tariff.clicks(masks=self.drawing(pick), points=len(pick.points), opened=opened))

    def drawing(self, pick: Pick) -> int:
        """Return the clicks that the masks of a pick take, drawn from nothing."""
        picture = self.pictures[pick.number]
        return picture.outlines.clicks if pick.is_whole else sum(map(len, self._made(picture, pick.boxes)))

    def area(self, pick: Pick) -> int:
        """Return the pixels of a pick."""
        if pick.is_whole:
            return self.pictures[pick.number].area
        return sum(box.area for box in pick.boxes) + len(pick.points)

    def add(self, picks: Sequence[Pick], mending: Mapping[int, int] | None = None) -> None:
        """Label picks.

        Args:
            mending: image -> clicks that mending its predicted mask takes, of images that are labelled as a whole;
                those of others are drawn from nothing.

        Raises:
            ValueError: an image is labelled already as a whole, or a point was answered before.
        """
        for pick in picks:
            before = self._picks.get(pick.number)
            if self.is_whole(pick.number):
                raise ValueError(f"image {pick.number} is labelled already")
            self._answer(pick)
            self._count(pick, before, mending or {})
            if pick.is_whole:
                self._whole.add(pick.number)
            if before is not None:
                pick = Pick(pick.number, (*before.boxes, *pick.boxes), (*before.points, *pick.points))
            self._picks[pick.number] = pick

    def _count(self, pick: Pick, before: Pick | None, mending: Mapping[int, int]) -> None:
        """Charge a pick of an image of which a part may be labelled."""
        known = self.area(before) if pick.is_whole and before is not None else 0
        drawn = self.drawing(pick)
        self.pixels += self.area(pick) - known
        self.drawn += drawn
        self.mended += mending.get(pick.number, drawn) if pick.is_whole else drawn
        self.points += len(pick.points)
        self.opened += 1
        if pick.is_whole or not pick.boxes:
            self._costs["mask" if pick.is_whole else "points"].append(self.cost(pick))

    def _answer(self, pick: Pick) -> None:
        """Look up the classes of a pick's points."""
        if not pick.points:
            return
        answers = self._answers.setdefault(pick.number, {})
        truth = self.pictures[pick.number].truth()
        for point in pick.points:
            if point in answers:
                raise ValueError(f"pixel {point} of image {pick.number} is answered already")
            answers[point] = int(truth[point])

    def known(self, number: int) -> Tensor:
        """Return which pixels of an image are labelled, at the network's size: (h,w) bool."""
        picture = self.pictures[number]
        size = (picture.mask.shape[0], picture.mask.shape[1])
        if number not in self:
            return torch.zeros(size, dtype=torch.bool)
        if self.is_whole(number):
            return torch.ones(size, dtype=torch.bool)
        known = resize_mask(covered_pixels(self.boxes(number), picture.size), size)
        known[self._places(number, size)] = True
        return known

    def mask(self, number: int) -> Tensor:
        """Return the labelled part (h,w) uint8 of a mask, 255 elsewhere."""
        mask = self.pictures[number].mask
        labelled = torch.where(self.known(number).to(mask.device), mask, torch.full_like(mask, IGNORE_INDEX))
        answers = torch.tensor([*self.answers(number).values()], dtype=mask.dtype, device=mask.device)
        labelled[self._places(number, (mask.shape[0], mask.shape[1]))] = answers  # of the very pixel
        return labelled

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
        rows, columns = self._places(number, size)
        np.add.at(counts, (rows.numpy(), columns.numpy()), self._tariff.point)
        return torch.from_numpy(counts)

    def _places(self, number: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the rows and columns of the answered pixels of an image, at the network's size."""
        return places_of(self.answers(number), self.pictures[number].size, size)

    def _made(self, picture: Picture, boxes: Sequence[Box]) -> list[Points]:
        """Return where the clicks in each of some boxes are made, which are labelled each by itself."""
        mask = picture.truth()
        return [window_clicks(picture.outlines, mask, box, background=self._background) for box in boxes]


def places_of(pixels: Iterable[Pixel], of: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return in which rows and columns of an image of `size` the pixels of one of (height, width) are.

    >>> places_of([(0, 0), (5, 9)], (6, 10), (3, 2))
    (tensor([0, 2]), tensor([0, 1]))
    """
    at = torch.tensor([*pixels], dtype=torch.int64).reshape(-1, 2)
    rows, columns = ((2 * at + 1) * torch.tensor(size) // (2 * torch.tensor(of))).unbind(dim=1)
    return rows, columns
