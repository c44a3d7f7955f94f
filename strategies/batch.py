"""What goes into a strategy: images, and what a network says about them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from strategies.checks import (
    OMITTED,
    Id,
    assign,
    check_count,
    check_finite,
    check_mask,
    check_probabilities,
    check_range,
    check_shape,
    image_sizes,
    unique_ids,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Images of a pool with a network's predictions of them; all tensors on the same device.

    Attributes:
        ids: (B) distinct names of the images.
        images: (B,3,H,W) floating, RGB in [0, 1], padded to the largest image of the batch.
        probabilities: (M,B,C,H,W) floating, sum 1 over C at valid pixels, one entry per committee member; or None.
        features: (B,D) floating descriptors of whole images; or None.
        places: (B,D,h,w) floating descriptors of places, finite: each is of a square of `place_size` pixels a side, the
            first of that in the upper left corner; or None.
        place_size: side of such a cell.
        valid: (B,H,W) bool, False on padding; all True when omitted. Every image has a valid pixel.
        labelled: (B,H,W) bool, what a person has labelled; all False when omitted.
        cost: (B,H,W) floating, the effort of labelling each pixel, >= 0 in a unit of the caller's; or None.
        size: (B,2) int64, height and width of the original image in pixels; those of the tensor when omitted.

    Raises:
        ValueError: on creation, when a field is not as above; it says what was expected and what was received.
    """

    ids: tuple[Id, ...]
    images: Tensor
    probabilities: Tensor | None = None
    features: Tensor | None = None
    places: Tensor | None = None
    place_size: int = 1
    valid: Tensor = OMITTED
    labelled: Tensor = OMITTED
    cost: Tensor | None = None
    size: Tensor = OMITTED

    def __post_init__(self) -> None:
        assign(self, ids=unique_ids("Batch.ids", self.ids))
        check_shape("Batch.images", self.images, B=len(self.ids), channels=3, H=None, W=None)
        check_range("Batch.images", self.images, 0, 1, tolerance=1e-3)
        self._fill_in()
        self._check_device()
        self._check_pixels()
        if self.places is not None:
            self._check_places(self.places)
        if self.features is not None:
            check_shape("Batch.features", self.features, B=len(self.ids), D=None)
            check_finite("Batch.features", self.features)

    def _fill_in(self) -> None:
        batch, _, height, width = self.images.shape
        everywhere = torch.ones((batch, height, width), dtype=torch.bool, device=self.images.device)
        if self.valid is OMITTED:
            assign(self, valid=everywhere)
        if self.labelled is OMITTED:
            assign(self, labelled=~everywhere)
        size = [[height, width]] * batch if self.size is OMITTED else self.size
        assign(self, size=image_sizes("Batch.size", size, batch, self.images.device))

    def _check_device(self) -> None:
        for name in ("probabilities", "features", "places", "valid", "labelled", "cost"):
            value = getattr(self, name)
            if value is not None and value.device != self.images.device:
                raise ValueError(f"Batch.{name}: expected on {self.images.device} as images, received {value.device}")

    def _check_places(self, places: Tensor) -> None:
        check_shape("Batch.places", places, B=len(self.ids), D=None, h=None, w=None)
        check_finite("Batch.places", places)
        check_count("Batch.place_size", self.place_size, 1)
        wanted = [-(-side // self.place_size) for side in self.images.shape[-2:]]
        if any(got < least for got, least in zip(places.shape[-2:], wanted, strict=True)):
            raise ValueError(f"Batch.places: expected {wanted} cells at least, received {list(places.shape[-2:])}")

    def _check_pixels(self) -> None:
        batch, _, height, width = self.images.shape
        check_shape("Batch.valid", self.valid, B=batch, H=height, W=width)
        check_mask("Batch.valid", self.valid)
        if not self.valid.flatten(1).any(dim=1).all():
            raise ValueError("Batch.valid: expected a valid pixel in every image, received an image of padding only")
        check_shape("Batch.labelled", self.labelled, B=batch, H=height, W=width)
        check_mask("Batch.labelled", self.labelled)
        if self.probabilities is not None:
            check_shape("Batch.probabilities", self.probabilities, M=None, B=batch, C=None, H=height, W=width)
            check_probabilities("Batch.probabilities", self.probabilities, self.valid, self.ids)
        if self.cost is not None:
            check_shape("Batch.cost", self.cost, B=batch, H=height, W=width)
            counted = torch.where(self.valid, self.cost, 0)
            check_finite("Batch.cost", counted)
            check_range("Batch.cost", counted, 0, math.inf)
