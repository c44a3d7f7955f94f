"""The methods that start from a map of pixel uncertainty have these classes in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from strategies import uncertainty
from strategies.base import Batch, Observation, Strategy
from strategies.checks import check_choice
from strategies.committee import check_committee
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
        pixels = self.measure(self.checked(batch))
        information = image_information(pixels, valid=batch.valid, labelled=batch.labelled)
        return Observation.from_batch(batch, information=information)

    def checked(self, batch: Batch) -> Tensor:
        """Return the probabilities (M,B,C,H,W) of a batch; check that they are those that the method needs."""
        if batch.probabilities is None:
            wanted = "a committee's" if "committee" in self.needs else "a network's"
            raise ValueError(f"{self.name} needs Batch.probabilities: expected {wanted} (M,B,C,H,W), received None")
        if "committee" in self.needs:
            check_committee(batch.probabilities, batch.valid)
        return batch.probabilities


class MeasuredUncertainty(PixelUncertainty):
    """What the methods over any base measure start from; whether they need a committee depends on the measure.

    Args:
        measure: name of a pixel map, one of `strategies.uncertainty.MEASURES`.

    Raises:
        ValueError: no such measure.
    """

    def __init__(self, *, measure: str) -> None:
        self._measure = uncertainty.MEASURES[check_choice("measure", measure, uncertainty.MEASURES)]
        if measure in uncertainty.COMMITTEE_MEASURES:
            self.needs = self.needs - {"probabilities"} | {"committee"}

    def measure(self, probabilities: Tensor) -> Tensor:
        """Return the map of the measure that was chosen."""
        return self._measure(probabilities)


def with_descriptors(observation: Observation, batch: Batch, name: str) -> Observation:
    """Put the batch's features (B,D) beside an observation, as descriptors in single precision at least.

    Raises:
        ValueError: the batch has none; it says which method asks.
    """
    if batch.features is None:
        raise ValueError(f"{name} needs Batch.features: expected one descriptor (B,D) per image, received None")
    exact = batch.features.dtype in (torch.float32, torch.float64)
    return replace(observation, descriptors=batch.features if exact else batch.features.float())
