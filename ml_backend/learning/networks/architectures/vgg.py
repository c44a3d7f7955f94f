"""The convolutions of VGG-16 (Simonyan and Zisserman, "Very deep convolutional networks", 2015, arXiv 1409.1556).

Deviation: batch normalisation follows each convolution, since nothing is pretrained.
"""

from __future__ import annotations

from torch import nn

from ml_backend.learning.networks.architectures.blocks import convolution, scaled

LAYERS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each stage; a max-pooling of two by two follows each."""


def stages(width: float) -> nn.ModuleList:
    """Return the five stages without the poolings; channels are multiplied by `width`."""
    made, taken = nn.ModuleList(), 3
    for channels, count in LAYERS:
        own = scaled(channels, width)
        made.append(nn.Sequential(*(convolution(taken if index == 0 else own, own) for index in range(count))))
        taken = own
    return made
