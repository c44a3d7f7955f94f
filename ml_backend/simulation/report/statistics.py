"""What the rows of a simulation say: curves, areas, efforts, and which differences are more than chance.

Pure functions, of the rows of one data set where rows are taken. Terms:

- A *curve* is one strategy with one seed, its points in the order of the rounds: mIoU against what was labelled until
  then, on one of three *axes*, images, pixels and clicks. Between rounds it is interpolated linearly.
- Curves are *finished* that came as far as most did (`finished`). Only those are compared: a run that is still under
  way has reached the target only if it was quick, and counting it would favour the quick ones.
- Runs of one seed share their initial images, so all comparisons are paired by seed, and made over the seeds that
  both have.

What cannot be known, such as an interval from one seed, is None; nothing here returns NaN.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ml_backend.simulation.results import FULL, Row

Axis = Literal["images", "pixels", "clicks"]
AXES: tuple[Axis, ...] = get_args(Axis)
RANDOM = "random"
"""Name of the strategy that efforts are compared with."""
LEVEL = 0.05
"""Below this a corrected p counts as a difference; intervals cover 1 - LEVEL."""
_RESAMPLES = 9999
_TINY = 1e-12
"""Differences up to this come from rounding, not from the strategies."""

Numbers = NDArray[np.float64]


# -- curves ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Curve:
    """One strategy with one seed.

    Attributes:
        last_round: number of its last round.
        effort: for each axis (R,) what was labelled, never decreasing.
        miou: (R,) in [0, 1].
    """

    strategy: str
    seed: int
    last_round: int
    effort: Mapping[Axis, Numbers]
    miou: Numbers

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.strategy}, seed {self.seed}"


@dataclass(frozen=True)
class Interval:
    """A mean over seeds; low and high are its 95 % t-interval, None for a single seed."""

    mean: float
    low: float | None
    high: float | None
    seeds: int


@dataclass(frozen=True)
class Reference:
    """Training on all labels.

    Attributes:
        miou: over its seeds.
        totals: for each axis what labelling everything takes.
    """

    miou: Interval
    totals: Mapping[Axis, float]


def usable(rows: Iterable[Row]) -> list[Row]:
    """Leave out the rows whose measure or clicks are not a number, as after a training that diverged."""
    return [row for row in rows if math.isfinite(row.miou) and math.isfinite(row.clicks)]


def curves(rows: Iterable[Row]) -> list[Curve]:
    """One curve for each strategy and seed, in that order, without the reference."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.strategy, row.seed, row.round)):
        if row.strategy != FULL:
            groups.setdefault((row.strategy, row.seed), []).append(row)
    return [
        Curve(
            strategy=strategy,
            seed=seed,
            last_round=group[-1].round,
            effort={axis: np.array([getattr(row, axis) for row in group], np.float64) for axis in AXES},
            miou=np.array([row.miou for row in group], np.float64),
        )
        for (strategy, seed), group in groups.items()
    ]


def reference(rows: Iterable[Row]) -> Reference | None:
    """Summarise the rows "full", the last of each seed; None as long as there are none."""
    last = {row.seed: row for row in sorted(rows, key=lambda row: row.round) if row.strategy == FULL}
    if not last:
        return None
    return Reference(
        miou=mean_interval([row.miou for row in last.values()]),
        totals={axis: float(np.mean([getattr(row, axis) for row in last.values()])) for axis in AXES},
    )


def finished(found: Sequence[Curve]) -> list[Curve]:
    """The curves that came at least to the round at which most curves end; of equally many, the later round."""
    if not found:
        return []
    ends = Counter(curve.last_round for curve in found)
    end = max(ends, key=lambda number: (ends[number], number))
    return [curve for curve in found if curve.last_round >= end]


# -- area under the budget curve -------------------------------------------------------------------------------------
def common_range(found: Sequence[Curve], axis: Axis) -> tuple[float, float] | None:
    """From the latest start to the earliest end of all curves; None where that holds nothing."""
    if not found:
        return None
    low = max(float(curve.effort[axis][0]) for curve in found)
    high = min(float(curve.effort[axis][-1]) for curve in found)
    return (low, high) if high > low else None


def area(curve: Curve, axis: Axis, low: float, high: float) -> float:
    """Return the area under the curve from low to high by the width: the mean mIoU over that range.

    What a curve has outside of the range is cut off at an interpolated point: a curve that starts earlier or ends
    later than the others gains nothing by it. Where two rounds stand at one effort, the curve jumps there.
    """
    x, y = curve.effort[axis], curve.miou
    within = (x >= low) & (x <= high)
    ends = np.interp([low, high], x, y)
    xs = np.concatenate([[low], x[within], [high]])
    ys = np.concatenate([ends[:1], y[within], ends[1:]])
    return float(np.sum(np.diff(xs) * (ys[1:] + ys[:-1]) / 2) / (high - low))


