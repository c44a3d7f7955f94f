"""Encoders that are not trained: their weights and statistics stay, and their maps of an image can be kept.

A frozen encoder computes the same maps of an image in every training and every ranking, so most of the work is done
once. Maps are kept in half precision, and what was just computed is rounded likewise: whether maps were kept changes
no digit of what follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ml_backend.learning.networks.encoder_maps import KeptMaps, MapStore


class FrozenEncoder:
    """The maps of an encoder in evaluation mode, without gradients.

    Args:
        encoder: gives a list of maps (B,D,h,w), from shallow to deep.
        used: which of the maps the network reads; of the others only the shapes are kept.
        store: keeps maps; None: they are computed each time. Only on the CPU: a GPU computes them faster than they
            are looked up.
    """

    def __init__(self, encoder: nn.Module, used: Sequence[bool], store: MapStore | None = None) -> None:
        self._encoder, self._used, self._store = encoder, tuple(used), store
        self._identity = _identity(encoder, self._used)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the maps of normalised images (B,3,H,W); of those that are not used, zeros."""
        with torch.no_grad():
            if images.device.type != "cpu":
                computed: list[Tensor] = self._encoder(images)
                return computed
            each = [self._of(image) for image in images]
        return [_stacked(level) for level in zip(*each, strict=True)]

    def _of(self, image: Tensor) -> KeptMaps:
        """Return the maps of one image (3,H,W): alone, since in a batch its last digits would differ."""
        key = self._key(image)
        known = None if self._store is None else self._store.get(key)
        if known is not None:
            return known
        levels: list[Tensor] = self._encoder(image[None])
        half = [level[0].half() if used else None for level, used in zip(levels, self._used, strict=True)]
        if any(level is not None and not level.isfinite().all() for level in half):
            return tuple(level[0] for level in levels)  # beyond half precision
        maps = tuple(tuple(level.shape[1:]) if one is None else one for level, one in zip(levels, half, strict=True))
        if self._store is not None:
            self._store.put(key, maps)
        return maps

    def _key(self, image: Tensor) -> str:
        content = hashlib.blake2b(self._identity, digest_size=20)
        content.update(repr(tuple(image.shape)).encode())
        content.update(image.contiguous().numpy().tobytes())
        return content.hexdigest()


def used_maps(encoder: nn.Module, decoder: nn.Module, images: Tensor) -> list[bool] | None:
    """Tell which maps of an encoder a decoder computes with, and the deepest; None where there is not a list of maps.

    Both must be in evaluation mode.

    Args:
        images: (1,3,H,W), of a size that the encoder takes.
    """
    with torch.no_grad():
        maps = encoder(images)
    if not isinstance(maps, list):
        return None
    with torch.enable_grad():
        leaves = [level.detach().requires_grad_() for level in maps]
        decoded = decoder([leaf * 1 for leaf in leaves]).sum()  # some decoders compute in place
        gradients = torch.autograd.grad(decoded, leaves, allow_unused=True)
    return [*(gradient is not None for gradient in gradients[:-1]), True]


def _stacked(level: Sequence[Tensor | tuple[int, ...]]) -> Tensor:
    first = level[0]
    if isinstance(first, tuple):
        return torch.zeros(()).expand(len(level), *first)
    return torch.stack([one for one in level if isinstance(one, Tensor)]).float()


def _identity(encoder: nn.Module, used: Sequence[bool]) -> bytes:
    """Return what maps depend on beside the image: layers, weights, statistics, and which maps are kept."""
    content = hashlib.blake2b(f"{encoder}{tuple(used)}".encode(), digest_size=20)
    for name, tensor in encoder.state_dict().items():
        content.update(name.encode())
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    return content.digest()
