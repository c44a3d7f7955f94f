"""Points: ask for the class of a few pixels of each image, where the network wavers and where rare classes are.

Paper: Shin, Xie, Albanie, "All you need are a few pixels: semantic segmentation with PixelPick", 2021, arXiv
2104.06394: a handful of pixels per image and round, by the margin between the two likeliest classes, spread over the
image, answered without drawing anything.
Equation: a pixel is drawn in proportion to u^p · r, with u = 1 - (p1 - p2), p1 and p2 its largest class probabilities,
and r = (f_min / f_c)^q, f_c the share of the pool's pixels that is predicted as the pixel's class c, and f_min the
smallest of these shares. The points of an image promise the sum of their u^p · r.

Deviations:
- The paper draws with equal chance from the most uncertain pixels of an image; here the chance falls with u.
- Rarity: the paper treats all classes alike.
- Points are at least a distance apart, from each other and from what a person has labelled, and are drawn at several
  scales of the image in turn (`strategies.point_draw`): a long boundary does not take them all.
- The paper asks every image of the pool in every round. Here images are ordered by what their points promise, divided
  by 1 + a / k where a questions were asked of the image before: its points resemble those.
- Before there is a network the points of an image lie where the descriptors of an encoder differ most (`Batch.places`):
  each is drawn in proportion to the squared distance to those before, as k-means++ draws its centres (Arthur and
  Vassilvitskii, 2007).
- Of a large image a candidate from each of about 512 squares stands for the others in it (`strategies.candidates`).

Two classes meet in the third of four pixels; of two points, the first is there:

    >>> import torch
    >>> from strategies.base import Batch, Budget
    >>> sky = torch.tensor([1.0, 1.0, 0.5, 0.0])
    >>> batch = Batch(
    ...     ids=("a",), images=torch.zeros(1, 3, 1, 4), probabilities=torch.stack([sky, 1 - sky]).view(1, 1, 2, 1, 4)
    ... )
    >>> points = Points(count=2, apart=1)
    >>> ranking = points.rank(points.observe(batch), None, budget=Budget(images=1), generator=torch.Generator())
    >>> first, second = ranking.points["a"]
    >>> first.column, round(first.score, 3), second.score  # u = 1, r = (0.25 / 0.75)^0.5; elsewhere u = 0
    (2, 0.577, 0.0)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies import candidates, selection, training, uncertainty
from strategies.base import Batch, Lesson, Observation, Ranking, Round
from strategies.candidates import Candidates, Mask, Pixels, Size, Values
from strategies.checks import check_count, check_number
from strategies.descriptors import unit_rows
from strategies.frames import extents
from strategies.noise import exponential
from strategies.observation import Point, Region
from strategies.pixel_uncertainty import PixelUncertainty
from strategies.point_draw import distances, draw, points_of
from strategies.segmentation import predicted_classes

_RAREST = 1e-6
"""Least share of a class: what is rarer is as rare."""


class Points(PixelUncertainty):
    """Asks for points by margin and rarity, or before there is a network by what an encoder makes of their places.

    Args:
        count: k, points of an image, from 1.
        power: p in [0, 20]; the higher, the more of the points are where the network wavers most; 0: anywhere.
        rarity: q in [0, 1]; 0: all classes alike.
        apart: r, least distance of two points, from 1, in pixels of what the network sees.
        scales: in how many scales of the image points are drawn, from 1 to 8; 1: from the whole image alone.

    Raises:
        ValueError: an option is out of its range.
    """

    name = "points"
    asks_for_points = True
    needs = frozenset({"probabilities"})

    def __init__(
        self, *, count: int = 10, power: float = 2.0, rarity: float = 0.5, apart: float = 4.0, scales: int = 3
    ) -> None:
        check_count("count", count, 1)
        check_number("power", power, 0, 20)
        check_number("rarity", rarity, 0, 1)
        check_number("apart", apart, 1)
        check_count("scales", scales, 1)
        check_number("scales", scales, 1, 8)
        self._count, self._power, self._rarity = count, float(power), float(rarity)
        self._draw = partial(draw, count=count, apart=float(apart), scales=scales)
        self._apart = float(apart)
        self._salt = 0

    def _learn(self, lesson: Lesson) -> None:
        """Draw what the chance in `observe` depends on, besides the image's id."""
        self._salt = training.draw_seed(lesson.generator)

    def measure(self, probabilities: Tensor) -> Tensor:
        """Return u^p of each pixel."""
        return uncertainty.margin(probabilities).double().pow(self._power).float()

    @torch.no_grad()
    def observe(self, batch: Batch) -> Observation:
        """Keep candidates of each image; its information is the mean of u^p over the pixels that are not labelled.

        Without probabilities, but with `Batch.places`, the candidates are the points of a first round.
        """
        if batch.probabilities is None and batch.places is not None:
            return self._observe_places(batch, batch.places)
        seen = super().observe(batch)
        probabilities = self.checked(batch)
        promise, margins = self.measure(probabilities), 1 - uncertainty.margin(probabilities)  # (B,H,W)
        classes = predicted_classes(probabilities)  # (B,H,W)
        kept = []
        for position, (height, width) in enumerate(extents(batch.valid)):
            inside = (position, slice(height), slice(width))
            own, free = _array(promise[inside].double()), self._free(batch, inside)
            at, weight = candidates.of_cells(own, free, candidates.chance_of(self._salt, batch.ids[position]))
            rows, columns = at.T
            kept.append(
                Candidates(
                    pixels=candidates.in_original(at, (height, width), _size(batch, position)),
                    places=at,
                    weight=weight,
                    promise=own[rows, columns],
                    classes=_array(classes[inside])[rows, columns],
                    margin=_array(margins[inside].double().clamp(0, 1))[rows, columns],
                )
            )
        return replace(seen, candidates=tuple(kept))

    def _ranking(self, round: Round) -> Ranking:
        """Draw the points of each image, image by image in the order of their ids."""
        pool = round.unlabelled
        if pool.candidates is None:
            raise ValueError("Observation.candidates: expected what points observes, received None")
        rarities = None if pool.class_fraction is None else class_rarity(pool.class_fraction, self._rarity)
        points: dict[int, tuple[Point, ...]] = {}
        promise = np.full(len(pool.ids), -1.0)  # an image that has nothing left to ask comes after all others
        race = partial(exponential, generator=round.generator)
        for position in selection.by_id(pool.ids).tolist():
            own, asked = pool.candidates[position], pool.excluded[position]
            rarity = np.ones(len(own)) if rarities is None else rarities[own.classes]
            height, width = pool.size[position].tolist()
            drawn = self._draw(own, partial(_always, own.weight * rarity), race, size=(height, width), asked=asked)
            if drawn:
                points[position] = points_of(own, drawn, own.promise * rarity)
                promise[position] = promised(points[position], asked, self._count)
        whole = Ranking.in_order(pool.ids, selection.by_information(pool.ids, promise))
        return replace(whole, points={pool.ids[position]: drawn for position, drawn in points.items()})

    def _observe_places(self, batch: Batch, places: Tensor) -> Observation:
        """Draw the points of each image by how far its places are from each other; their mean distance informs."""
        kept, information = [], []
        for position, (height, width) in enumerate(extents(batch.valid)):
            free = self._free(batch, (position, slice(height), slice(width)))
            size = _size(batch, position)
            chance = candidates.chance_of(self._salt, batch.ids[position])
            at, _ = candidates.of_cells(np.ones(free.shape), free, chance)
            rows, columns = at.T // batch.place_size
            descriptors = unit_rows(_array(places[position].double())[:, rows, columns].T)  # (n,D)
            spread = self._spread(at, candidates.in_original(at, (height, width), size), descriptors, size, chance)
            kept.append(spread)
            information.append(float(spread.promise.mean()) if len(spread) else 0.0)
        seen = Observation.from_batch(batch, information=torch.tensor(information, dtype=torch.float64))
        return replace(seen, candidates=tuple(kept))

    def _spread(
        self, at: Pixels, pixels: Pixels, descriptors: Values, size: Size, chance: np.random.Generator
    ) -> Candidates:
        def kept(chosen: list[int], promise: Values) -> Candidates:
            count = len(chosen)
            return Candidates(
                pixels=pixels[chosen],
                places=at[chosen],
                weight=promise,
                promise=promise,
                classes=np.full(count, -1, np.int64),
                margin=np.zeros(count),
            )

        every = kept(list(range(len(at))), np.ones(len(at)))
        drawn = self._draw(every, partial(distances, descriptors), lambda n: chance.exponential(size=n), size=size)
        promise = [distances(descriptors, drawn[:place])[one] for place, one in enumerate(drawn)]
        if drawn:  # the first has none before it: it promises as much as the image differs from it
            promise[0] = distances(descriptors, drawn[:1]).mean()
        return kept(drawn, np.array(promise, np.float64))

    def _free(self, batch: Batch, inside: tuple[int, slice, slice]) -> Mask:
        valid, labelled = _array(batch.valid[inside]), _array(batch.labelled[inside])
        return candidates.open_to_questions(valid, labelled, self._apart)


def class_rarity(fractions: Tensor, exponent: float) -> Values:
    """Return r of every class (C) in (0, 1] from the predicted shares of the images of a pool (N,C).

    >>> class_rarity(torch.tensor([[0.75, 0.25], [0.85, 0.15]]), 1.0).round(3).tolist()  # 0.2 of the second
    [0.25, 1.0]
    """
    mean = fractions.double().mean(dim=0).cpu().numpy()
    shares = np.maximum(mean, _RAREST)
    rarity: Values = (shares[mean > 0].min() / shares).clip(max=1) ** exponent
    return rarity


def promised(points: tuple[Point, ...], asked: tuple[Region, ...], count: int) -> float:
    """Return what points of an image promise that was asked about before: their scores / (1 + a / k)."""
    return sum(point.score for point in points) / (1 + len(asked) / count)


def _always(weights: Values, drawn: Sequence[int]) -> Values:
    del drawn
    return weights


def _array(values: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = values.cpu().numpy()
    return array


def _size(batch: Batch, position: int) -> Size:
    height, width = batch.size[position].tolist()
    return height, width
