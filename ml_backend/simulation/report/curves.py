"""Curves of mIoU against what was labelled, and the area under them.

A curve is one strategy with one seed, its points in the order of the rounds: mIoU against the images, pixels or clicks
labelled until then. A network that a round makes worse is noise of its training: the curve is the isotonic regression
of what was measured, which never falls. Between rounds it is interpolated in the logarithm of what was labelled: the
second thousand clicks teach less than the first.

Only finished curves are compared: those that came as far as most did (`finished`). A run that is still under way has
reached the target only if it was quick, and counting it would favour quick runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ml_backend.simulation.report.statistics import Interval, Numbers, half_width, mean_interval
from ml_backend.simulation.results import FULL, Row

Axis = Literal["images", "pixels", "clicks"]
AXES: tuple[Axis, ...] = get_args(Axis)
_POINTS = 101
"""Points of a mean curve, evenly spaced in logarithms."""


@dataclass(frozen=True, eq=False)
class Curve:
    """One strategy with one seed.

    Attributes:
        last_round: number of its last round.
        effort: for each axis (R,) what was labelled, never decreasing.
        measured: (R,) mIoU in [0, 1] as it was measured.
        miou: (R,) the same without falls.
    """

    strategy: str
    seed: int
    last_round: int
    effort: Mapping[Axis, Numbers]
    measured: Numbers
    miou: Numbers

    def at(self, axis: Axis, effort: Numbers) -> Numbers:
        """Return the mIoU at efforts (G,) within the curve: (G,)."""
        found: Numbers = np.interp(log(effort), log(self.effort[axis]), self.miou)
        return found

    @property
    def name(self) -> str:
        """Name of the run for people."""
        return f"{self.strategy}, seed {self.seed}"


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
    """Return the rows whose mIoU and clicks are finite: a training that diverged has neither."""
    return [row for row in rows if math.isfinite(row.miou) and math.isfinite(row.clicks)]


def curves_of(rows: Iterable[Row]) -> list[Curve]:
    """Return a curve for each strategy and seed, ordered by both, without the reference."""
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
            measured=(measured := np.array([row.miou for row in group], np.float64)),
            miou=rising(measured),
        )
        for (strategy, seed), group in groups.items()
    ]


def rising(values: Numbers) -> Numbers:
    """Return the closest values (R,) to those given that never fall: their isotonic regression.

    >>> rising(np.array([0.4, 0.6, 0.5, 0.8])).tolist()
    [0.4, 0.55, 0.55, 0.8]
    """
    from scipy.optimize import isotonic_regression

    fitted: Numbers = isotonic_regression(values).x
    return fitted


def log(effort: Numbers) -> Numbers:
    """Return the logarithm of efforts; less than one image, pixel or click counts as one."""
    logs: Numbers = np.log(np.maximum(effort, 1.0))
    return logs


def reference_of(rows: Iterable[Row]) -> Reference | None:
    """Summarise the rows "full", the last of each seed; None without such rows."""
    last = {row.seed: row for row in sorted(rows, key=lambda row: row.round) if row.strategy == FULL}
    if not last:
        return None
    return Reference(
        miou=mean_interval([row.miou for row in last.values()]),
        totals={axis: float(np.mean([getattr(row, axis) for row in last.values()])) for axis in AXES},
    )


def finished(curves: Sequence[Curve]) -> list[Curve]:
    """Return the curves that reach the round at which most curves end; of two such rounds, the later."""
    if not curves:
        return []
    ends = Counter(curve.last_round for curve in curves)
    end = max(ends, key=lambda number: (ends[number], number))
    return [curve for curve in curves if curve.last_round >= end]


def common_range(curves: Sequence[Curve], axis: Axis) -> tuple[float, float] | None:
    """Return the effort from the latest start to the earliest end of all curves; None where that is empty."""
    if not curves:
        return None
    low = max(float(curve.effort[axis][0]) for curve in curves)
    high = min(float(curve.effort[axis][-1]) for curve in curves)
    return (low, high) if high > low else None


def area(curve: Curve, axis: Axis, low: float, high: float) -> float:
    """Return the area under the curve from low to high, in logarithms, by the width: the mean mIoU over that range.

    What a curve has outside of the range is cut off at an interpolated point: a curve that starts earlier or ends
    later than the others gains nothing by it. Where two rounds have the same effort, the curve jumps there.
    """
    x, y = curve.effort[axis], curve.miou
    within = (x >= low) & (x <= high)
    ends = curve.at(axis, np.array([low, high]))
    xs = log(np.concatenate([[low], x[within], [high]]))
    ys = np.concatenate([ends[:1], y[within], ends[1:]])
    if xs[-1] == xs[0]:
        return float(ys.mean())
    return float(np.sum(np.diff(xs) * (ys[1:] + ys[:-1]) / 2) / (xs[-1] - xs[0]))


def areas_of(curves: Sequence[Curve], axis: Axis) -> dict[str, dict[int, float]]:
    """Return strategy -> seed -> area under the curve over the range common to all; empty without such a range."""
    limits = common_range(curves, axis)
    if limits is None:
        return {}
    by_strategy: dict[str, dict[int, float]] = {}
    for curve in curves:
        by_strategy.setdefault(curve.strategy, {})[curve.seed] = area(curve, axis, *limits)
    return by_strategy


@dataclass(frozen=True, eq=False)
class Band:
    """Mean curve of a strategy on a grid of G efforts.

    Attributes:
        effort, mean: (G,); G is 1 where the seeds have a single point in common.
        low, high: (G,) 95 % t-interval at each point; None for a single seed.
    """

    effort: Numbers
    mean: Numbers
    low: Numbers | None
    high: Numbers | None
    seeds: int


def mean_curve(curves: Sequence[Curve], axis: Axis) -> Band | None:
    """Average the curves of a strategy on a grid over the range that all of them cover; None without such a range."""
    if not curves:
        return None
    low = max(float(curve.effort[axis][0]) for curve in curves)
    high = min(float(curve.effort[axis][-1]) for curve in curves)
    if high < low:
        return None
    grid: Numbers = np.geomspace(max(low, 1.0), max(high, 1.0), _POINTS if high > low else 1, dtype=np.float64)
    values = np.stack([curve.at(axis, grid) for curve in curves])  # (S,G)
    mean = values.mean(axis=0)
    if len(curves) < 2:
        return Band(grid, mean, None, None, 1)
    half = np.array([half_width(column) for column in values.T])
    return Band(grid, mean, mean - half, mean + half, len(curves))
