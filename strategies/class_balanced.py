"""Class-balanced random sampling: label at random, but every predicted class as often as the others.

Paper: none of its own. Random sampling stratified by predicted class is the simple baseline that many methods fail to
beat where a few classes cover most of the pixels; the survey has no equation for it.
Equation: a share of the picks goes to the classes in turn; for class c, image x is drawn without replacement with
probability proportional to a_c(x), the share of x's pixels that is predicted as c.

Deviations:
- The class with the smallest predicted area in the pool has its turn first; classes predicted nowhere have none.
- The other picks, and all images beyond the budget, are drawn alike. Information is 0.

Ten images of sky; a bird is seen in one of them. Of two picks one is for birds:

    >>> import torch
    >>> from strategies.base import Budget, Observation
    >>> shares = torch.tensor([[1.0, 0.0]] * 9 + [[0.99, 0.01]])
    >>> size = torch.full((10, 2), 64)
    >>> pool = Observation(ids=tuple(range(10)), information=torch.zeros(10), class_fraction=shares, size=size)
    >>> def picked(seed):
    ...     generator = torch.Generator().manual_seed(seed)
    ...     return ClassBalanced(share=1.0).rank(pool, None, budget=Budget(images=2), generator=generator).ids[:2]
    >>> all(9 in picked(seed) for seed in range(100))  # plain random: in one of five
    True
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from strategies import selection
from strategies.base import Batch, Observation, Order, Round, Strategy
from strategies.checks import check_number
from strategies.noise import exponential


class ClassBalanced(Strategy):
    """Ranks images at random, rarely predicted classes as often as common ones.

    Args:
        share: part of the picks that is stratified by class, in [0, 1], spread evenly over the ranking.
    """

    name = "class_balanced"
    needs = frozenset({"probabilities"})

    def __init__(self, *, share: float = 0.5) -> None:
        check_number("share", share, 0, 1)
        self._share = share

    @torch.no_grad()
    def observe(self, batch: Batch) -> Observation:
        """Observe the predicted class shares of each image; its information is 0."""
        if batch.probabilities is None:
            raise ValueError(f"{self.name} needs Batch.probabilities: expected (M,B,C,H,W), received None")
        information = torch.zeros(len(batch.ids), dtype=torch.float64, device=batch.images.device)
        return Observation.from_batch(batch, information=information)

    def _order(self, round: Round) -> Order:
        """Draw up to the budget, a share of it class by class; the rest follows in a random order."""
        pool = round.unlabelled
        if pool.class_fraction is None:
            raise ValueError(f"{self.name} needs Observation.class_fraction: expected (N,C), received None")
        order = selection.by_id(pool.ids)
        anyhow = order[np.argsort(exponential(len(order), round.generator), kind="stable")]
        limit = min(round.budget.images or len(order), len(order))
        queues = self._queues(pool.class_fraction.cpu().double().numpy(), order, limit, round.generator)
        picks = round.budget.take(self._picks(anyhow, queues), pool.size)
        return selection.first_then(picks, anyhow)

    def _queues(
        self, shares: NDArray[np.float64], order: NDArray[np.int64], limit: int, generator: torch.Generator
    ) -> deque[Iterator[int]]:
        """Draw, for each class from the rarest, the images with some of it in the order of their turns; at most limit.

        The smallest of exponential numbers, each divided by its weight, falls to an image with a probability
        proportional to the weight; so does the next one among the rest.
        """
        queues: dict[int, Iterator[int]] = {}
        for number in range(shares.shape[1]):
            weight = shares[order, number]
            turns = exponential(len(order), generator)
            some = np.flatnonzero(weight > 0)
            turns = turns[some] / weight[some]
            first = np.argsort(turns, kind="stable")[:limit]
            queues[number] = iter(order[some[first]].tolist())
        areas = [math.fsum(shares[:, number]) for number in range(shares.shape[1])]
        return deque(queues[number] for number in np.argsort(areas, kind="stable").tolist())

    def _picks(self, anyhow: NDArray[np.int64], queues: deque[Iterator[int]]) -> Iterator[int]:
        """Yield positions until all are drawn."""
        plain, drawn = iter(anyhow.tolist()), set[int]()
        for count in range(len(anyhow)):
            stratified = math.floor((count + 1) * self._share) > math.floor(count * self._share)
            pick = _next_of_classes(queues, drawn) if stratified else None
            if pick is None:
                pick = next(one for one in plain if one not in drawn)
            drawn.add(pick)
            yield pick


def _next_of_classes(queues: deque[Iterator[int]], drawn: set[int]) -> int | None:
    """Take an image from the class whose turn it is; None when no class has one left."""
    while queues:
        queue = queues.popleft()
        pick = next((one for one in queue if one not in drawn), None)
        if pick is not None:
            queues.append(queue)
            return pick
    return None
