"""SegNet: a decoder that puts values back to where the encoder's max-pooling took them from.

Paper: Badrinarayanan, Kendall and Cipolla, "SegNet: a deep convolutional encoder-decoder architecture for image
segmentation", 2017 (arXiv 1511.00561). With dropout and several passes it is Bayesian SegNet (Kendall et al., 2017,
arXiv 1511.02680).

Deviations: the encoder is not pretrained; dropout is that before the head alone, where Bayesian SegNet has it after
the deeper half of the stages.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ml_backend.learning.networks.architectures import vgg
from ml_backend.learning.networks.architectures.blocks import EncoderDecoder, convolution, initialise, scaled


def of_vgg16(classes: int, *, width: float = 1.0) -> EncoderDecoder:
    """Build SegNet on the convolutions of VGG-16; `width` multiplies all channels (1: 29 million parameters)."""
    channels = scaled(vgg.LAYERS[0][0], width)
    return EncoderDecoder(PoolingEncoder(width), UnpoolingDecoder(width), nn.Conv2d(channels, classes, 3, padding=1))


class PoolingEncoder(nn.Module):
    """VGG-16's convolutions, each stage followed by a max-pooling that notes where its maxima were."""

    output_stride = 32

    def __init__(self, width: float) -> None:
        super().__init__()
        self.stages = vgg.stages(width)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        initialise(self)

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the pooled maps of strides 2 to 32, and the position (int64, in its plane) of each of their values.

        Positions are handed over, not kept here: any number of threads may run the same network.
        """
        maps, positions, current = list[Tensor](), list[Tensor](), images
        for stage in self.stages:
            current, position = self.pool(stage(current))
            maps.append(current)
            positions.append(position)
        return maps, positions


class UnpoolingDecoder(nn.Module):
    """The encoder's mirror image without its first convolution, which is the head."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.unpool = nn.MaxUnpool2d(2)
        self.stages = nn.ModuleList(_mirrored(stage, width) for stage in reversed(range(len(vgg.LAYERS))))
        initialise(self)

    def forward(self, maps: Sequence[Tensor], positions: Sequence[Tensor]) -> Tensor:
        """Return (B,K,H,W), K the channels of the first stage; only the deepest of the maps is used."""
        current = maps[-1]
        for stage, position in zip(self.stages, reversed(positions), strict=True):
            current = stage(self.unpool(current, position))
        return current


def _mirrored(index: int, width: float) -> nn.Sequential:
    """Convolutions of a stage, which end with the channels of the stage before it."""
    channels, count = vgg.LAYERS[index]
    taken = scaled(channels, width)
    same = [convolution(taken, taken) for _ in range(count - 1)]
    return nn.Sequential(*same, *([convolution(taken, scaled(vgg.LAYERS[index - 1][0], width))] if index else []))
