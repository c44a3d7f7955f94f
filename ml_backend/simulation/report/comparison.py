"""Comparisons of strategies: what each labels to reach a target, and how far apart their curves are.

Runs of the same seed share their initial images, so all comparisons are paired by seed, over the seeds that both
strategies have. None of them is a test: `contrasts` tests those that were named before the run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ml_backend.simulation.report.curves import Axis, Curve, log
from ml_backend.simulation.report.statistics import Interval, Numbers, mean_interval

RANDOM = "random"
"""Name of the strategy that efforts are compared with."""

Efforts = Mapping[int, float | None]
"""Seed -> what the run labelled to reach the target, in images, pixels or clicks; None where it did not reach it."""


# -- effort to reach a target ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Ratio:
    """Effort of a strategy divided by another's: geometric mean over the seeds in which both reached the target.

    What a seed that missed it would have taken is not known, and no number stands for it: such seeds are counted.

    Attributes:
        low, high: 95 % t-interval of the mean log ratio; None for a single seed. It covers 95 % as long as log ratios
            are roughly normal, and agrees with the paired t-test.
        seeds: number of pairs in which both reached it, out of `pairs`.
        missed, other_missed: number of pairs in which the strategy, or the other, did not.
    """

    value: float
    low: float | None
    high: float | None
    seeds: int
    pairs: int
    missed: int
    other_missed: int


def effort_to_reach(curve: Curve, axis: Axis, miou: float) -> float | None:
    """Return the effort at which the curve reaches `miou`, interpolated between rounds; None where it does not.

    A curve that starts above it has the effort of its first point.
    """
    x, y = curve.effort[axis], curve.miou
    above = np.flatnonzero(y >= miou)
    if not above.size:
        return None
    at = int(above[0])
    if at == 0:
        return float(x[0])
    share = (miou - y[at - 1]) / (y[at] - y[at - 1])
    before, after = log(x[at - 1 : at + 1])
    return float(np.exp(before + share * (after - before)))


def efforts_of(curves: Sequence[Curve], axis: Axis, miou: float) -> dict[str, dict[int, float | None]]:
    """Return strategy -> seed -> effort; arguments as for `effort_to_reach`."""
    by_strategy: dict[str, dict[int, float | None]] = {}
    for curve in curves:
        by_strategy.setdefault(curve.strategy, {})[curve.seed] = effort_to_reach(curve, axis, miou)
    return by_strategy


def log_ratios(own: Efforts, other: Efforts) -> Numbers:
    """Return the logarithms (N,) of own by other, for the seeds in which both reached the target, ascending."""
    both = [(own[seed], other[seed]) for seed in sorted(own.keys() & other.keys())]
    return np.array([math.log(mine / its) for mine, its in both if mine and its], np.float64)


def effort_ratio(own: Efforts, other: Efforts) -> Ratio | None:
    """Compare efforts by seed; None where no seed has both."""
    logs, pairs = log_ratios(own, other), sorted(own.keys() & other.keys())
    if not len(logs):
        return None
    interval = mean_interval(logs)
    return Ratio(
        value=math.exp(interval.mean),
        low=_exp(interval.low),
        high=_exp(interval.high),
        seeds=len(logs),
        pairs=len(pairs),
        missed=sum(own[seed] is None for seed in pairs),
        other_missed=sum(other[seed] is None for seed in pairs),
    )


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(value)


# -- pairs of strategies -----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Pair:
    """Two strategies, compared over the seeds that both have.

    Attributes:
        seeds: number of these.
        difference: of the areas, first minus second, with the interval of this pair alone; None without a common seed.
    """

    first: str
    second: str
    seeds: int
    difference: Interval | None

    def lead(self, strategy: str) -> Interval | None:
        """Return by how much mIoU a strategy of the pair is ahead of the other."""
        ahead = self.difference
        if ahead is None or strategy == self.first:
            return ahead
        low, high = (None if end is None else -end for end in (ahead.high, ahead.low))
        return Interval(-ahead.mean, low, high, ahead.seeds)


def compare_pairs(by_strategy: Mapping[str, Mapping[int, float]]) -> list[Pair]:
    """Compare every two strategies in their areas, as `areas_of` returns them."""
    pairs = []
    for first, second in itertools.combinations(sorted(by_strategy), 2):
        values = differences(by_strategy[first], by_strategy[second])
        pairs.append(Pair(first, second, len(values), mean_interval(values) if len(values) else None))
    return pairs


def differences(first: Mapping[int, float], second: Mapping[int, float]) -> Numbers:
    """Return first minus second (N,) for the seeds that both have."""
    return np.array([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())], np.float64)
