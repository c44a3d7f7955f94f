"""Class-balanced random sampling: label at random, but every predicted class as often as the others.

Paper: none of its own. Random sampling stratified by predicted class is the simple baseline that many methods fail to
beat where a few classes cover most of the pixels; the survey has no equation for it.
Equation: a share of the picks goes to the classes in turn; for class c, image x is drawn without replacement with
probability proportional to a_c(x), the share of x's pixels that is predicted as c.

Deviations:
- The class with the smallest predicted area in the pool has its turn first; classes predicted nowhere have none.
- The other picks, and all images beyond the budget, are drawn alike. Information is 0.

Ten images of sky; a bird is seen in the last. Of two picks one is for birds:

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
from collections.abc import Iterator

import numpy as np
import torch

from strategies import selection
from strategies.base import Batch, Observation, Order, Pick, Picks, Round, Strategy
from strategies.checks import check_number
from strategies.turns import drawn, in_turns


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

    def _explained_order(self, round: Round) -> tuple[Order, Picks]:
        """Draw up to the budget, a share of it class by class; the rest follows in a random order."""
        pool = round.unlabelled
        if pool.class_fraction is None:
            raise ValueError(f"{self.name} needs Observation.class_fraction: expected (N,C), received None")
        order = selection.by_id(pool.ids)
        shares = pool.class_fraction.cpu().double().numpy()[order]  # (N,C)
        anyhow = drawn(np.ones(len(order)), round.generator)
        turns = in_turns(
            shares,
            others=anyhow,
            areas=np.array([math.fsum(column) for column in shares.T]),
            share=self._share,
            generator=round.generator,
            limit=min(round.budget.images or len(order), len(order)),
        )
        picked: dict[int, Pick] = {}

        def noted() -> Iterator[int]:
            for turn in turns:
                position = int(order[turn.position])
                picked[position] = Pick(turn=turn.of)
                yield position

        first = round.budget.take(noted(), pool.size)
        return selection.first_then(first, order[anyhow]), picked
