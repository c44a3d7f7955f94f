"""BALD: label first where the members of a committee are sure of different things.

Paper: Houlsby et al., "Bayesian active learning for classification and preference learning", 2011 (arXiv
1112.5745); with dropout as the committee: Gal, Islam and Ghahramani, "Deep Bayesian active learning with image
data", 2017 (arXiv 1703.02910).
Equation: I(y; θ | x) = H[E_θ p(y|x, θ)] - E_θ H[p(y|x, θ)], the information that the label gives about the members.

Deviations:
- Divided by log C like the entropy, which changes no order: scores compare between projects.
- The sources choose a single instance; an image is scored by the mean over its pixels, and all images are ranked.
- Pixels that are padding or that a person has labelled do not count.
- A committee of copies is refused: see `strategies.committee.check_committee`.

Two members that are unsure together, and two that are sure of different things, on an image of a single pixel each;
the entropy of the mean is the same:

    >>> import torch
    >>> from strategies.base import Batch
    >>> members = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.0, 1.0]]])  # (M,B,C)
    >>> batch = Batch(ids=("unsure", "opposed"), images=torch.zeros(2, 3, 1, 1), probabilities=members[..., None, None])
    >>> Bald().observe(batch).information  # (log 2 - log 2) / log 2 and (log 2 - 0) / log 2
    tensor([0., 1.], dtype=torch.float64)
"""

from __future__ import annotations

from torch import Tensor

from strategies import uncertainty
from strategies.pixel_uncertainty import PixelUncertainty


class Bald(PixelUncertainty):
    """Ranks images by the mean over their pixels of what the label would tell about the members; no options."""

    name = "bald"
    needs = frozenset({"committee"})

    def measure(self, probabilities: Tensor) -> Tensor:
        """Return (H[mean] - mean H) / log C of each pixel."""
        return uncertainty.bald(probabilities)
