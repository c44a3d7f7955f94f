"""Comparisons of strategies: what each labels to reach a target, and which differences are more than chance.

Runs of the same seed share their initial images, so all comparisons are paired by seed, over the seeds that both
strategies have.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ml_backend.simulation.report.curves import Axis, Curve
from ml_backend.simulation.report.statistics import LEVEL, Interval, Numbers, holm, mean_interval, paired_t

RANDOM = "random"
"""Name of the strategy that efforts are compared with."""


# -- effort to reach a target ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Effort:
    """What a run labelled to reach the target, in images, pixels or clicks; the whole budget where it did not."""

    value: float
    reached: bool


@dataclass(frozen=True)
class Ratio:
    """Effort of a strategy divided by random's: geometric mean over the seeds that both have.

    Attributes:
        low, high: 95 % t-interval of the mean log ratio; None for a single seed. It covers 95 % as long as log ratios
            are roughly normal, and agrees with the paired t-test.
        seeds: number of pairs.
        reached, random_reached: number of pairs in which the strategy, or random, reached the target. Where random
            did not, the ratio may be too small: random might have reached it soon after the simulation ended.
    """

    value: float
    low: float | None
    high: float | None
    seeds: int
    reached: int
    random_reached: int


def effort_to_reach(curve: Curve, axis: Axis, miou: float, total: float) -> Effort:
    """Return the effort at which the curve first reaches `miou`, interpolated between rounds.

    A curve that starts above it has the effort of its first point. A curve that never reaches it counts as the whole
    budget, or as what it spent where that is more: windows cut objects, and can cost more clicks than whole images.

    Args:
        total: the whole budget, in units of the axis.
    """
    x, y = curve.effort[axis], curve.miou
    above = np.flatnonzero(y >= miou)
    if not above.size:
        return Effort(max(total, float(x[-1])), reached=False)
    at = int(above[0])
    if at == 0:
        return Effort(float(x[0]), reached=True)
    share = (miou - y[at - 1]) / (y[at] - y[at - 1])
    return Effort(float(x[at - 1] + share * (x[at] - x[at - 1])), reached=True)


def efforts_of(curves: Sequence[Curve], axis: Axis, miou: float, total: float) -> dict[str, dict[int, Effort]]:
    """Return strategy -> seed -> effort; arguments as for `effort_to_reach`."""
    by_strategy: dict[str, dict[int, Effort]] = {}
    for curve in curves:
        by_strategy.setdefault(curve.strategy, {})[curve.seed] = effort_to_reach(curve, axis, miou, total)
    return by_strategy


def effort_ratio(strategy: Mapping[int, Effort], random: Mapping[int, Effort]) -> Ratio | None:
    """Compare efforts by seed; None without a common seed, where an effort is 0, or where no run got there."""
    seeds = sorted(strategy.keys() & random.keys())
    pairs = [(strategy[seed], random[seed]) for seed in seeds]
    known = any(own.reached or other.reached for own, other in pairs)
    if not known or any(min(own.value, other.value) <= 0 for own, other in pairs):
        return None
    logs = np.array([math.log(own.value / other.value) for own, other in pairs])
    interval = mean_interval(logs)
    return Ratio(
        value=math.exp(interval.mean),
        low=_exp(interval.low),
        high=_exp(interval.high),
        seeds=len(seeds),
        reached=sum(own.reached for own, _ in pairs),
        random_reached=sum(other.reached for _, other in pairs),
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
        p: of the paired t-test; None for fewer than two seeds.
        p_holm: the same, corrected over all pairs that have a p.
    """

    first: str
    second: str
    seeds: int
    difference: Interval | None
    p: float | None
    p_holm: float | None

    @property
    def winner(self) -> str | None:
        """The better strategy; None unless the corrected p is below 0.05."""
        if self.difference is None or self.p_holm is None or self.p_holm >= LEVEL:
            return None
        return self.first if self.difference.mean > 0 else self.second

    def lead(self, strategy: str) -> Interval | None:
        """Return by how much mIoU a strategy of the pair is ahead of the other."""
        ahead = self.difference
        if ahead is None or strategy == self.first:
            return ahead
        low, high = (None if end is None else -end for end in (ahead.high, ahead.low))
        return Interval(-ahead.mean, low, high, ahead.seeds)


def compare_pairs(by_strategy: Mapping[str, Mapping[int, float]]) -> list[Pair]:
    """Compare every two strategies in their areas, as `areas_of` returns them, and correct over all pairs."""
    names = list(itertools.combinations(sorted(by_strategy), 2))
    differences = [_differences(by_strategy[first], by_strategy[second]) for first, second in names]
    plain = [paired_t(values) for values in differences]
    corrected = iter(holm([p for p in plain if p is not None]))
    return [
        Pair(
            first=first,
            second=second,
            seeds=len(values),
            difference=mean_interval(values) if len(values) else None,
            p=p,
            p_holm=None if p is None else next(corrected),
        )
        for (first, second), values, p in zip(names, differences, plain, strict=True)
    ]


def _differences(first: Mapping[int, float], second: Mapping[int, float]) -> Numbers:
    """Return first minus second (N,) for the seeds that both have."""
    return np.array([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())], np.float64)
