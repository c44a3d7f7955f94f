"""Random points: ask for the class of a few pixels of each image, each pixel as likely; the baseline of `points`.

Paper: the random baseline of Shin, Xie, Albanie, "All you need are a few pixels: semantic segmentation with
PixelPick", 2021, arXiv 2104.06394.
Equation: every pixel of an image that can be asked about is a point with probability k / n, n the number of these:
systematic sampling along Morton's curve (`strategies.candidates.uniform`), one point in each of k parts of equal area.
What is counted over such points is therefore an unbiased estimate of what would be counted over whole masks.

Deviations:
- The paper draws without parts.
- Images of which the fewest points were asked come first, in a random order; the paper asks all of them every time.
- Information is 0, and so is what a point promises.

    >>> import torch
    >>> from strategies.base import Batch, Budget
    >>> points = RandomPoints(count=4)
    >>> seen = points.observe(Batch(ids=("a",), images=torch.zeros(1, 3, 4, 4)))
    >>> ranking = points.rank(seen, None, budget=Budget(images=1), generator=torch.Generator())
    >>> sorted((point.row // 2, point.column // 2) for point in ranking.points["a"])  # one in each quarter
    [(0, 0), (0, 1), (1, 0), (1, 1)]
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from strategies import candidates, selection, training, uncertainty
from strategies.base import Batch, Lesson, Observation, Ranking, Round, Strategy
from strategies.candidates import Candidates
from strategies.checks import check_count
from strategies.frames import extents
from strategies.observation import Point
from strategies.point_draw import outside, points_of
from strategies.segmentation import predicted_classes


class RandomPoints(Strategy):
    """Asks for points drawn from all over each image, of images in a random order.

    Args:
        count: k, points of an image, from 1.
    """

    name = "random_points"
    asks_for_points = True
    needs = frozenset[str]()

    def __init__(self, *, count: int = 10) -> None:
        check_count("count", count, 1)
        self._count = count
        self._salt = 0

    def _learn(self, lesson: Lesson) -> None:
        """Draw what the chance in `observe` depends on, besides the image's id."""
        self._salt = training.draw_seed(lesson.generator)

    @torch.no_grad()
    def observe(self, batch: Batch) -> Observation:
        """Draw the points of each image; with probabilities they come with the network's guess."""
        guesses = None if batch.probabilities is None else _guesses(batch.probabilities)
        kept = []
        for position, (height, width) in enumerate(extents(batch.valid)):
            free = (batch.valid & ~batch.labelled)[position, :height, :width].cpu().numpy()
            rows, columns = batch.size[position].tolist()
            chance = candidates.chance_of(self._salt, batch.ids[position])
            pixels, places = candidates.uniform(free, (rows, columns), self._count, chance)
            classes, margin = np.full(len(pixels), -1, np.int64), np.zeros(len(pixels))
            if guesses is not None:
                at = (position, *places.T)
                classes, margin = guesses[0].cpu().numpy()[at], guesses[1].cpu().numpy()[at]
            nothing = np.zeros(len(pixels))
            kept.append(
                Candidates(
                    pixels=pixels, places=places, weight=nothing, promise=nothing, classes=classes, margin=margin
                )
            )
        information = torch.zeros(len(batch.ids), dtype=torch.float64, device=batch.images.device)
        return replace(Observation.from_batch(batch, information=information), candidates=tuple(kept))

    def _ranking(self, round: Round) -> Ranking:
        """Shuffle the pool, sorted by id; images of which fewer points were asked come first."""
        pool = round.unlabelled
        if pool.candidates is None:
            raise ValueError("Observation.candidates: expected what random_points observes, received None")
        points: dict[int, tuple[Point, ...]] = {}
        for position, (own, asked) in enumerate(zip(pool.candidates, pool.excluded, strict=True)):
            free = np.flatnonzero(outside(own.pixels, asked)).tolist()
            if free:
                points[position] = points_of(own, free, own.promise)
        shuffle = torch.randperm(len(pool.ids), generator=round.generator, device=round.generator.device)
        order = selection.by_id(pool.ids)[shuffle.cpu().numpy()]
        rounds = np.array([len(asked) // self._count for asked in pool.excluded])[order]
        spent = np.array([position not in points for position in order.tolist()])
        whole = Ranking.in_order(pool.ids, order[np.lexsort((rounds, spent))])
        return replace(whole, points={pool.ids[position]: drawn for position, drawn in points.items()})


def _guesses(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Return the likeliest class of each pixel and by how much it is likelier than the next: (B,H,W) each."""
    margin = 1 - uncertainty.margin(probabilities).double()
    return predicted_classes(probabilities), margin.clamp(0, 1)
