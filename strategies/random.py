"""Random sampling: the baseline that every other method has to beat.

Paper: the passive learner that active learning is measured against throughout Gu, "Active Learning and Its
Application in Semantic Segmentation" (the survey), for instance in its section III.B.1; it has no equation.

Deviations: none. Images labelled in part are drawn like all others, and no network is needed. Information is 0.

    >>> import torch
    >>> from strategies.base import Budget, Observation
    >>> pool = Observation(ids=("a", "b", "c"), information=torch.zeros(3), size=torch.full((3, 2), 64))
    >>> def draw(seed):
    ...     return Random().rank(pool, None, budget=Budget(images=1), generator=torch.Generator().manual_seed(seed)).ids
    >>> draw(0) == draw(0), sorted(draw(0)), len({draw(seed) for seed in range(100)})  # 3! orders
    (True, ['a', 'b', 'c'], 6)
"""

from __future__ import annotations

import torch

from strategies import selection
from strategies.base import Batch, Observation, Order, Round, Strategy


class Random(Strategy):
    """Ranks the pool in a random order, every order being as likely; no options."""

    name = "random"
    needs = frozenset[str]()

    @torch.no_grad()
    def observe(self, batch: Batch) -> Observation:
        """Observe no information: 0 for every image."""
        information = torch.zeros(len(batch.ids), dtype=torch.float64, device=batch.images.device)
        return Observation.from_batch(batch, information=information)

    def _order(self, round: Round) -> Order:
        """Shuffle the pool, sorted by id, with the generator."""
        ids = round.unlabelled.ids
        shuffle = torch.randperm(len(ids), generator=round.generator, device=round.generator.device)
        order: Order = selection.by_id(ids)[shuffle.cpu().numpy()]
        return order
