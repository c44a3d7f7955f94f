"""What a strategy keeps of each image, and the boxes inside an image that it may ask for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

from strategies import uncertainty
from strategies.batch import Batch
from strategies.checks import (
    OMITTED,
    Id,
    assign,
    check_count,
    check_finite,
    check_length,
    check_range,
    check_shape,
    image_sizes,
    unique_ids,
)

_Default = TypeVar("_Default", Tensor, None)


@dataclass(frozen=True, kw_only=True)
class Region:
    """A box in pixels of the original image, with the score that it was chosen by.

    Attributes:
        top, left: the upper left pixel, from 0.
        height, width: extent, from 1.
        score: finite; higher = label sooner.
        cost: the effort that is expected inside, in the unit of the cost that was observed; None where none was.

    Raises:
        ValueError: on creation, when a field is not as above.
    """

    top: int
    left: int
    height: int
    width: int
    score: float
    cost: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("top", 0), ("left", 0), ("height", 1), ("width", 1)):
            check_count(f"Region.{name}", getattr(self, name), least)
        if not math.isfinite(self.score):
            raise ValueError(f"Region.score: expected a finite number, received {self.score}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """What a strategy keeps of each image of a pool; small enough to hold a pool of a million.

    Attributes:
        ids: (N) distinct names of the images.
        information: (N) float64, finite; higher = label sooner.
        confidence: (N) float64 in [0, 1], mean over the valid pixels of the largest class probability; None
            when no probabilities were given.
        class_fraction: (N,C) floating, share of the valid pixels predicted as each class; None likewise.
        descriptors: (N,D) floating, finite, for strategies that compare images; or None.
        size: (N,2) int64, height and width of the original image in pixels.
        regions: one grid (2,rows,columns) per image, the means of information and of cost over windows of the
            image in rows from the top and columns from the left; the strategy knows window and step. Or None.
        excluded: per image the boxes already asked for; none when omitted.

    Raises:
        ValueError: on creation, when a field is not as above; it says what was expected and what was received.
    """

    ids: tuple[Id, ...]
    information: Tensor
    confidence: Tensor | None = None
    class_fraction: Tensor | None = None
    descriptors: Tensor | None = None
    size: Tensor
    regions: tuple[Tensor, ...] | None = None
    excluded: tuple[tuple[Region, ...], ...] = OMITTED

    def __post_init__(self) -> None:
        ids = unique_ids("Observation.ids", self.ids)
        information = torch.as_tensor(self.information, dtype=torch.float64)
        size = image_sizes("Observation.size", self.size, len(ids), information.device)
        excluded = tuple(map(tuple, self.excluded)) if self.excluded is not OMITTED else ((),) * len(ids)
        assign(self, ids=ids, information=information, size=size, excluded=excluded)
        check_shape("Observation.information", information, N=len(ids))
        check_finite("Observation.information", information)
        check_length("Observation.excluded", self.excluded, len(ids))
        self._check_prediction()
        self._check_detail()

    @classmethod
    def from_batch(cls, batch: Batch, *, information: Tensor) -> Observation:
        """Put the information (B) that a strategy has measured beside what every observation of a batch holds.

        Confidence and class shares describe the prediction of the whole image, labelled pixels included.
        """
        confidence = class_fraction = None
        if batch.probabilities is not None:
            confidence = 1 - uncertainty.image_mean(uncertainty.least_confidence(batch.probabilities), batch.valid)
            class_fraction = uncertainty.area_shares(batch.probabilities, batch.valid)
        return cls(
            ids=batch.ids,
            information=information,
            confidence=confidence,
            class_fraction=class_fraction,
            size=batch.size,
        )

    @classmethod
    def concatenate(cls, observations: Iterable[Observation]) -> Observation:
        """Join the observations of a pool's batches, in the order given, on the CPU; of none: an empty pool.

        Raises:
            ValueError: an id occurs twice, or only some of the observations have an optional field.
        """
        parts = [part for part in observations if part.ids]
        return cls(
            ids=tuple(chain.from_iterable(part.ids for part in parts)),
            information=_joined("information", [part.information for part in parts], torch.zeros(0)),
            confidence=_joined("confidence", [part.confidence for part in parts], None),
            class_fraction=_joined("class_fraction", [part.class_fraction for part in parts], None),
            descriptors=_joined("descriptors", [part.descriptors for part in parts], None),
            size=_joined("size", [part.size for part in parts], torch.zeros((0, 2), dtype=torch.int64)),
            regions=_chained("regions", [part.regions for part in parts]),
            excluded=tuple(chain.from_iterable(part.excluded for part in parts)),
        )

    def _check_prediction(self) -> None:
        count = len(self.ids)
        if self.confidence is not None:
            assign(self, confidence=torch.as_tensor(self.confidence, dtype=torch.float64))
            check_shape("Observation.confidence", self.confidence, N=count)
            check_range("Observation.confidence", self.confidence, 0, 1, tolerance=1e-6)
        if self.class_fraction is not None:
            assign(self, class_fraction=torch.as_tensor(self.class_fraction))
            check_shape("Observation.class_fraction", self.class_fraction, N=count, C=None)
            check_range("Observation.class_fraction", self.class_fraction, 0, 1, tolerance=1e-6)
            check_range("Observation.class_fraction, summed", self.class_fraction.sum(dim=1), 1, 1, tolerance=1e-3)

    def _check_detail(self) -> None:
        if self.descriptors is not None:
            assign(self, descriptors=torch.as_tensor(self.descriptors))
            check_shape("Observation.descriptors", self.descriptors, N=len(self.ids), D=None)
            check_finite("Observation.descriptors", self.descriptors)
        if self.regions is not None:
            assign(self, regions=tuple(self.regions))
            check_length("Observation.regions", self.regions, len(self.ids))
            for grid in self.regions:
                check_shape("Observation.regions", grid, sums=2, rows=None, columns=None)
                check_finite("Observation.regions", grid)


def _joined(name: str, values: Sequence[Tensor | None], empty: _Default) -> Tensor | _Default:
    """Join along the first axis, on the CPU; `empty` when there is nothing to join."""
    given = [value.cpu() for value in values if value is not None]
    _check_all_or_none(name, len(given), len(values))
    return torch.cat(given) if given else empty


def _chained(name: str, values: Sequence[tuple[Tensor, ...] | None]) -> tuple[Tensor, ...] | None:
    """Join the tuples of grids, on the CPU; None when there is nothing to join."""
    given = [value for value in values if value is not None]
    _check_all_or_none(name, len(given), len(values))
    return tuple(grid.cpu() for grid in chain.from_iterable(given)) if given else None


def _check_all_or_none(name: str, given: int, count: int) -> None:
    if given not in (0, count):
        raise ValueError(f"Observation.{name}: expected in all observations or in none, received {given} of {count}")
