"""Core-set: label images such that every image of the pool is like a labelled image.

Paper: Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach", 2018 (arXiv
1708.00489).
Equation: min_S max_i min_{j in S and labelled} ||x_i - x_j||, solved by the greedy k-centre rule of the paper's
algorithm 1.

This is not the objective of suggestive annotation, for which the survey's set cover is easily taken: k-centre makes
the largest distance small, facility location the sum of similarities large.

Deviations:
- The paper's mixed-integer refinement, which leaves out outliers, is not done: the greedy choice has no solver to
  wait for, and is what later work compares with.
- With nothing labelled the image nearest to the pool's mean comes first; the paper starts from labels.
- Beyond the budget images follow by their distance to the nearest labelled or chosen image.
- An image labelled in part is its own centre: at distance 0 it comes last.

Three unlabelled images on a line beside a labelled image at 0:

    >>> import torch
    >>> from strategies.base import Budget, Observation
    >>> def seen(ids, places):
    ...     places = torch.tensor(places)[:, None]
    ...     return Observation(
    ...         ids=ids, information=torch.zeros(len(ids)), descriptors=places, size=torch.full((len(ids), 2), 64)
    ...     )
    >>> pool, labelled = seen((1, 2, 3), [2.0, 9.0, 10.0]), seen((4,), [0.0])
    >>> Coreset().rank(pool, labelled, budget=Budget(images=2), generator=torch.Generator()).ids  # 10 off, 2 off, 1 off
    (3, 1, 2)
"""

from __future__ import annotations

import numpy as np
import torch

from strategies import selection
from strategies.base import Batch, Observation, Order, Round, Strategy
from strategies.descriptors import as_array
from strategies.k_centre import KCentre
from strategies.pixel_uncertainty import with_descriptors


class Coreset(Strategy):
    """Ranks images by their distance to all labelled and higher ranked ones, farthest first; no options."""

    name = "coreset"
    needs = frozenset({"features", "labelled"})

    @torch.no_grad()
    def observe(self, batch: Batch) -> Observation:
        """Keep the descriptor of each image; its information is 0."""
        information = torch.zeros(len(batch.ids), dtype=torch.float64, device=batch.images.device)
        return with_descriptors(Observation.from_batch(batch, information=information), batch, self.name)

    def _order(self, round: Round) -> Order:
        """Choose up to the budget by the greedy k-centre rule; the rest follows by distance, ties by id."""
        ids, labelled = round.unlabelled.ids, round.labelled
        pool = as_array(round.unlabelled, self.name)
        centres = as_array(labelled, self.name) if labelled and labelled.ids else np.empty_like(pool[:0])
        if centres.shape[1] != pool.shape[1]:
            raise ValueError(
                f"descriptors: expected {pool.shape[1]} numbers for labelled images as for unlabelled ones, "
                f"received {centres.shape[1]}"
            )
        centre = KCentre(pool, centres, selection.by_id(ids))
        picks = round.budget.take(centre.picks(), round.unlabelled.size)
        return selection.first_then(picks, selection.by_information(ids, centre.nearest))
