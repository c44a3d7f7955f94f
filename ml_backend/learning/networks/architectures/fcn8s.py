"""FCN-8s: class scores of three strides, added and upsampled.

Paper: Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", 2015 (arXiv 1411.4038).
CEREALS (Mackowiak et al., 2018, arXiv 1810.09726) uses it with a quarter of the channels: encoder `fcn-vgg16`, option
`width` 0.25.

A score is a 1x1 convolution. Bilinear upsampling and a sum of scores change places with it: the sum of the scores of
strides 8, 16 and 32 is a *single* 1x1 convolution of these maps, upsampled to stride 8 and concatenated. So the
decoder does that, the head scores, and the dropout between them acts where the paper's does: before the scores.

Deviations:

- upsampling is bilinear and fixed; in the paper that between strides is learned, and starts as bilinear
- convolutions keep the size, in the place of a border of 100 pixels that is cropped at the end
- batch normalisation, with weights drawn after He et al.; the paper starts from VGG-16 trained on ImageNet, and from
  scores of zero
- the only dropout is that of the head: the paper drops half of the activations after fc6 and fc7 each
- over other encoders there are no fc6 and fc7: the deepest map is scored as it is, as the paper does with GoogLeNet
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ml_backend.learning.networks.architectures import vgg
from ml_backend.learning.networks.architectures.blocks import (
    EncoderDecoder,
    convolution,
    enlarged,
    initialise,
    scaled,
    score,
)

_STRIDES = (8, 16, 32)


def over(encoder: nn.Module, classes: int) -> EncoderDecoder:
    """Build FCN-8s over any encoder with maps of strides 8, 16 and 32."""
    channels: Sequence[int] = encoder.out_channels  # type: ignore[assignment]
    return EncoderDecoder(encoder, Fusion(), score(sum(channels[-len(_STRIDES) :]), classes, stride=_STRIDES[0]))


def of_vgg16(classes: int, *, width: float = 1.0) -> EncoderDecoder:
    """Build FCN-8s with the paper's body; `width` multiplies all channels (1: 134 million parameters)."""
    return over(Vgg16(width), classes)


class Vgg16(nn.Module):
    """VGG-16 with the fully connected layers fc6 and fc7 as convolutions of 7x7 and 1x1."""

    output_stride = 32

    def __init__(self, width: float) -> None:
        super().__init__()
        self.stages = vgg.stages(width)
        self.pool = nn.MaxPool2d(2)
        last, full = scaled(vgg.LAYERS[-1][0], width), scaled(4096, width)
        self.fc6, self.fc7 = convolution(last, full, 7), convolution(full, full, 1)
        self.out_channels = [3, *(scaled(channels, width) for channels, _ in vgg.LAYERS[:-1]), full]
        initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the images (B,3,H,W), the maps after pooling 1 to 4 (strides 2 to 16), and fc7 (stride 32)."""
        maps = [images]
        for stage in self.stages:
            maps.append(self.pool(stage(maps[-1])))
        return [*maps[:-1], self.fc7(self.fc6(maps[-1]))]


class Fusion(nn.Module):
    """Brings the maps of strides 8, 16 and 32 to stride 8 as the scores are in the paper: by two, and by two again."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B,K,H/8,W/8): the channels of the three maps, K in all, the shallowest first."""
        fused, *skips = reversed(maps[-len(_STRIDES) :])
        for skip in skips:
            fused = torch.cat([skip, enlarged(fused, skip)], dim=1)
        return fused
