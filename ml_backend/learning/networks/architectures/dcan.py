"""A network after DCAN: maps of several levels, decoded twice, for objects and for their contours.

Papers: Chen et al., "DCAN: deep contour-aware networks for accurate gland segmentation", 2016 (arXiv 1604.02677); Yang
et al., "Suggestive annotation", 2017 (arXiv 1706.04737), whose network has residual bottlenecks and batch normalisation
in the place of DCAN's plain convolutions, as here.

Deviations:

- Contours have no labels of their own. In the papers a second loss teaches the contour branch what a contour is; here
  the only loss is that of the classes. What the branch is given makes it a contour branch: of each map only what
  differs from its surroundings, which is nothing inside of an even area.
- The papers fuse two maps of probabilities by thresholds: object, and not contour. The same, smoothly and before the
  scores: object features are multiplied by 1 - p, with p in (0, 1) the contour branch's own map. The head reads both
  branches, so that any number of classes can be told apart, the contour itself among them.
- Levels are those of strides 4 to 32 of any encoder, upsampled bilinearly to stride 4; there are no auxiliary
  classifiers on single levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ml_backend.learning.networks.architectures.blocks import (
    EncoderDecoder,
    convolution,
    enlarged,
    initialise,
    score,
)

_STRIDES = (4, 8, 16, 32)


def over(encoder: nn.Module, classes: int, *, decoder_channels: int = 32) -> EncoderDecoder:
    """Build it over any encoder with maps of strides 4 to 32; each branch has `decoder_channels` per level."""
    if type(decoder_channels) is not int or not 2 <= decoder_channels <= 1024:
        raise ValueError(f"decoder_channels must be a whole number from 2 to 1024, not {decoder_channels!r}")
    channels: Sequence[int] = encoder.out_channels  # type: ignore[assignment]
    decoder = TwoBranches(channels[-len(_STRIDES) :], decoder_channels)
    return EncoderDecoder(encoder, decoder, score(2 * decoder.channels, classes, stride=_STRIDES[0]))


class TwoBranches(nn.Module):
    """Object features, suppressed where the contour branch finds contours, and contour features.

    Args:
        taken: channels of the encoder's maps.
        channels: K/2 channels of each branch are twice as many.
    """

    def __init__(self, taken: Sequence[int], channels: int) -> None:
        super().__init__()
        self.channels = 2 * channels
        self.objects, self.contours = Branch(taken, channels), Branch(taken, channels)
        self.contour = nn.Conv2d(self.channels, 1, 1)
        initialise(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B,K,H/4,W/4): features of objects, then those of contours."""
        levels = maps[-len(_STRIDES) :]
        contours = self.contours([differences(level) for level in levels])
        inside = 1 - torch.sigmoid(self.contour(contours))  # (B,1,H/4,W/4)
        return torch.cat([self.objects(levels) * inside, contours], dim=1)


class Branch(nn.Module):
    """A residual bottleneck per level; all levels at the size of the first, fused."""

    def __init__(self, taken: Sequence[int], channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(convolution(width, channels, 1), Bottleneck(channels)) for width in taken
        )
        self.fuse = convolution(len(taken) * channels, 2 * channels, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B,2·channels,h,w), of the size of the first map."""
        decoded = [level(current) for level, current in zip(self.levels, maps, strict=True)]
        fused: Tensor = self.fuse(torch.cat([enlarged(current, decoded[0]) for current in decoded], dim=1))
        return fused


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with half of the channels between them, added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.residual = nn.Sequential(
            convolution(channels, inner, 1),
            convolution(inner, inner),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, taken: Tensor) -> Tensor:
        """Return (B,channels,h,w)."""
        return torch.relu(taken + self.residual(taken))


def differences(maps: Tensor) -> Tensor:
    """Return maps (B,K,h,w) minus their mean over 3x3 cells: zero where nothing changes, at the borders, too."""
    return maps - functional.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)
