"""Measures with their 95 % intervals: the jackknife over groups of images, and Student's t.

A held-out measure is one of many that other images would have given. How far these lie apart is seen from the images
that are there: each group of them is left out once, and what the measure moves by is what the group contributes
(Efron & Stein 1981). A class that only one group shows is then missing from the mean, so that the interval of a mean
knows of classes that hang on a single image. Few groups move little by chance, therefore the interval reaches as many
standard errors as Student's t of one degree less than there are groups asks.

There is no chance in it, unlike in a bootstrap, whose percentiles hold the truth in half of all cases where there are
two images. docs/measures.md has how often these intervals hold it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ml_backend.learning.measuring.counts import HIT, PREDICTED, TRUE, Counts, Pixels

COVERAGE: Final = 0.95
"""How often an interval holds what endlessly many images like these would measure."""

Numbers = NDArray[np.float64]
_MEANS = ("miou", "mean_dice", "pixel_accuracy")
_BY_CLASS = ("iou", "dice")


@dataclass(frozen=True)
class Estimate:
    """A measure, or the difference of two, with its interval.

    Attributes:
        low, high: None where a single group of images was measured, or where only the measure was recorded.
        images, groups: that were measured on; images of a group, such as a video, are one piece of evidence.
    """

    value: float
    low: float | None = None
    high: float | None = None
    images: int = 0
    groups: int = 0


@dataclass(frozen=True)
class Estimates:
    """All measures of a version, or what they differ by between two versions.

    Attributes:
        iou, dice: by class, of those that have a true pixel.
    """

    miou: Estimate
    mean_dice: Estimate
    pixel_accuracy: Estimate
    iou: Mapping[str, Estimate]
    dice: Mapping[str, Estimate]

    def intervals(self) -> dict[str, Any]:
        """Return the intervals for a record: measure -> [low, high], or None where it has none."""
        means = {name: _ends(getattr(self, name)) for name in _MEANS}
        return means | {kind: {name: _ends(one) for name, one in getattr(self, kind).items()} for kind in _BY_CLASS}


@dataclass(frozen=True)
class _Moved:
    """A measure of all groups, and what it is without each of them: (G,).

    `shown_by` is the number of groups that it is of.
    """

    value: float
    without: Numbers
    shown_by: int


def measures_of(pixels: Pixels, classes: Sequence[str]) -> dict[str, Any]:
    """Return the measures of pixels (C,3) as a record keeps them; see `training.measures`."""
    found = {name: values.tolist() for name, values in _measures(pixels).items()}
    means: dict[str, Any] = {name: None if math.isnan(found[name]) else found[name] for name in _MEANS}
    by_class = {
        kind: {name: None if math.isnan(one) else one for name, one in zip(classes, found[kind], strict=True)}
        for kind in _BY_CLASS
    }
    return means | by_class | {"pixels": int(pixels[:, TRUE].sum())}


def estimates(counts: Counts) -> Estimates | None:
    """Return the measures of a version; None without a labelled pixel."""
    moved = _moved(counts)
    return _estimates(counts, moved, 0.0, 1.0) if moved else None


def differences(first: Counts, second: Counts) -> Estimates | None:
    """Return the measures of the second version less those of the first, of the same labels in the same order.

    A hard image is hard for both versions: what it contributes to both cancels out, so that the interval is narrower
    than those of the two measures.
    """
    before, after = _moved(first), _moved(second)
    moved = {
        name: _Moved(one.value - before[name].value, one.without - before[name].without, one.shown_by)
        for name, one in after.items()
    }
    return _estimates(first, moved, -1.0, 1.0) if moved else None


def _estimates(counts: Counts, moved: Mapping[str, _Moved], least: float, most: float) -> Estimates:
    images, groups = len(counts.labels), len(dict.fromkeys(counts.groups))

    def one(name: str) -> Estimate:
        return Estimate(moved[name].value, *_interval(moved[name], least, most), images, groups)

    def by_class(kind: str) -> dict[str, Estimate]:
        return {name: one(f"{kind} {name}") for name in counts.classes if f"{kind} {name}" in moved}

    return Estimates(one("miou"), one("mean_dice"), one("pixel_accuracy"), by_class("iou"), by_class("dice"))


def _moved(counts: Counts) -> dict[str, _Moved]:
    """Measure with all groups, and without each; nothing without a labelled pixel."""
    groups = counts.by_group()  # (G,C,3)
    total = groups.sum(axis=0)  # (C,3)
    shown_by = (groups[..., TRUE] > 0).sum(axis=0)  # (C,)
    if not shown_by.any():
        return {}
    whole, without = _measures(total), _measures(total - groups)
    moved = {name: _Moved(float(whole[name]), without[name], len(groups)) for name in _MEANS}
    for kind in _BY_CLASS:
        for index in np.flatnonzero(shown_by).tolist():
            one = _Moved(float(whole[kind][index]), without[kind][:, index], int(shown_by[index]))
            moved[f"{kind} {counts.classes[index]}"] = one
    return moved


def _measures(totals: Pixels) -> dict[str, Numbers]:
    """Return measures of pixels (...,C,3): means (...), and by class (...,C), NaN where a class has no true pixel."""
    true, predicted, hit = totals[..., TRUE], totals[..., PREDICTED], totals[..., HIT]
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = np.where(true > 0, hit / (true + predicted - hit), np.nan)
        dice = np.where(true > 0, 2 * hit / (true + predicted), np.nan)
        classes = (true > 0).sum(axis=-1)
        miou, mean_dice = (np.nansum(values, axis=-1) / classes for values in (iou, dice))
        accuracy = hit.sum(axis=-1) / true.sum(axis=-1)
    return {"miou": miou, "mean_dice": mean_dice, "pixel_accuracy": accuracy, "iou": iou, "dice": dice}


def _interval(moved: _Moved, least: float, most: float) -> tuple[float | None, float | None]:
    """Return both ends, within what the measure can be; None where a single group shows it."""
    without = moved.without[~np.isnan(moved.without)]
    if moved.shown_by < 2 or len(without) < 2:
        return None, None
    error = math.sqrt((len(without) - 1) * float(np.mean((without - without.mean()) ** 2)))
    half = t_quantile(moved.shown_by - 1) * error
    return max(least, moved.value - half), min(most, moved.value + half)


def t_quantile(degrees: int) -> float:
    """Return how many standard errors reach to either end of an interval of COVERAGE, with Student's t.

    >>> [round(t_quantile(degrees), 2) for degrees in (1, 2, 11)]
    [12.71, 4.3, 2.2]
    """
    from scipy.special import stdtrit  # slow to import, and many processes measure nothing

    return float(stdtrit(degrees, (1 + COVERAGE) / 2))


def _ends(one: Estimate) -> list[float] | None:
    return None if one.low is None or one.high is None else [one.low, one.high]
