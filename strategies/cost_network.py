"""A network that predicts, from an image, how much effort its labelling takes at each pixel.

Paper: Mackowiak et al., "CEREALS", 2018, arXiv 1810.09726: a fully convolutional network with one non-negative
output, trained by the Poisson likelihood on maps of the annotators' clicks, blurred with their mass preserved.

Deviations: a small network without pretrained weights, built like the head of FCN-8s (Long et al. 2014): scores
at three resolutions are added. Targets are divided by their mean, so that the unit of effort does not matter to the
learning rate; the likelihood's minimum scales along. It learns from crops, a bounded sample of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from strategies.base import Batch
from strategies.frames import extents
from strategies.training import Sample, stable_hash

_CROP = 128
"""Side of the largest crops that are learned from, in pixels of what the network sees."""

_CROPS_PER_IMAGE = 4
_CROPS = 1024
"""Crops kept in all, 130 kB each."""


class CostNetwork(nn.Module):
    """Predicts effort per pixel, >= 0, from images (B,3,H,W) in [0, 1] of any size.

    Args:
        width: channels at half resolution; twice and four times as many at a quarter and an eighth.

    Attributes:
        scale: mean effort per pixel of the training data, which the output of `forward` is relative to.
    """

    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.stages = nn.ModuleList(
            _stage(inside, outside) for inside, outside in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.heads = nn.ModuleList(nn.Conv2d(channels, 1, kernel_size=1) for channels in widths)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        """Return the effort relative to `scale`: (B,3,H,W) -> (B,H,W), > 0."""
        size = images.shape[-2:]
        maps, score = images - 0.5, images.new_full((1,), math.log(math.e - 1))  # softplus of which is 1
        for stage, head in zip(self.stages, self.heads, strict=True):
            maps = stage(maps)
            score = score + functional.interpolate(head(maps), size=size, mode="bilinear")  # (B,1,H,W)
        return functional.softplus(score)[:, 0]

    def effort(self, images: Tensor) -> Tensor:
        """Return the effort per pixel in the unit of the training data: (B,3,H,W) -> (B,H,W)."""
        relative: Tensor = self(images)
        return relative * self.scale


@dataclass(frozen=True, eq=False)
class Crop:
    """A part of a labelled image: pixels (3,h,w) uint8, effort (h,w) float32 >= 0, known (h,w) bool."""

    pixels: Tensor
    effort: Tensor
    known: Tensor


def blurred(effort: Tensor, known: Tensor, sigma: float) -> Tensor:
    """Spread effort (h,w) by a Gaussian over the pixels where it is known (h,w); none leaves them, none is lost.

    >>> click = torch.zeros(9, 9)
    >>> click[0, 4] = 2  # at the border
    >>> soft = blurred(click, torch.ones(9, 9, dtype=torch.bool), sigma=1.5)
    >>> round(soft.sum().item(), 5), soft[0, 4] < 1
    (2.0, tensor(True))
    """
    share = _smooth(known.double(), sigma)  # what of a pixel's mass would stay inside
    inside = torch.where(known, effort.double() / share.clamp(min=torch.finfo(torch.float64).tiny), 0)
    return torch.where(known, _smooth(inside, sigma), 0).float()


def poisson_loss(predicted: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Return the mean of λ - y log λ over the pixels that are known, for (B,H,W) each: least where λ = y.

    >>> known = torch.ones(1, 1, 1, dtype=torch.bool)
    >>> losses = [poisson_loss(torch.full((1, 1, 1), rate), torch.full((1, 1, 1), 2.0), known) for rate in (1, 2, 3)]
    >>> bool(min(losses) == losses[1])
    True
    """
    losses = predicted - target * (predicted + 1e-8).log()
    return torch.where(known, losses, 0).sum() / known.sum().clamp(min=1)


def crops(batches: Iterable[Batch], sigma: float) -> list[Crop]:
    """Cut parts out of the images with a cost map, where they are labelled; they follow from the ids alone."""
    sample = Sample[Crop](_CROPS)
    for batch in batches:
        if batch.cost is None:
            continue
        for position, (height, width) in enumerate(extents(batch.valid)):
            inside = (position, slice(height), slice(width))
            known = (batch.valid & batch.labelled)[inside]
            if known.any():
                pixels = (batch.images[position, :, :height, :width].float() * 255).round().clamp(0, 255)
                effort = blurred(torch.where(known, batch.cost[inside], 0), known, sigma)
                whole = Crop(pixels.to(torch.uint8), effort, known)
                for key, part in _parts(repr(batch.ids[position]), whole):
                    sample.offer(key, part)
    return sample.values()


def stacked(parts: Sequence[Crop]) -> tuple[Tensor, Tensor, Tensor]:
    """Pad crops to the largest: images (B,3,h,w) in [0, 1], effort (B,h,w), known (B,h,w), False on padding."""
    height = max(part.known.shape[0] for part in parts)
    width = max(part.known.shape[1] for part in parts)
    images, effort, known = (
        torch.stack([functional.pad(own, (0, width - own.shape[-1], 0, height - own.shape[-2])) for own in values])
        for values in zip(*((part.pixels, part.effort, part.known) for part in parts), strict=True)
    )
    return images.float() / 255, effort, known


def _parts(key: str, whole: Crop) -> Iterator[tuple[str, Crop]]:
    height, width = whole.known.shape
    room_below, room_right = max(height - _CROP, 0), max(width - _CROP, 0)
    for number in range(_CROPS_PER_IMAGE if room_below or room_right else 1):
        name = f"{key}:{number}"
        top, left = stable_hash(f"{name}:top") % (room_below + 1), stable_hash(f"{name}:left") % (room_right + 1)
        box = (slice(top, top + _CROP), slice(left, left + _CROP))
        if whole.known[box].any():
            yield (
                name,
                Crop(whole.pixels[(slice(None), *box)].clone(), whole.effort[box].clone(), whole.known[box].clone()),
            )


def _smooth(values: Tensor, sigma: float) -> Tensor:
    """Convolve (h,w) with a normalised Gaussian, zeros outside."""
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=values.dtype, device=values.device)
    kernel = (-0.5 * (offsets / sigma).square()).exp()
    kernel = kernel / kernel.sum()
    smooth = values[None, None]
    smooth = functional.conv2d(smooth, kernel.view(1, 1, -1, 1), padding=(radius, 0))
    return functional.conv2d(smooth, kernel.view(1, 1, 1, -1), padding=(0, radius))[0, 0]


def _stage(inside: int, outside: int) -> nn.Sequential:
    """Halve the resolution of (B,inside,h,w) and look at 3 x 3 pixels twice."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel_size=3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(outside, outside, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
    )
