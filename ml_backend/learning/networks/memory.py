"""How much memory a forward pass needs, measured on the network itself: it depends on architecture and encoder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ml_backend.learning.networks.segmentation import SegmentationNetwork

_SIDE = 128
_COPIES = 3
"""What a layer reads and writes, and as much again for concatenations and for convolutions that rearrange it."""


def working_bytes(network: SegmentationNetwork) -> float:
    """Estimate the bytes that a pass without gradients holds at its peak, per pixel of the padded images.

    The encoder's maps wait for the decoder while the largest layer works. Runs a small image through the network,
    which must be in evaluation mode. Encoders that compare every pixel with every other need more on large images.
    """
    layers = [module for module in network.modules() if not any(True for _ in module.children())]
    largest = kept = 0

    def of_layer(_: nn.Module, given: Any, made: Any) -> None:
        nonlocal largest
        largest = max(largest, _bytes((given, made)))

    def of_encoder(_: nn.Module, given: Any, made: Any) -> None:
        nonlocal kept
        kept = _bytes((given, made))

    hooks = [layer.register_forward_hook(of_layer) for layer in layers]
    hooks.append(network.model.get_submodule("encoder").register_forward_hook(of_encoder))
    height, width = network.padded_size(_SIDE, _SIDE)
    try:
        with torch.no_grad(), network.computing_anew():
            network(torch.zeros(1, 3, height, width, device=network.mean.device))
    finally:
        for hook in hooks:
            hook.remove()
    return (kept + _COPIES * largest) / (height * width)


def _bytes(value: Any) -> int:
    """Add up the tensors in nested sequences."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, Iterable) and not isinstance(value, str) else 0