def areas(found: Sequence[Curve], axis: Axis) -> dict[str, dict[int, float]]:
    """Area of each curve by strategy and seed, over the common range of all of them; empty when there is none."""
    limits = common_range(found, axis)
    if limits is None:
        return {}
    by_strategy: dict[str, dict[int, float]] = {}
    for curve in found:
        by_strategy.setdefault(curve.strategy, {})[curve.seed] = area(curve, axis, *limits)
    return by_strategy


# -- effort to reach a target ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Effort:
    """What one run took to reach the target; where it did not reach it, the whole budget in its place."""

    value: float
    reached: bool


@dataclass(frozen=True)
class Ratio:
    """Effort of a strategy by that of random: geometric mean over the seeds that both have.

    Attributes:
        low, high: 95 % t-interval of the mean log ratio; None for a single seed. This is the interval to report: with
            the five seeds of a usual simulation the bootstrap has too few distinct resamples and is too narrow (it
            covers about 85 % in place of 95 %, as a test measures), while the t-interval covers what it says as long as
            log ratios are roughly normal, and agrees with the paired t-test.
        bootstrap_low, bootstrap_high: percentile interval of a bootstrap over seeds, to compare with.
        seeds: how many pairs.
        reached, random_reached: in how many of them the strategy, or random, reached the target. Where random did not,
            the ratio is smaller than it may really be: random might have got there soon after the simulation ended.
    """

    value: float
    low: float | None
    high: float | None
    bootstrap_low: float | None
    bootstrap_high: float | None
    seeds: int
    reached: int
    random_reached: int


def effort_to_reach(curve: Curve, axis: Axis, miou: float, total: float) -> Effort:
    """Find where the curve first stands at `miou`, interpolated between rounds.

    A curve that starts above it has taken its first point. One that never gets there counts as the whole budget, and
    as what it spent where that is more, since windows cut objects and so can cost more clicks than whole images.

    Args:
        total: the whole budget, on the same axis.
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


def efforts(found: Sequence[Curve], axis: Axis, miou: float, total: float) -> dict[str, dict[int, Effort]]:
    """Effort of each curve by strategy and seed."""
    by_strategy: dict[str, dict[int, Effort]] = {}
    for curve in found:
        by_strategy.setdefault(curve.strategy, {})[curve.seed] = effort_to_reach(curve, axis, miou, total)
    return by_strategy


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of one or more values that are not negative.

    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    return float(np.exp(np.mean(np.log(values)))) if min(values) > 0 else 0.0


def effort_ratio(strategy: Mapping[int, Effort], random: Mapping[int, Effort]) -> Ratio | None:
    """Compare by seed; None without a common seed, where an effort is 0, or where neither reached it in any seed."""
    seeds = sorted(strategy.keys() & random.keys())
    pairs = [(strategy[seed], random[seed]) for seed in seeds]
    known = any(one.reached or other.reached for one, other in pairs)
    if not known or any(min(one.value, other.value) <= 0 for one, other in pairs):
        return None
    logs = np.array([math.log(one.value / other.value) for one, other in pairs])
    interval = mean_interval(logs)
    resampled = bootstrap(logs)
    return Ratio(
        value=math.exp(interval.mean),
        low=_exp(interval.low),
        high=_exp(interval.high),
        bootstrap_low=_exp(resampled[0] if resampled else None),
        bootstrap_high=_exp(resampled[1] if resampled else None),
        seeds=len(seeds),
        reached=sum(one.reached for one, _ in pairs),
        random_reached=sum(other.reached for _, other in pairs),
    )


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(value)


# -- intervals and tests ---------------------------------------------------------------------------------------------
def mean_interval(values: Sequence[float] | Numbers) -> Interval:
    """Mean and 95 % t-interval of one or more values."""
    numbers = np.asarray(values, np.float64)
    mean, count = float(numbers.mean()), len(numbers)
    if count < 2:
        return Interval(mean, None, None, count)
    half = _half_width(numbers)
    return Interval(mean, mean - half, mean + half, count)


def _half_width(values: Numbers) -> float:
    from scipy.special import stdtrit

    count = len(values)
    return float(stdtrit(count - 1, 1 - LEVEL / 2) * values.std(ddof=1) / math.sqrt(count))


def bootstrap(values: Numbers) -> tuple[float, float] | None:
    """95 % percentile interval of the mean, from resamples that are the same in every call; None for one value."""
    if len(values) < 2:
        return None
    picks = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def paired_t(differences: Numbers) -> float | None:
    """Two-sided p of the paired t-test; None for fewer than two pairs."""
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


def wilcoxon(differences: Numbers) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test; None for fewer than two pairs.

    With n pairs it is never below 2 / 2**n, so five seeds cannot get below 0.0625, whatever the strategies do: it is
    given beside the t-test and decides nothing.
    """
    if len(differences) < 2:
        return None
    clear = differences[np.abs(differences) > _TINY]
    if not clear.size:
        return 1.0
    from scipy import stats

    return min(1.0, float(stats.wilcoxon(clear).pvalue))


