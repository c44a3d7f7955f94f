"""Pixel-wise uncertainty as pure functions, and its reduction to one number per image.

Pixel maps take probabilities (M,B,C,H,W), non-negative with sum 1 over C, in any floating dtype, and return
(B,H,W) in [0, 1], higher = more uncertain; float64 for float64 input, float32 otherwise. They are computed on
the mean over the M members unless stated otherwise, without gradients. Nothing is rescaled per image, so values
compare between images and projects.

Two properties that rankings rely on:

- *Lean*: the classes are visited one at a time, or the rows a tile at a time, so that besides the input there are
  a few maps of (B,H,W), never a copy of (M,B,C,H,W). Means over the members are accumulated in float64; what is
  of the single members is worked out in single precision at least, good to 1e-6 (`strategies.committee`).
- *Exact*: images are averaged in fixed point. A sum of integers does not depend on the order of summation,
  so an image scores the same to the last bit in a batch of any size and with any padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from strategies.checks import check_floating, check_mask, check_shape
from strategies.committee import CommitteeSums, row_tiles, surprise

_FIXED_POINT = 2.0**30
"""Steps per unit when an image is averaged: exact for float32 down to 1e-9, and 2^33 pixels fit an int64."""


def least_confidence(probabilities: Tensor) -> Tensor:
    """Return 1 - p1, where p1 is the largest class probability (survey Eq. 1): (M,B,C,H,W) -> (B,H,W).

    Zero for a one-hot distribution, 1 - 1/C for a uniform distribution.

    >>> least_confidence(torch.tensor([0.75, 0.25, 0.0]).view(1, 1, 3, 1, 1)).item()  # 1 - 0.75
    0.25
    """
    blank = _blank_map(probabilities)
    return _finished(_least_confidence(_class_means(probabilities), blank), probabilities)


def margin(probabilities: Tensor) -> Tensor:
    """Return 1 - (p1 - p2) of the two largest class probabilities (survey Eq. 2): (M,B,C,H,W) -> (B,H,W).

    Zero for a one-hot distribution, 1 wherever two classes share the first place.

    >>> margin(torch.tensor([0.75, 0.25, 0.0]).view(1, 1, 3, 1, 1)).item()  # 1 - (0.75 - 0.25)
    0.5
    """
    blank = _blank_map(probabilities)
    return _finished(_margin(_class_means(probabilities), blank), probabilities)


def entropy(probabilities: Tensor) -> Tensor:
    """Return -Σ p log p / log C over the classes (survey Eq. 3): (M,B,C,H,W) -> (B,H,W).

    Zero for a one-hot distribution (0 log 0 = 0), 1 for a uniform distribution; zero when there is only one class.

    >>> two_of_four = torch.tensor([0.5, 0.5, 0.0, 0.0])  # log 2 / log 4
    >>> entropy(two_of_four.view(1, 1, 4, 1, 1)).item()
    0.5
    """
    blank = _blank_map(probabilities)
    return _finished(_entropy(_class_means(probabilities), blank), probabilities)


def vote_entropy(probabilities: Tensor) -> Tensor:
    """Return -Σ V/M log V/M / log min(M, C), V the members' votes for a class (survey Eq. 4): -> (B,H,W).

    A member votes for its most probable class, for the first of them when they tie. Zero where all agree, 1 where
    the votes are spread as evenly as they can; zero for a single member or class.

    >>> votes = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]).view(2, 1, 3, 1, 1)  # one each for two classes
    >>> vote_entropy(votes).item()  # log 2 / log min(2, 3)
    1.0
    """
    return pixel_maps(probabilities, ["vote_entropy"])["vote_entropy"]


def bald(probabilities: Tensor) -> Tensor:
    """Return the entropy of the mean minus the mean of the members' entropies, / log C: (M,B,C,H,W) -> (B,H,W).

    The information that the label would give about the members. Zero where they say the same, however unsure;
    1 where each is sure of another class and M = C.

    >>> opposed = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(2, 1, 2, 1, 1)  # log 2 - 0
    >>> unsure = torch.full((2, 1, 2, 1, 1), 0.5)  # log 2 - log 2
    >>> bald(opposed).item(), bald(unsure).item()
    (1.0, 0.0)
    """
    return pixel_maps(probabilities, ["bald"])["bald"]


def std(probabilities: Tensor) -> Tensor:
    """Return the members' standard deviation, the mean of it over the classes: (M,B,C,H,W) -> (B,H,W) in [0, 0.5].

    That of the population: divided by M, not M - 1, so that a single member gives 0. With two classes both deviate
    alike, and this is the deviation of the foreground's probability.

    >>> std(torch.tensor([[0.75, 0.25], [0.25, 0.75]]).view(2, 1, 2, 1, 1)).item()  # each 0.25 off the mean of 0.5
    0.25
    """
    return pixel_maps(probabilities, ["std"])["std"]


def var(probabilities: Tensor) -> Tensor:
    """Return the members' variance, the mean of it over the classes: (M,B,C,H,W) -> (B,H,W) in [0, 0.25].

    That of the population, like `std`, whose square it is where all classes deviate alike.

    >>> var(torch.tensor([[0.75, 0.25], [0.25, 0.75]]).view(2, 1, 2, 1, 1)).item()
    0.0625
    """
    return pixel_maps(probabilities, ["var"])["var"]


MEASURES: dict[str, Callable[[Tensor], Tensor]] = {
    "least_confidence": least_confidence,
    "margin": margin,
    "entropy": entropy,
    "vote_entropy": vote_entropy,
    "bald": bald,
    "std": std,
    "var": var,
}
"""Every pixel map, by name."""

COMMITTEE_MEASURES = frozenset({"vote_entropy", "bald", "std", "var"})
"""Those that say nothing of a single member, or of members that are all alike."""


def pixel_maps(probabilities: Tensor, measures: Iterable[str] = tuple(MEASURES)) -> dict[str, Tensor]:
    """Return several pixel maps at once, reading the probabilities once: (M,B,C,H,W) -> (B,H,W) by name.

    The rows are visited a tile at a time and the members of a tile one at a time, so that what they share
    (the mean, the sums over members) is computed once and stays in the processor's cache.

    >>> maps = pixel_maps(torch.tensor([0.75, 0.25, 0.0]).view(1, 1, 3, 1, 1), ["margin", "least_confidence"])
    >>> {name: pixels.item() for name, pixels in maps.items()}
    {'margin': 0.5, 'least_confidence': 0.25}

    Raises:
        ValueError: no such measure, or the probabilities are of another shape.
    """
    names = tuple(measures)
    unknown = sorted(set(names) - set(MEASURES))
    if unknown:
        raise ValueError(f"unknown measure {unknown[0]!r}; available: {', '.join(sorted(MEASURES))}")
    maps = {name: _blank_map(probabilities) for name in names}
    for rows in row_tiles(probabilities):
        sums = CommitteeSums(probabilities.detach()[..., rows, :], names)
        for name, pixels in maps.items():
            pixels[:, rows] = _from_sums(name, sums)
    return {name: _finished(pixels, probabilities) for name, pixels in maps.items()}


def _from_sums(name: str, sums: CommitteeSums) -> Tensor:
    """Return a measure of a tile: (B,h,W) float64."""
    planes, blank = sums.mean.unbind(), torch.zeros_like(sums.mean[0])  # C of (B,h,W)
    if name == "vote_entropy":
        outcomes = min(sums.members, sums.classes)
        return _entropy((sums.votes / sums.members).unbind(), blank, outcomes=outcomes)
    if name == "bald":
        return _entropy(planes, blank) - sums.entropy_of_members / math.log(max(sums.classes, 2))
    if name in ("std", "var"):
        return sums.spread(root=name == "std")
    from_means = {"least_confidence": _least_confidence, "margin": _margin, "entropy": _entropy}
    return from_means[name](planes, blank)


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


def _least_confidence(means: Iterable[Tensor], blank: Tensor) -> Tensor:
    """Return 1 - p1 from the class means, C maps of (B,H,W), and a map of zeros: (B,H,W) float64."""
    first = blank.clone()
    for mean in means:
        torch.maximum(first, mean, out=first)
    return 1 - first


def _margin(means: Iterable[Tensor], blank: Tensor) -> Tensor:
    """Return 1 - (p1 - p2), likewise."""
    first, second = blank.clone(), blank.clone()
    for mean in means:
        torch.maximum(second, torch.minimum(first, mean), out=second)
        torch.maximum(first, mean, out=first)
    return 1 - (first - second)


def _entropy(means: Iterable[Tensor], blank: Tensor, outcomes: int | None = None) -> Tensor:
    """Return -Σ p log p / log of the number of outcomes, that of the classes when omitted, likewise."""
    total, classes = blank.clone(), 0
    for mean in means:
        total += surprise(mean)
        classes += 1
    return total / math.log(max(outcomes or classes, 2))


def _blank_map(probabilities: Tensor) -> Tensor:
    """Check that the input is floating (M,B,C,H,W) and return zeros of (B,H,W) float64 to accumulate in."""
    images = probabilities.shape[1] if probabilities.ndim > 1 else None
    check_shape("probabilities", probabilities, M=None, B=images, C=None, H=None, W=None)
    check_floating("probabilities", probabilities)
    return torch.zeros_like(probabilities[0, :, 0], dtype=torch.float64)


def _class_means(probabilities: Tensor) -> Iterator[Tensor]:
    """Yield the mean over the members, one class at a time: C maps of (B,H,W) float64, to be used up."""
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
