"""Power noise: label uncertain images sooner, but by chance, so that a batch of them is diverse.

Paper: Kirsch et al., "Stochastic batch acquisition: a simple baseline for deep active learning", 2021 (arXiv
2106.12059), its power acquisition.
Equation: draw without replacement with probabilities proportional to s(x)^β, which is ranking by
log s(x)^β + Gumbel noise.

The noise is added to the logarithm. Gumbel numbers are negative as often as not: as factors of the score they would
put the most uncertain images last.

Deviations:
- The noise decays: in round r it is decay^r times as strong, as if β were β / decay^r. The first rounds, whose models
  know little, sample widely; late ones choose.
- Images of score 0, which such a draw never takes, come last, by id.

The draw follows s^β: of scores 1 and 2 with β = 2 the second comes first in 4 of 5 draws:

    >>> import torch
    >>> from strategies.base import Budget, Observation
    >>> pool = Observation(ids=("one", "two"), information=torch.tensor([1.0, 2.0]), size=torch.full((2, 2), 64))
    >>> def first(seed, round=0):
    ...     generator = torch.Generator().manual_seed(seed)
    ...     return PowerNoise(beta=2).rank(pool, None, budget=Budget(images=1), round=round, generator=generator).ids[0]
    >>> shares = [sum(first(seed, round) == "two" for seed in range(1000)) / 1000 for round in (0, 30)]
    >>> round(shares[0], 1), shares[1]
    (0.8, 1.0)
"""

from __future__ import annotations

import numpy as np

from strategies import selection
from strategies.base import Order, Round
from strategies.checks import check_number
from strategies.noise import gumbel
from strategies.pixel_uncertainty import MeasuredUncertainty


class PowerNoise(MeasuredUncertainty):
    """Ranks images in a random order that favours uncertain ones.

    Args:
        measure: the score, one of `strategies.uncertainty.MEASURES`.
        beta: how much the score counts against the noise, from 0.001 (nearly nothing).
        decay: factor of the noise from round to round, in [0, 1]; 1: it does not decay; 0: only the first has any.
    """

    name = "power_noise"

    def __init__(self, *, measure: str = "entropy", beta: float = 1.0, decay: float = 0.9) -> None:
        super().__init__(measure=measure)
        check_number("beta", beta, 1e-3)
        check_number("decay", decay, 0, 1)
        self._beta, self._decay = beta, decay

    def _order(self, round: Round) -> Order:
        """Order the pool by log s + decay^round / β · Gumbel noise."""
        by_id = selection.by_id(round.unlabelled.ids)
        score = round.unlabelled.information.cpu().numpy()[by_id]
        noise = gumbel(len(by_id), round.generator) * self._decay**round.number / self._beta
        key = np.log(np.where(score > 0, score, 1)) + noise
        order: Order = by_id[np.lexsort((np.where(score > 0, -key, 0), score <= 0))]
        return order
