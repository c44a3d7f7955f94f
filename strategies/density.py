"""Information density: label first what is uncertain and like the rest of the pool, outliers last.

Paper: Settles and Craven, "An analysis of active learning strategies for sequence labeling tasks", 2008; Gu,
"Active Learning and Its Application in Semantic Segmentation" (the survey), section I.B.3.
Equation: survey Eq. 5, x* = argmax_x φ(x) (1/U Σ_u sim(x, x_u))^β, x_u the unlabelled images, x among them.

Deviations:
- The mean similarity is clipped at 0 (after the mean, not each similarity): a negative base has no power β.
- Similarity is the cosine of the descriptors; an image whose descriptor is 0 is like nothing.
- Cosines need no table of N x N: the mean of x̂·x̂_u over u is x̂ · mean(x̂_u), which costs O(N·D).
- φ is the mean over pixels of any pixel measure; all images are ranked.

Three equally uncertain images; the third looks like neither of the others:

    >>> import torch
    >>> from strategies.base import Budget, Observation
    >>> descriptors = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> pool = Observation(
    ...     ids=("a", "b", "c"), information=torch.full((3,), 0.5), descriptors=descriptors, size=torch.full((3, 2), 64)
    ... )
    >>> Density().scores(pool).round(4).tolist()  # 0.5 · (1 + 1 + 0)/3, the same, and 0.5 · (0 + 0 + 1)/3
    [0.3333, 0.3333, 0.1667]
    >>> Density(beta=2).rank(pool, None, budget=Budget(images=1), generator=torch.Generator()).ids
    ('a', 'b', 'c')
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from strategies import selection
from strategies.base import Batch, Observation, Order, Round
from strategies.checks import check_number
from strategies.descriptors import as_array, mean_cosine
from strategies.pixel_uncertainty import MeasuredUncertainty, with_descriptors


class Density(MeasuredUncertainty):
    """Ranks images by uncertainty times likeness to the unlabelled pool.

    Args:
        measure: the uncertainty φ, one of `strategies.uncertainty.MEASURES`.
        beta: how much likeness counts, from 0 (not at all).
    """

    name = "density"
    needs = frozenset({"probabilities", "features"})

    def __init__(self, *, measure: str = "entropy", beta: float = 1.0) -> None:
        super().__init__(measure=measure)
        check_number("beta", beta, 0)
        self._beta = beta

    @torch.no_grad()
    def observe(self, batch: Batch) -> Observation:
        """Observe the uncertainty of each image, and keep its descriptor."""
        return with_descriptors(super().observe(batch), batch, self.name)

    def scores(self, unlabelled: Observation) -> NDArray[np.float64]:
        """Return φ(x) · max(0, mean_u sim(x, x_u))^β of each image of the pool: (N)."""
        order = selection.by_id(unlabelled.ids)  # sums are rounded: they are taken in the same order always
        likeness = mean_cosine(as_array(unlabelled, self.name), order)
        weight: NDArray[np.float64] = np.maximum(likeness, 0) ** self._beta
        return unlabelled.information.cpu().numpy() * weight

    def _order(self, round: Round) -> Order:
        """Order the pool by its scores, ties by id."""
        return selection.by_information(round.unlabelled.ids, self.scores(round.unlabelled))
