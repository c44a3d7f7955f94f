"""Entropy sampling: label first where the prediction says least, all classes considered.

Paper: Shannon, "A mathematical theory of communication", 1948; Gu, "Active Learning and Its Application in
Semantic Segmentation" (the survey), section I.B.1.
Equation: survey Eq. 3, x* = argmax_x -Σ_i P(y_i|x) log P(y_i|x).

Deviations:
- Divided by log C, which changes no order: scores compare between projects, and nothing is rescaled per image.
- The sources choose a single instance; an image is scored by the mean over its pixels, and all images are ranked.
- Pixels that are padding or that a person has labelled do not count.
- With a committee (M > 1) the members' mean stands for P(y|x).

A sure and an unsure image, of a single pixel each:

    >>> import torch
    >>> from strategies.base import Batch
    >>> probabilities = torch.tensor([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]).view(1, 2, 3, 1, 1)
    >>> batch = Batch(ids=("sure", "unsure"), images=torch.zeros(2, 3, 1, 1), probabilities=probabilities)
    >>> Entropy().observe(batch).information  # log 1 / log 3 and log 3 / log 3
    tensor([0., 1.], dtype=torch.float64)
"""

from __future__ import annotations

from torch import Tensor

from strategies import uncertainty
from strategies.pixel_uncertainty import PixelUncertainty


class Entropy(PixelUncertainty):
    """Ranks images by the mean of -Σ p log p / log C over their pixels; no options."""

    name = "entropy"

    def measure(self, probabilities: Tensor) -> Tensor:
        """Return -Σ p log p / log C of each pixel."""
        return uncertainty.entropy(probabilities)
