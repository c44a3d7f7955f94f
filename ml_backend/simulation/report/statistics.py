"""Means, intervals and tests of a few numbers. What cannot be known, such as an interval of one value, is None."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""A corrected p below it counts as a difference; intervals cover 1 - LEVEL."""
_TINY = 1e-12
"""Differences up to this come from rounding, not from the strategies."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds.

    Attributes:
        low, high: its 95 % t-interval; None for a single seed.
        seeds: number of values.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int


def mean_interval(values: Sequence[float] | Numbers) -> Interval:
    """Return the mean and the 95 % t-interval of one or more values (N,)."""
    numbers = np.asarray(values, np.float64)
    mean, count = float(numbers.mean()), len(numbers)
    if count < 2:
        return Interval(mean, None, None, count)
    half = half_width(numbers)
    return Interval(mean, mean - half, mean + half, count)


def half_width(values: Numbers) -> float:
    """Return half the width of the 95 % t-interval of the mean of two or more values (N,)."""
    from scipy.special import stdtrit

    count = len(values)
    return float(stdtrit(count - 1, 1 - LEVEL / 2) * values.std(ddof=1) / math.sqrt(count))


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of one or more values that are not negative.

    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    return float(np.exp(np.mean(np.log(values)))) if min(values) > 0 else 0.0


def paired_t(differences: Numbers) -> float | None:
    """Return the two-sided p, in [0, 1], of the paired t-test of differences (N,); None for fewer than two."""
    count = len(differences)
    if count < 2:
        return None
    if float(np.abs(differences).max()) <= _TINY:
        return 1.0
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    if error <= _TINY:
        return 0.0
    from scipy.special import stdtr

    return float(2 * stdtr(count - 1, -abs(float(differences.mean())) / error))


def holm(values: Sequence[float]) -> list[float]:
    """Correct m p-values for multiple testing (Holm 1979): the k-th smallest times m - k + 1, never below the previous.

    >>> [round(value, 3) for value in holm([0.04, 0.01, 0.03])]
    [0.06, 0.03, 0.06]
    """
    corrected = [0.0] * len(values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = highest
    return corrected
