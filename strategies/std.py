"""Standard deviation: label first where the members of a committee give different probabilities.

Paper: Yang et al., "Suggestive annotation: a deep active learning framework for biomedical image segmentation",
2017 (arXiv 1706.04737), where it is the uncertainty of a pixel; Gu, "Active Learning and Its Application in Semantic
Segmentation" (the survey), section III.A.2. It has no numbered equation in the survey.

Deviations:
- The paper segments foreground from background; with more classes their standard deviations are averaged.
- The members' own deviation is meant: divided by M, not M - 1.
- Pixels that are padding or that a person has labelled do not count.
- A committee of copies is refused: see `strategies.committee.check_committee`.

Two members that agree more or less, and two that do not, on an image of a single pixel each:

    >>> import torch
    >>> from strategies.base import Batch
    >>> members = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.75, 0.25], [0.0, 1.0]]])  # (M,B,C)
    >>> batch = Batch(ids=("near", "far"), images=torch.zeros(2, 3, 1, 1), probabilities=members[..., None, None])
    >>> Std().observe(batch).information  # 0.125 and 0.5 off the mean
    tensor([0.1250, 0.5000], dtype=torch.float64)
"""

from __future__ import annotations

from torch import Tensor

from strategies import uncertainty
from strategies.pixel_uncertainty import PixelUncertainty


class Std(PixelUncertainty):
    """Ranks images by the mean over their pixels of the members' standard deviation; no options."""

    name = "std"
    needs = frozenset({"committee"})

    def measure(self, probabilities: Tensor) -> Tensor:
        """Return the standard deviation over the members of each pixel, averaged over the classes."""
        return uncertainty.std(probabilities)
