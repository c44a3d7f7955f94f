"""Auto: nextmask's own method. Information per effort, balanced over the classes, drawn with noise that decays.

Paper: none of its own. It puts together what each of these does alone: CEREALS (Mackowiak et al., 2018, arXiv
1810.09726) weighs information against effort; class-balanced sampling keeps rare classes in the batch; power
acquisition (Kirsch et al., 2021, arXiv 2106.12059) draws instead of taking the top, so that a batch is diverse.

Equation: of image x, U_c(x) is the mean over its pixels of p_c · u, the uncertainty u where the class c is likely; a_c
is the mean of p_c over the pool. With the balance α, the expected effort L and its weight γ

    s(x) = Σ_c U_c(x) · a_c^-α / (L(x) / mean L + ε)^γ

and images are drawn without replacement with probabilities proportional to s^β; the noise of the draw decays from
round to round.

Deviations:
- Whole images, not windows: the border of a window cuts outlines, and each cut has to be drawn.
  docs/label-efficiency.md has what windows took.
- The expected effort is the length of the predicted boundaries. ε keeps an image on which nothing is predicted from
  being taken for free.

A rare class is worth more than a common one, and an image that takes half the effort is, too:

    >>> import torch
    >>> sums = torch.tensor([[0.2, 0.0], [0.0, 0.2], [0.2, 0.0]])  # uncertain about the common class, or the rare one
    >>> shares = torch.tensor([0.9, 0.1])
    >>> effort = torch.tensor([100.0, 100.0, 50.0])
    >>> scores(sums, shares, effort, balance=0.5, cost_weight=1.0).argsort(descending=True).tolist()
    [1, 2, 0]
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from strategies import selection
from strategies.base import Batch, Observation, Order, Round
from strategies.checks import check_number
from strategies.frames import extents
from strategies.noise import gumbel
from strategies.pixel_uncertainty import MeasuredUncertainty
from strategies.segmentation import boundary_length, predicted_classes
from strategies.uncertainty import image_mean

_LEAST_EFFORT = 0.25
"""ε, in parts of the mean effort: opening an image and looking at it is part of what it takes."""
_LEAST_SHARE = 1e-3
"""A class that is predicted nearly nowhere gets no more weight than one with this share of the pixels."""


class Auto(MeasuredUncertainty):
    """Ranks images by balanced information per effort, by chance in the first rounds.

    Args:
        measure: the pixels' uncertainty, one of `strategies.uncertainty.MEASURES`.
        balance: α in [0, 1]; 0: all pixels count alike, 1: all classes do.
        cost_weight: γ in [0, 2]; 0: effort is left out of account.
        beta: how much the score counts against the noise, from 0.001 (nearly nothing).
        decay: factor of the noise from round to round, in [0, 1]; 1: it does not decay; 0: only the first has any.

    Raises:
        ValueError: an option is unknown or out of its range.
    """

    name = "auto"

    def __init__(
        self,
        *,
        measure: str = "entropy",
        balance: float = 1.0,
        cost_weight: float = 1.0,
        beta: float = 4.0,
        decay: float = 0.7,
    ) -> None:
        super().__init__(measure=measure)
        check_number("balance", balance, 0, 1)
        check_number("cost_weight", cost_weight, 0, 2)
        check_number("beta", beta, 1e-3)
        check_number("decay", decay, 0, 1)
        self._balance, self._cost_weight = balance, cost_weight
        self._beta, self._decay = beta, decay

    @torch.no_grad()
    def observe(self, batch: Batch) -> Observation:
        """Observe, as descriptors (B,C+1) float64, U_c of every class, and the length of the predicted boundaries.

        The information is that without balance and effort.
        """
        seen = super().observe(batch)
        probabilities = self.checked(batch)
        pixels = self.measure(probabilities)  # (B,H,W)
        open_pixels = batch.valid & ~batch.labelled
        mean = probabilities.mean(dim=0)  # (B,C,H,W)
        by_class = [image_mean(mean[:, index] * pixels, open_pixels) for index in range(mean.shape[1])]
        effort = _boundaries(predicted_classes(probabilities), open_pixels, batch)
        return replace(seen, descriptors=torch.stack([*by_class, effort], dim=1))

    def _order(self, round: Round) -> Order:
        """Order the pool by log s + decay^round / β · Gumbel noise, from ids in order."""
        pool = round.unlabelled
        if pool.descriptors is None or pool.class_fraction is None:
            raise ValueError("Observation.descriptors: expected what auto observes, received None")
        by_id = selection.by_id(pool.ids)
        seen, shares = pool.descriptors.double().cpu(), pool.class_fraction.double().cpu()
        score = scores(
            seen[:, :-1], shares.mean(dim=0), seen[:, -1], balance=self._balance, cost_weight=self._cost_weight
        ).numpy()[by_id]
        noise = gumbel(len(by_id), round.generator) * self._decay**round.number / self._beta
        key = np.log(np.where(score > 0, score, 1)) + noise
        order: Order = by_id[np.lexsort((np.where(score > 0, -key, 0), score <= 0))]
        return order


def scores(sums: Tensor, shares: Tensor, effort: Tensor, *, balance: float, cost_weight: float) -> Tensor:
    """Return s of every image (N), at least 0.

    Args:
        sums: (N,C), U_c of every image.
        shares: (C), a_c of the pool.
        effort: (N), at least 0, in any unit.
    """
    information = (sums * shares.clamp(min=_LEAST_SHARE) ** -balance).sum(dim=1)
    mean = effort.mean()
    relative = effort / mean if mean > 0 else torch.ones_like(effort)
    return information / (relative + _LEAST_EFFORT) ** cost_weight


def _boundaries(classes: Tensor, open_pixels: Tensor, batch: Batch) -> Tensor:
    """Return how long the predicted boundaries are where nothing is labelled: (B) float64, in original pixels."""
    lengths = torch.zeros(len(batch.ids), dtype=torch.float64, device=classes.device)
    for position, (height, width) in enumerate(extents(batch.valid)):
        inside = (position, slice(height), slice(width))
        size: tuple[int, int] = tuple(batch.size[position].tolist())
        length = boundary_length(classes[inside], size)  # (h,w)
        lengths[position] = torch.where(open_pixels[inside], length, 0).double().sum()
    return lengths
