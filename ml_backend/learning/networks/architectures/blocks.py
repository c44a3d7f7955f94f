"""What the architectures share: the three parts of a model, convolutions, heads, widths."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class EncoderDecoder(nn.Module):
    """The three parts that `SegmentationNetwork` runs in turn, under smp's names.

    Args:
        encoder: images (B,3,H,W) -> maps from shallow to deep, or a tuple of them and of what else the decoder takes;
            `output_stride` says what sides must be multiples of.
        decoder: what the encoder gives -> map (B,K,h,w).
        segmentation_head: that map -> logits (B,C,H,W).
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, segmentation_head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.segmentation_head = encoder, decoder, segmentation_head


def scaled(channels: int, width: float) -> int:
    """Return a number of channels times the width multiplier, at least 1.

    Raises:
        ValueError: the width is not a number above 0 and up to 4.

    >>> scaled(64, 0.25), scaled(64, 0.001)
    (16, 1)
    """
    if type(width) not in (int, float) or not 0 < width <= 4:  # True is no number, and NaN is not above 0
        raise ValueError(f"width must be a number above 0 and at most 4, not {width!r}")
    return max(1, round(channels * width))


def convolution(taken: int, made: int, size: int = 3, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution with padding that keeps the size (of stride 1), batch normalisation, ReLU."""
    padding = dilation * (size // 2)
    return nn.Sequential(
        nn.Conv2d(taken, made, size, stride=stride, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(made),
        nn.ReLU(inplace=True),
    )


def score(channels: int, classes: int, *, stride: int) -> nn.Sequential:
    """Head: a 1x1 convolution (B,K,h,w) -> (B,C,h,w), and bilinear upsampling by the stride."""
    upsampling = nn.Upsample(scale_factor=stride, mode="bilinear") if stride > 1 else nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, classes, 1), upsampling)


def enlarged(small: Tensor, like: Tensor) -> Tensor:
    """Upsample a map bilinearly to the size of another."""
    return functional.interpolate(small, size=like.shape[-2:], mode="bilinear")


def initialise(network: nn.Module) -> None:
    """Draw the weights of convolutions as He et al. 2015 (arXiv 1502.01852) do for ReLU."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
