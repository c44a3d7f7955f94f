"""Vote entropy: label first where the members of a committee vote for different classes.

Paper: Dagan and Engelson, "Committee-based sampling for training probabilistic classifiers", 1995; Gu, "Active
Learning and Its Application in Semantic Segmentation" (the survey), section I.B.2.
Equation: survey Eq. 4, x* = argmax_x -Σ_i V(y_i)/C log V(y_i)/C, V(y_i) the votes for class y_i. The survey's C is
the number of members, M here.

Deviations:
- Divided by log min(M, C), C the classes: 1 where the votes are spread as evenly as they can.
- The sources choose a single instance; an image is scored by the mean over its pixels, and all images are ranked.
- Pixels that are padding or that a person has labelled do not count.
- A committee of copies is refused: see `strategies.committee.check_committee`.

Three members that agree, and three of which two agree, on images of a single pixel:

    >>> import torch
    >>> from strategies.base import Batch
    >>> votes = torch.tensor([[[0.9, 0.1], [0.9, 0.1]], [[0.8, 0.2], [0.7, 0.3]], [[0.6, 0.4], [0.4, 0.6]]])  # (M,B,C)
    >>> batch = Batch(ids=("agreed", "split"), images=torch.zeros(2, 3, 1, 1), probabilities=votes[..., None, None])
    >>> VoteEntropy().observe(batch).information  # 0 and -(2/3 log 2/3 + 1/3 log 1/3) / log 2
    tensor([0.0000, 0.9183], dtype=torch.float64)
"""

from __future__ import annotations

from torch import Tensor

from strategies import uncertainty
from strategies.pixel_uncertainty import PixelUncertainty


class VoteEntropy(PixelUncertainty):
    """Ranks images by the mean over their pixels of the entropy of a committee's votes; no options."""

    name = "vote_entropy"
    needs = frozenset({"committee"})

    def measure(self, probabilities: Tensor) -> Tensor:
        """Return -Σ V/M log V/M / log min(M, C) of each pixel."""
        return uncertainty.vote_entropy(probabilities)
