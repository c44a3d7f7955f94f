"""The network that the rest of nextmask sees: images in, logits and descriptors out, of any image size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from ml_backend.learning.networks.encoder_maps import MapStore
from ml_backend.learning.networks.frozen_encoder import FrozenEncoder, used_maps
from ml_backend.learning.networks.geometry import pad_to
from ml_backend.learning.networks.weights import Normalisation

_PLACE = 16
"""Longest side of what a descriptor of a place stands for, in pixels."""


class SegmentationNetwork(nn.Module):
    """A model of three parts, as smp's are, with normalisation and padding inside, and a dropout before its head.

    B images, C classes, D channels of the deepest encoder map, H, W pixels. Normalisation is part of the state, so a
    checkpoint needs nothing beside itself.

    Args:
        model: smp's, or of `architectures` (`encoder`, `decoder`, `segmentation_head`).
        stride: padded sides are multiples of it.
        least_side: smallest padded side that the decoder can take.
        normalisation: of the encoder's weights.
        dropout: share of the decoder's channels left out before the head, in training; what MC dropout needs, as most
            smp decoders have none.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, *, stride: int, least_side: int, normalisation: Normalisation, dropout: float
    ) -> None:
        super().__init__()
        self.model = model
        self.dropout = nn.Dropout2d(dropout)
        self.stride = stride
        self.least_side = least_side
        self._is_frozen = False
        self._frozen: FrozenEncoder | None = None
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(1, 3, 1, 1))

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size that images of this size are padded to inside."""
        return self._padded_side(height), self._padded_side(width)

    def freeze_encoder(self, store: MapStore | None = None) -> SegmentationNetwork:
        """Leave the encoder as it is from now on, statistics included; return this network.

        Call it once the weights are loaded and on the device where they stay.

        Args:
            store: keeps the encoder's maps on a CPU, where the encoder gives a list of maps.
        """
        encoder = self.model.get_submodule("encoder").requires_grad_(False)
        self._is_frozen = True
        training = self.training
        self.eval()
        probe = torch.zeros(1, 3, *self.padded_size(1, 1), device=self.mean.device)
        used = used_maps(encoder, self.model.get_submodule("decoder"), probe)
        self._frozen = None if used is None else FrozenEncoder(encoder, used, store)
        return self.train(training)

    @contextmanager
    def computing_anew(self) -> Iterator[None]:
        """Neither look up nor keep maps of the encoder until the block ends."""
        frozen, self._frozen = self._frozen, None
        try:
            yield
        finally:
            self._frozen = frozen

    @property
    def is_frozen(self) -> bool:
        """Whether the encoder stays as it is."""
        return self._is_frozen

    @property
    def left_out(self) -> float:
        """Share of the decoder's channels that training leaves out.

        Some decoders (FPN's, PSPNet's) end in a dropout of their own, after which that before the head comes.
        """
        *_, last = self.model.get_submodule("decoder").modules()
        own = last.p if isinstance(last, nn.Dropout2d) else 0.0
        return 1 - (1 - own) * (1 - self.dropout.p)

    def train(self, mode: bool = True) -> SegmentationNetwork:
        """Go into training mode, but for an encoder that stays as it is: its statistics belong to its weights."""
        super().train(mode)
        if self._is_frozen:
            self.model.get_submodule("encoder").eval()
        return self

    def forward_each(self, images: Sequence[Tensor]) -> Tensor:
        """Return logits (B,C,H,W) of images (3,h,w) of several sizes, whose upper left corners are theirs.

        What the encoder makes of an image does not depend on the others, which `forward` would pad it with: maps are
        padded in its place, with their own mirrored cells.
        """
        height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
        if self._frozen is None or len({image.shape for image in images}) == 1:
            return self.forward(torch.stack([pad_to(image, height, width) for image in images]))
        encoded = [self._encode(image[None])[0] for image in images]
        levels = [_joined(level) for level in zip(*encoded, strict=True)]
        return self.classify(self.dropout(self.model.get_submodule("decoder")(levels)), height, width)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B,C,H,W) of images (B,3,H,W), float in [0, 1]."""
        return self.forward_with_features(images)[0]

    def features(self, images: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return descriptors (B,D): the spatial mean of each channel of the deepest encoder map.

        Args:
            images: (B,3,H,W) float in [0, 1].
            valid: (B,H,W) bool, False on padding, which is left out of the mean; None: all valid.
        """
        return self._descriptors(self._encode(images)[0][-1], images, valid)

    def places(self, images: Tensor) -> tuple[Tensor, int]:
        """Return descriptors (B,D,h,w) of places of images (B,3,H,W), and the side of a place in pixels.

        They are the deepest map of the encoder whose cells are at most `_PLACE` pixels a side, computed anew.
        """
        padded = pad_to(images, *self.padded_size(images.shape[-2], images.shape[-1]))
        encoded = self.model.get_submodule("encoder")((padded - self.mean) / self.std)
        levels: list[Tensor] = encoded[0] if isinstance(encoded, tuple) else encoded
        sides = [padded.shape[-2] // level.shape[-2] for level in levels]
        fine = [number for number, side in enumerate(sides) if side <= _PLACE]
        deepest = fine[-1] if fine else 0
        return levels[deepest].float(), sides[deepest]

    def forward_with_features(self, images: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return logits (B,C,H,W) and descriptors (B,D) of a single pass; arguments as in `features`."""
        decoded, descriptors = self.decode(images, valid)
        return self.classify(self.dropout(decoded), images.shape[-2], images.shape[-1]), descriptors

    def encoded(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the encoder's maps (B,D,h,w) of images (B,3,H,W), shallow to deep, and the logits (B,C,H,W).

        Maps are of the padded images; of those that a frozen encoder's decoder does not use, all are zero.
        """
        encoded = self._encode(images)
        decoded: Tensor = self.model.get_submodule("decoder")(*encoded)
        return encoded[0], self.classify(self.dropout(decoded), images.shape[-2], images.shape[-1])

    def decode(self, images: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the decoder's map (B,K,h,w), which the dropout takes, and descriptors (B,D), all before the head.

        Arguments as in `features`.
        """
        encoded = self._encode(images)
        decoded: Tensor = self.model.get_submodule("decoder")(*encoded)
        return decoded, self._descriptors(encoded[0][-1], images, valid)

    def classify(self, decoded: Tensor, height: int, width: int) -> Tensor:
        """Return logits (B,C,height,width) of the decoder's map (B,K,h,w) of images of that size: only the head."""
        logits: Tensor = self.model.get_submodule("segmentation_head")(decoded)
        return logits[..., :height, :width]

    def _encode(self, images: Tensor) -> tuple[list[Tensor], ...]:
        """Return what the decoder takes: maps, shallow to deep, and DPT's prefix tokens or SegNet's positions."""
        padded = pad_to(images, *self.padded_size(images.shape[-2], images.shape[-1]))
        normalised = (padded - self.mean) / self.std
        if self._frozen is not None:
            return (self._frozen.maps(normalised),)
        encoded = self.model.get_submodule("encoder")(normalised)
        return encoded if isinstance(encoded, tuple) else (encoded,)

    def _descriptors(self, deepest: Tensor, images: Tensor, valid: Tensor | None) -> Tensor:
        """Average a map (B,D,h,w) over its cells, each weighted with the share of it that is image."""
        batch, _, height, width = images.shape
        inside = images.new_ones((batch, height, width)) if valid is None else valid.to(images.dtype)
        padded_height, padded_width = self.padded_size(height, width)
        inside = functional.pad(inside, (0, padded_width - width, 0, padded_height - height))
        rows, columns = deepest.shape[-2:]
        share = functional.adaptive_avg_pool2d(inside[:, None], (rows, columns))  # (B,1,h,w)
        return (deepest.float() * share).sum(dim=(2, 3)) / share.sum(dim=(2, 3))

    def _padded_side(self, side: int) -> int:
        return -(-max(side, self.least_side) // self.stride) * self.stride


def _joined(maps: Sequence[Tensor]) -> Tensor:
    """Stack maps (1,D,h,w) of several sizes: (B,D,H,W)."""
    height, width = (max(level.shape[axis] for level in maps) for axis in (2, 3))
    return torch.cat([pad_to(level, height, width) for level in maps])
