"""Encoders that are not trained: their weights and statistics stay, and their maps of an image can be kept.

A frozen encoder computes the same maps of an image in every training and every ranking. Where many networks are trained
on the same images, most of the work is then done once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ml_backend.learning.networks.segmentation import SegmentationNetwork


class MapMemory:
    """Maps of images, by the images' content; any number of networks with the same encoder may share them.

    Args:
        bytes_most: bytes of maps that are kept; beyond, nothing is added.
    """

    def __init__(self, bytes_most: int = 4 << 30) -> None:
        self._left = bytes_most
        self._maps: dict[bytes, tuple[Tensor, ...]] = {}

    def __len__(self) -> int:
        return len(self._maps)

    def get(self, key: bytes) -> tuple[Tensor, ...] | None:
        """Return the maps (1,D,h,w) of an image, from shallow to deep; None if they are not kept."""
        return self._maps.get(key)

    def put(self, key: bytes, maps: tuple[Tensor, ...]) -> None:
        """Keep the maps of an image, where there is room."""
        size = sum(level.numel() * level.element_size() for level in maps)
        if key not in self._maps and size <= self._left:
            self._left -= size
            self._maps[key] = maps


class FrozenEncoder(nn.Module):
    """An encoder in evaluation mode for good, without gradients.

    Args:
        encoder: gives a list of maps, or what only its own decoder understands; the latter is not kept.
        memory: keeps maps; None: they are computed each time. Only on the CPU: elsewhere computing them is faster
            than looking them up.
    """

    def __init__(self, encoder: nn.Module, memory: MapMemory | None = None) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self._memory = memory
        self.eval()

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stay in evaluation mode: statistics of batch normalisation belong to the weights."""
        del mode
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor] | tuple[list[Tensor], ...]:
        """Return the encoder's maps of images (B,3,H,W)."""
        with torch.no_grad():
            if self._memory is None or images.device.type != "cpu":
                computed: list[Tensor] | tuple[list[Tensor], ...] = self.encoder(images)
                return computed
            return self._remembered(images, self._memory)

    def _remembered(self, images: Tensor, memory: MapMemory) -> list[Tensor] | tuple[list[Tensor], ...]:
        keys = [_key(image) for image in images]
        known = [memory.get(key) for key in keys]
        missing = [position for position, maps in enumerate(known) if maps is None]
        if missing:
            # Alone, an image is computed by another algorithm, whose last digits differ; with a copy of it, it is not.
            computed = self.encoder(images[missing if len(missing) > 1 else missing * 2])
            if not isinstance(computed, list):
                whole: tuple[list[Tensor], ...] = self.encoder(images)
                return whole
            for row, position in enumerate(missing):
                maps = tuple(level[row : row + 1].clone() for level in computed)
                memory.put(keys[position], maps)
                known[position] = maps
        return _stacked([maps for maps in known if maps is not None])


def freeze_encoder(network: SegmentationNetwork, memory: MapMemory | None = None) -> SegmentationNetwork:
    """Freeze a network's encoder; return the same network."""
    encoder = network.model.get_submodule("encoder")
    if not isinstance(encoder, FrozenEncoder):
        network.model.add_module("encoder", FrozenEncoder(encoder, memory))
    return network


def _key(image: Tensor) -> bytes:
    values = image.contiguous()
    return repr(tuple(values.shape)).encode() + hashlib.blake2b(values.numpy().tobytes(), digest_size=16).digest()


def _stacked(maps: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.cat(level) for level in zip(*maps, strict=True)]
