"""Margin sampling: label first where the two best guesses are closest.

Paper: Settles, "Active learning literature survey", 2010; Gu, "Active Learning and Its Application in
Semantic Segmentation" (the survey), section I.B.1.
Equation: survey Eq. 2, x* = argmin_x P(ŷ1|x) - P(ŷ2|x), ŷ1 and ŷ2 the two most probable classes.

Deviations:
- Eq. 2 is minimised; the map is 1 minus the margin, so that higher = label sooner here as everywhere.
- The sources choose a single instance; an image is scored by the mean over its pixels, and all images are ranked.
- Pixels that are padding or that a person has labelled do not count.
- With a committee (M > 1) the members' mean stands for P(y|x).

A sure and an unsure image, of a single pixel each:

    >>> import torch
    >>> from strategies.base import Batch
    >>> probabilities = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25]]).view(1, 2, 3, 1, 1)
    >>> batch = Batch(ids=("sure", "unsure"), images=torch.zeros(2, 3, 1, 1), probabilities=probabilities)
    >>> Margin().observe(batch).information  # 1 - (1 - 0) and 1 - (0.5 - 0.25)
    tensor([0.0000, 0.7500], dtype=torch.float64)
"""

from __future__ import annotations

from torch import Tensor

from strategies import uncertainty
from strategies.pixel_uncertainty import PixelUncertainty


class Margin(PixelUncertainty):
    """Ranks images by the mean of 1 - (p1 - p2) over their pixels; no options."""

    name = "margin"

    def measure(self, probabilities: Tensor) -> Tensor:
        """Return 1 - (p1 - p2) of each pixel."""
        return uncertainty.margin(probabilities)
