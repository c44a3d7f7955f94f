"""The network that the rest of nextmask sees: images in, logits and descriptors out, of any image size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ml_backend.learning.networks.geometry import pad_to
from ml_backend.learning.networks.weights import Normalisation


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
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(1, 3, 1, 1))

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size that images of this size are padded to inside."""
        return self._padded_side(height), self._padded_side(width)

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

    def forward_with_features(self, images: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return logits (B,C,H,W) and descriptors (B,D) of a single pass; arguments as in `features`."""
        decoded, descriptors = self.decode(images, valid)
        return self.classify(self.dropout(decoded), images.shape[-2], images.shape[-1]), descriptors

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
        encoded = self.model.get_submodule("encoder")((padded - self.mean) / self.std)
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