def holm(values: Sequence[float]) -> list[float]:
    """Correct p values for being many (Holm 1979): the k-th smallest of m times m - k + 1, never below the one before.

    >>> [round(value, 3) for value in holm([0.04, 0.01, 0.03])]
    [0.06, 0.03, 0.06]
    """
    corrected = [0.0] * len(values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = highest
    return corrected


@dataclass(frozen=True)
class Pair:
    """Two strategies, compared over the seeds that both have.

    Attributes:
        seeds: how many those are.
        difference: of the areas, one minus other, with the interval of this pair alone; None without a common seed.
        p: of the paired t-test; None for fewer than two seeds, as the others are.
        p_holm: the same, corrected over all pairs that have one.
        p_wilcoxon: of the signed-rank test, not corrected.
    """

    one: str
    other: str
    seeds: int
    difference: Interval | None
    p: float | None
    p_holm: float | None
    p_wilcoxon: float | None

    @property
    def winner(self) -> str | None:
        """The better one; None unless the corrected p is below 0.05."""
        if self.difference is None or self.p_holm is None or self.p_holm >= LEVEL:
            return None
        return self.one if self.difference.mean > 0 else self.other

    def lead(self, strategy: str) -> Interval | None:
        """By how much one of the two is ahead of the other."""
        found = self.difference
        if found is None or strategy == self.one:
            return found
        low, high = (None if end is None else -end for end in (found.high, found.low))
        return Interval(-found.mean, low, high, found.seeds)


def compare_pairs(by_strategy: Mapping[str, Mapping[int, float]]) -> list[Pair]:
    """Compare every two strategies in their areas, as `areas` returns them, and correct over all pairs."""
    found = []
    for one, other in itertools.combinations(sorted(by_strategy), 2):
        seeds = sorted(by_strategy[one].keys() & by_strategy[other].keys())
        found.append((one, other, np.array([by_strategy[one][seed] - by_strategy[other][seed] for seed in seeds])))
    plain = [paired_t(differences) for *_, differences in found]
    corrected = iter(holm([p for p in plain if p is not None]))
    return [
        Pair(
            one=one,
            other=other,
            seeds=len(differences),
            difference=mean_interval(differences) if len(differences) else None,
            p=p,
            p_holm=None if p is None else next(corrected),
            p_wilcoxon=wilcoxon(differences),
        )
        for (one, other, differences), p in zip(found, plain, strict=True)
    ]


# -- what is drawn, and what it took -----------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Band:
    """Mean curve of a strategy.

    Attributes:
        effort, mean: (G,); G is 1 where the seeds have only one point in common.
        low, high: (G,) 95 % t-interval at each point; None for a single seed.
    """

    effort: Numbers
    mean: Numbers
    low: Numbers | None
    high: Numbers | None
    seeds: int


def mean_curve(found: Sequence[Curve], axis: Axis, points: int = 101) -> Band | None:
    """Average the curves of one strategy on a grid over the range that all of them cover; None where they share none.

    Args:
        points: of the grid, evenly spaced.
    """
    if not found:
        return None
    low = max(float(curve.effort[axis][0]) for curve in found)
    high = min(float(curve.effort[axis][-1]) for curve in found)
    if high < low:
        return None
    grid: Numbers = np.linspace(low, high, points if high > low else 1, dtype=np.float64)
    values = np.stack([np.interp(grid, curve.effort[axis], curve.miou) for curve in found])  # (S,G)
    mean = values.mean(axis=0)
    if len(found) < 2:
        return Band(grid, mean, None, None, 1)
    half = np.array([_half_width(column) for column in values.T])
    return Band(grid, mean, mean - half, mean + half, len(found))


@dataclass(frozen=True)
class Seconds:
    """Means over the rows of one strategy.

    Attributes:
        train: of a round.
        select: of a round that chose something, so without round 0; None as long as there is none.
        runs_per_hour: runs of as many rounds as the finished ones; None where no time was measured or none finished.
    """

    train: float
    select: float | None
    runs_per_hour: float | None


def seconds(rows: Sequence[Row], complete: Sequence[Curve]) -> Seconds:
    """Average the times of one strategy.

    Args:
        rows: one or more.
        complete: its finished curves.
    """
    select = [row.seconds_select for row in rows if row.round > 0]
    seeds = {curve.seed for curve in complete}
    spent = sum(row.seconds_train + row.seconds_select for row in rows if row.seed in seeds)
    return Seconds(
        train=float(np.mean([row.seconds_train for row in rows])),
        select=float(np.mean(select)) if select else None,
        runs_per_hour=3600 * len(seeds) / spent if spent > 0 else None,
    )
