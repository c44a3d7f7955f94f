"""The methods that differ in nothing but the map of pixel uncertainty have this class in common."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from strategies.base import Batch, Observation, Strategy
from strategies.uncertainty import image_information


class PixelUncertainty(Strategy):
    """Ranks images by the mean uncertainty of their pixels, those that are valid and not labelled."""

    needs = frozenset({"probabilities"})

    @abstractmethod
    def measure(self, probabilities: Tensor) -> Tensor:
        """Return the uncertainty of each pixel in [0, 1]: (M,B,C,H,W) -> (B,H,W), higher = label sooner."""

    @torch.no_grad()
    def observe(self, batch: Batch) -> Observation:
        """Average the pixel map over each image; see `strategies.uncertainty.image_information`."""
        if batch.probabilities is None:
            raise ValueError(f"{self.name} needs Batch.probabilities: expected (M,B,C,H,W), received None")
        pixels = self.measure(batch.probabilities)
        information = image_information(pixels, valid=batch.valid, labelled=batch.labelled)
        return Observation.from_batch(batch, information=information)
