"""Suggestive annotation (SA): of the most uncertain images label those that are like most of the pool.

Paper: Yang et al., "Suggestive annotation: a deep active learning framework for biomedical image segmentation", 2017
(arXiv 1706.04737); Gu, "Active Learning and Its Application in Semantic Segmentation" (the survey), section III.A.2.
Equation: S_c, the K most uncertain images; S_a ⊂ S_c of k images, chosen greedily to maximise
F(S_a, S_u) = Σ_{j in S_u} max_{i in S_a} cos(I_i, I_j), F(∅) = 0, over the unlabelled pool S_u.

Corrections of the survey:
- Its f(S_a, I_x) takes the maximum over S_u; it is over S_a, what has been chosen.
- It bootstraps the unlabelled pool to train the committee; what is resampled is the annotated set.
- It calls the method a variation of density weighting (Eq. 5). There is no product: uncertainty filters, then
  likeness alone decides.
- Its set cover is the form with similarities of 0 and 1; otherwise this is facility location. Neither is the
  k-centre objective of core-set.

Deviations:
- Similarities are clipped at 0; the paper's descriptors give none below.
- Any committee will do, dropout's, too; and any pixel measure. The paper's is `std` over 4 bootstrapped networks.
- k is the budget where that is larger, and K grows with it, in the same proportion and at least 2 k: with K fixed,
  more and more of the K are chosen, and what is left of the method is plain uncertainty. Images beyond the budget
  follow by uncertainty.
- Of images that add the same the more uncertain comes first, then the smaller id.

Three images in S_c, two of them alike; the most uncertain is like nothing else in the pool:

    >>> import torch
    >>> from strategies.base import Budget, Observation
    >>> descriptors = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    >>> information = torch.tensor([0.9, 0.8, 0.7, 0.1])
    >>> size = torch.full((4, 2), 64)
    >>> pool = Observation(ids=(1, 2, 3, 4), information=information, descriptors=descriptors, size=size)
    >>> method = SuggestiveAnnotation(candidates=3, picks=2)
    >>> method.rank(pool, None, budget=Budget(images=2), generator=torch.Generator()).ids  # F = 3, then 4; 3 adds 0
    (2, 1, 3, 4)
"""

from __future__ import annotations

import math

import torch

from strategies import selection
from strategies.base import Batch, Observation, Order, Round
from strategies.checks import check_count, check_number
from strategies.descriptors import as_array
from strategies.facility_location import FacilityLocation
from strategies.pixel_uncertainty import MeasuredUncertainty, with_descriptors


class SuggestiveAnnotation(MeasuredUncertainty):
    """Ranks images that are uncertain and together like most of the pool first.

    Args:
        candidates: K, how many of the most uncertain images are looked at; more for a larger budget than k.
        picks: k, how many of those are chosen, K at most.
        measure: the uncertainty, one of `strategies.uncertainty.MEASURES`.
        threshold: similarities from it, in (0, 1], count 1 and others 0; None: they count as they are.
    """

    name = "suggestive_annotation"
    plans_one_round = True
    needs = frozenset({"probabilities", "features"})

    def __init__(
        self, *, candidates: int = 16, picks: int = 8, measure: str = "std", threshold: float | None = None
    ) -> None:
        super().__init__(measure=measure)
        check_count("picks", picks, 1)
        check_count(f"candidates, with picks = {picks}", candidates, picks)
        if threshold is not None:
            check_number("threshold", threshold, 1e-3, 1)
        self._candidates, self._picks, self._threshold = candidates, picks, threshold

    @torch.no_grad()
    def observe(self, batch: Batch) -> Observation:
        """Observe the uncertainty of each image, and keep its descriptor."""
        return with_descriptors(super().observe(batch), batch, self.name)

    def _order(self, round: Round) -> Order:
        """Choose up to the budget by coverage of the pool, out of the most uncertain; the rest by uncertainty."""
        order, pool = super()._order(round), round.unlabelled
        count = len(round.budget.take(order.tolist(), pool.size))
        location = FacilityLocation(as_array(pool, self.name), self._threshold)
        picks = round.budget.take(location.picks(order[: self.looked_at(count)]), pool.size)
        return selection.first_then(picks, order)

    def looked_at(self, count: int) -> int:
        """Return K for a budget of that many images.

        >>> [SuggestiveAnnotation().looked_at(count) for count in (1, 8, 10, 64)]
        [16, 16, 20, 128]
        """
        return math.ceil(max(count, self._picks) * max(2, self._candidates / self._picks))
