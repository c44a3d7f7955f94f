"""Tsallis entropy: label first where the prediction says least, likely classes counting more than unlikely ones.

Paper: Tsallis, "Possible generalization of Boltzmann-Gibbs statistics", 1988.
Equation: S_q = (1 - Σ_i p_i^q) / (q - 1); for q = 2 the Gini impurity.
Deviations: divided by its largest value, that of equal p_i, so that a pixel's value is in [0, 1].

    >>> pixels = torch.tensor([[0.5, 1.0], [0.5, 0.0], [0.0, 0.0]]).view(1, 1, 3, 1, 2)
    >>> Tsallis().measure(pixels).round(decimals=4).tolist()  # (1 - 1/2) / (1 - 1/3), and 0
    [[[0.75, 0.0]]]
"""

from __future__ import annotations

import torch
from torch import Tensor

from strategies import Entry, Words
from strategies.checks import check_number
from strategies.pixel_uncertainty import PixelUncertainty

ENTRY = Entry(
    name="tsallis",
    method="nextmask_tsallis:Tsallis",
    words=Words("images on which the likely classes are closest to each other", "uncertainty"),
    needs=frozenset({"probabilities"}),
)


class Tsallis(PixelUncertainty):
    """Ranks images by the mean Tsallis entropy of their pixels.

    Args:
        q: from 1.01, which is nearly Shannon's entropy, to 10.
    """

    name = "tsallis"

    def __init__(self, *, q: float = 2.0) -> None:
        check_number("q", q, 1.01, 10)
        self._q = q

    def measure(self, probabilities: Tensor) -> Tensor:
        """Return the entropy of each pixel in [0, 1]: (M,B,C,H,W) -> (B,H,W)."""
        mean = probabilities.to(torch.float64).mean(dim=0)  # (B,C,H,W)
        largest = 1 - max(mean.shape[1], 2) ** (1 - self._q)
        return ((1 - mean.pow(self._q).sum(dim=1)) / largest).clamp(0, 1)
