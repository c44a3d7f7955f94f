"""Pixel-wise uncertainty as pure functions, and its reduction to one number per image.

Pixel maps take probabilities (M,B,C,H,W), non-negative with sum 1 over C, in any floating dtype, and return
(B,H,W) in [0, 1], higher = more uncertain; float64 for float64 input, float32 otherwise. They are computed on
the mean over the M members, without gradients. Nothing is rescaled per image, so values compare between
images and projects.

Two properties that rankings rely on:

- *Lean*: the classes are visited one at a time, so that besides the input there are a few maps of (B,H,W),
  never a copy of (M,B,C,H,W). The maps are accumulated in float64: half-precision input loses nothing more.
- *Exact*: images are averaged in fixed point. A sum of integers does not depend on the order of summation,
  so an image scores the same to the last bit in a batch of any size and with any padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from strategies.checks import check_floating, check_mask, check_shape

_FIXED_POINT = 2.0**30
"""Steps per unit when an image is averaged: exact for float32 down to 1e-9, and 2^33 pixels fit an int64."""


def least_confidence(probabilities: Tensor) -> Tensor:
    """Return 1 - p1, where p1 is the largest class probability (survey Eq. 1): (M,B,C,H,W) -> (B,H,W).

    Zero for a one-hot distribution, 1 - 1/C for a uniform one.

    >>> least_confidence(torch.tensor([0.75, 0.25, 0.0]).view(1, 1, 3, 1, 1)).item()  # 1 - 0.75
    0.25
    """
    first = _blank_map(probabilities)
    for mean in _class_means(probabilities):
        torch.maximum(first, mean, out=first)
    return _finished(1 - first, probabilities)


def margin(probabilities: Tensor) -> Tensor:
    """Return 1 - (p1 - p2) of the two largest class probabilities (survey Eq. 2): (M,B,C,H,W) -> (B,H,W).

    Zero for a one-hot distribution, 1 wherever two classes share the first place.

    >>> margin(torch.tensor([0.75, 0.25, 0.0]).view(1, 1, 3, 1, 1)).item()  # 1 - (0.75 - 0.25)
    0.5
    """
    first, second = _blank_map(probabilities), _blank_map(probabilities)
    for mean in _class_means(probabilities):
        torch.maximum(second, torch.minimum(first, mean), out=second)
        torch.maximum(first, mean, out=first)
    return _finished(1 - (first - second), probabilities)


def entropy(probabilities: Tensor) -> Tensor:
    """Return -Σ p log p / log C over the classes (survey Eq. 3): (M,B,C,H,W) -> (B,H,W).

    Zero for a one-hot distribution (0 log 0 = 0), 1 for a uniform one; zero when there is only one class.

    >>> two_of_four = torch.tensor([0.5, 0.5, 0.0, 0.0])  # log 2 / log 4
    >>> entropy(two_of_four.view(1, 1, 4, 1, 1)).item()
    0.5
    """
    total = _blank_map(probabilities)
    for mean in _class_means(probabilities):
        total += torch.special.entr(mean, out=mean)
    return _finished(total / math.log(max(probabilities.shape[2], 2)), probabilities)


def image_information(pixels: Tensor, *, valid: Tensor, labelled: Tensor) -> Tensor:
    """Average a pixel map (B,H,W) over the pixels that are valid and that nobody has labelled: (B) float64.

    An image labelled in part is judged by its unlabelled pixels alone: what a person has drawn teaches nothing
    when it is drawn again. The mean is not scaled by their share: how much labelling they cost is the
    business of strategies that weigh cost. An image labelled in full has nothing left to teach: 0.

    >>> pixels = torch.tensor([[[0.5, 1.0, 0.25]]])
    >>> valid = torch.tensor([[[True, True, False]]])  # the last column is padding
    >>> labelled = torch.tensor([[[True, False, False]]])  # the first column is drawn already
    >>> image_information(pixels, valid=valid, labelled=labelled)
    tensor([1.], dtype=torch.float64)
    """
    check_mask("valid", valid)
    check_mask("labelled", labelled)
    return image_mean(pixels, valid & ~labelled)


def image_mean(pixels: Tensor, where: Tensor) -> Tensor:
    """Average a pixel map (B,H,W) of values about [0, 1] per image where the mask (B,H,W) is True: (B) float64.

    Zero for an image without such a pixel. What the map holds elsewhere, NaN included, changes nothing.

    Raises:
        ValueError: shapes differ, or a value that counts is not finite.
    """
    check_shape("pixels", pixels, B=where.shape[0], H=None, W=None)
    check_shape("where", where, **dict(zip("BHW", pixels.shape, strict=True)))
    check_floating("pixels", pixels)
    counted = torch.where(where, pixels, 0)
    if not counted.isfinite().all():
        raise ValueError("pixels: expected finite values, received NaN or infinity")
    total = (counted.double() * _FIXED_POINT).round().to(torch.int64).sum(dim=(1, 2))  # (B)
    count = where.sum(dim=(1, 2)).clamp(min=1)  # (B)
    return total.double() / count / _FIXED_POINT


def area_shares(probabilities: Tensor, valid: Tensor) -> Tensor:
    """Return the share of the valid pixels that each class is predicted on: (M,B,C,H,W) -> (B,C) float32.

    A pixel belongs to the class with the largest mean probability, to the first of them when they tie.

    >>> four_pixels = torch.tensor([[0.9, 0.8, 0.5, 0.2], [0.1, 0.2, 0.5, 0.8]]).view(1, 1, 2, 1, 4)
    >>> area_shares(four_pixels, torch.ones(1, 1, 4, dtype=torch.bool))
    tensor([[0.7500, 0.2500]])
    """
    best = _blank_map(probabilities)
    _, images, classes, _, _ = probabilities.shape
    predicted = torch.zeros_like(best, dtype=torch.int64)  # (B,H,W)
    for index, mean in enumerate(_class_means(probabilities)):
        predicted.masked_fill_(mean > best, index)
        torch.maximum(best, mean, out=best)
    predicted += torch.arange(images, device=predicted.device).view(-1, 1, 1) * classes  # image and class in one
    counts = torch.bincount(predicted[valid], minlength=images * classes).view(images, classes)  # (B,C)
    return counts.float() / counts.sum(dim=1, keepdim=True).clamp(min=1)


def _blank_map(probabilities: Tensor) -> Tensor:
    """Check that the input is floating (M,B,C,H,W) and return zeros of (B,H,W) float64 to accumulate in."""
    images = probabilities.shape[1] if probabilities.ndim > 1 else None
    check_shape("probabilities", probabilities, M=None, B=images, C=None, H=None, W=None)
    check_floating("probabilities", probabilities)
    return torch.zeros_like(probabilities[0, :, 0], dtype=torch.float64)


def _class_means(probabilities: Tensor) -> Iterator[Tensor]:
    """Yield the mean over the members of one class after the other: C maps of (B,H,W) float64, to be used up."""
    members = probabilities.shape[0]
    for plane in probabilities.detach().unbind(dim=2):  # (M,B,H,W)
        total = plane[0].to(torch.float64, copy=True)  # (B,H,W)
        for member in plane[1:]:
            total += member
        yield total.div_(members)


def _finished(pixels: Tensor, probabilities: Tensor) -> Tensor:
    """Bring a float64 map to [0, 1], which rounded input can miss by a trifle, and to its final dtype."""
    dtype = torch.float64 if probabilities.dtype == torch.float64 else torch.float32
    return pixels.clamp(0, 1).to(dtype)
