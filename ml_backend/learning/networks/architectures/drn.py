"""Dilated residual network: what a classifier would subsample stays at stride 8, and convolutions are dilated.

Paper: Yu, Koltun and Funkhouser, "Dilated residual networks", 2017 (arXiv 1705.09914). VAAL (Sinha et al., 2019, arXiv
1904.00370) segments with such a network. The encoder is the variant D-22, which the authors published with their code:
that of the paper's section 4 against gridding (C), with plain convolutions in the place of the first residual blocks.
No max-pooling, and at the end two levels without residual connections whose dilation falls from 2 to 1.

Deviations: not pretrained; the scores are upsampled bilinearly, and the dropout before them is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ml_backend.learning.networks.architectures.blocks import EncoderDecoder, convolution, initialise, scaled, score

_PLAIN = ((16, 7, 1), (16, 3, 1), (32, 3, 2))
"""Channels, kernel and stride of levels 1 and 2, behind the first convolution."""
_RESIDUAL = ((64, 2, 1), (128, 2, 1), (256, 1, 2), (512, 1, 4))
"""Channels, stride and dilation of levels 3 to 6, of two blocks each."""
_DEGRIDDING = ((512, 2), (512, 1))
"""Channels and dilation of levels 7 and 8."""


def of_drn22(classes: int, *, width: float = 1.0) -> EncoderDecoder:
    """Build it on DRN-D-22; `width` multiplies all channels (1: 16 million parameters)."""
    channels = scaled(_DEGRIDDING[-1][0], width)
    return EncoderDecoder(Drn22(width), Deepest(), score(channels, classes, stride=Drn22.output_stride))


class Drn22(nn.Module):
    """DRN-D-22 without its classifier."""

    output_stride = 8

    def __init__(self, width: float) -> None:
        super().__init__()
        levels, taken = list[nn.Module](), 3
        for channels, size, stride in _PLAIN:
            levels.append(convolution(taken, made := scaled(channels, width), size, stride=stride))
            taken = made
        for channels, stride, dilation in _RESIDUAL:
            made = scaled(channels, width)
            first = Residual(taken, made, stride=stride, dilation=dilation)
            levels.append(nn.Sequential(first, Residual(made, made, stride=1, dilation=dilation)))
            taken = made
        for channels, dilation in _DEGRIDDING:
            levels.append(convolution(taken, made := scaled(channels, width), dilation=dilation))
            taken = made
        self.levels = nn.ModuleList(levels)
        initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the map of every level, shallow to deep: strides 1, 1, 2, 4, and 8 five times."""
        maps = [images]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps[1:]


class Residual(nn.Module):
    """Two 3x3 convolutions, added to what came in; a 1x1 convolution brings that to their size and channels."""

    def __init__(self, taken: int, made: int, *, stride: int, dilation: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            convolution(taken, made, stride=stride, dilation=dilation),
            nn.Conv2d(made, made, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(made),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or taken != made:
            projection = nn.Conv2d(taken, made, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(made))

    def forward(self, taken: Tensor) -> Tensor:
        """Return (B,made,h,w)."""
        return torch.relu(self.shortcut(taken) + self.residual(taken))


class Deepest(nn.Module):
    """No decoder: the deepest map is scored."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the deepest of the maps."""
        return maps[-1]
