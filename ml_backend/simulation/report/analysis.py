"""All numbers of a report, for each data set: what stands in its tables, and what a reader must be warned of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ml_backend.simulation.contrasts import Contrast
from ml_backend.simulation.report.comparison import (
    RANDOM,
    Efforts,
    Pair,
    Ratio,
    compare_pairs,
    effort_ratio,
    efforts_of,
)
from ml_backend.simulation.report.curves import (
    AXES,
    Axis,
    Curve,
    Reference,
    areas_of,
    common_range,
    curves_of,
    finished,
    reference_of,
    usable,
)
from ml_backend.simulation.report.savings import Saving, savings_of
from ml_backend.simulation.report.statistics import Interval, geometric_mean, mean_interval
from ml_backend.simulation.report.verdicts import Verdict, verdicts_on
from ml_backend.simulation.results import Row

MEASURES = {"dice": "Dice", "object_f1": "object F1", "object_dice": "object Dice"}
"""Measures beside mIoU, with their names for people."""
_MOST_NAMES = 12
"""Names that a warning lists; it counts the others."""


@dataclass(frozen=True)
class EffortSummary:
    """What a strategy labelled to reach the target, over those of its finished seeds that reached it.

    Attributes:
        value: geometric mean; None where no seed reached it.
        share: `value` as a share of the whole budget.
        reached: number of seeds that reached it, of `seeds`.
        ratio: to random's; None for random itself, and where it is not known.
    """

    value: float | None
    share: float | None
    reached: int
    seeds: int
    ratio: Ratio | None


@dataclass(frozen=True)
class Seconds:
    """Mean seconds of a strategy.

    Attributes:
        train: of a round.
        select: of a round that chose labels, so without round 0; None without such a round.
        runs_per_hour: runs of as many rounds as the finished ones; None where no time was measured or none finished.
    """

    train: float
    select: float | None
    runs_per_hour: float | None


@dataclass(frozen=True)
class Standing:
    """One strategy in a data set.

    Attributes:
        seeds: number of finished seeds.
        area: axis -> area under the budget curve, in [0, 1]; None where the curves share no range.
        final: mIoU after the last round; None without a finished seed.
        other: name in MEASURES -> measure after the last round; only measures that every seed has.
        efforts: axis -> effort to reach the target; None without a reference.
    """

    strategy: str
    seeds: int
    area: Mapping[Axis, Interval | None]
    final: Interval | None
    other: Mapping[str, Interval]
    efforts: Mapping[Axis, EffortSummary | None]
    seconds: Seconds


@dataclass(frozen=True, eq=False)
class Analysis:
    """One data set.

    Attributes:
        target: share of the reference's mIoU that efforts are measured for; `target_miou` is that mIoU.
        curves: strategy -> its finished curves, or all its curves where none is finished.
        standings: best area first.
        verdicts: on the contrasts that were named for this data set; nothing else is tested.
        pairs: every two strategies, compared on `axis`.
        savings: what each strategy saves, at each tariff.
        ranges: axis -> range of efforts that the areas are taken over.
        settings: names and values, of the last row.
        commits: of the rows, the most frequent first.
        warnings: sentences.
    """

    dataset: str
    axis: Axis
    target: float
    target_miou: float | None
    reference: Reference | None
    curves: Mapping[str, Sequence[Curve]]
    standings: Sequence[Standing]
    verdicts: Sequence[Verdict]
    pairs: Sequence[Pair]
    savings: Sequence[Saving]
    ranges: Mapping[Axis, tuple[float, float] | None]
    settings: Sequence[tuple[str, str]]
    commits: Sequence[str]
    warnings: Sequence[str]

    @property
    def other_measures(self) -> list[str]:
        """Names of the measures beside mIoU that any strategy has, in order."""
        return [title for title in MEASURES.values() if any(title in standing.other for standing in self.standings)]

    def against_random(self, strategy: str) -> Pair | None:
        """Return the comparison of a strategy with random; None if there is no such pair."""
        for pair in self.pairs:
            if {pair.first, pair.second} == {strategy, RANDOM}:
                return pair
        return None


def analyse(rows: Sequence[Row], target: float, axis: Axis, contrasts: Sequence[Contrast] = ()) -> list[Analysis]:
    """Analyse each data set, in the order in which they first appear."""
    by_dataset: dict[str, list[Row]] = {}
    for row in rows:
        by_dataset.setdefault(row.dataset, []).append(row)
    verdicts = verdicts_on(contrasts, usable(rows), target, axis)
    return [
        _analyse(dataset, own, target, axis, [one for one in verdicts if one.contrast.dataset == dataset])
        for dataset, own in by_dataset.items()
    ]


def _analyse(dataset: str, rows: Sequence[Row], target: float, axis: Axis, verdicts: Sequence[Verdict]) -> Analysis:
    good = usable(rows)
    reference = reference_of(good)
    goal = target * reference.miou.mean if reference else None
    every = curves_of(good)
    done = finished(every)
    areas = {name: areas_of(done, name) for name in AXES}
    efforts = {name: {} if goal is None else efforts_of(done, name, goal) for name in AXES}
    standings = [
        _standing(strategy, good, done, areas, efforts, reference)
        for strategy in dict.fromkeys(c.strategy for c in every)
    ]
    return Analysis(
        dataset=dataset,
        axis=axis,
        target=target,
        target_miou=goal,
        reference=reference,
        curves={standing.strategy: _shown(standing.strategy, every, done) for standing in standings},
        standings=sorted(standings, key=lambda standing: _order(standing, axis)),
        verdicts=verdicts,
        pairs=compare_pairs(areas[axis]),
        savings=savings_of(good, goal),
        ranges={name: common_range(done, name) for name in AXES},
        settings=_settings(rows[-1].settings),
        commits=[commit for commit, _ in Counter(row.commit or "unknown" for row in rows).most_common()],
        warnings=_warnings(rows, every, done),
    )


def _standing(
    strategy: str,
    rows: Sequence[Row],
    done: Sequence[Curve],
    areas: Mapping[Axis, Mapping[str, Mapping[int, float]]],
    efforts: Mapping[Axis, Mapping[str, Efforts]],
    reference: Reference | None,
) -> Standing:
    own = [curve for curve in done if curve.strategy == strategy]
    of_strategy = [row for row in rows if row.strategy == strategy]
    own_areas = {axis: list(areas[axis].get(strategy, {}).values()) for axis in AXES}
    return Standing(
        strategy=strategy,
        seeds=len(own),
        area={axis: mean_interval(values) if values else None for axis, values in own_areas.items()},
        final=mean_interval([float(curve.measured[-1]) for curve in own]) if own else None,
        other=_other_measures(of_strategy, own),
        efforts={axis: _effort_summary(strategy, efforts[axis], axis, reference) for axis in AXES},
        seconds=_seconds(of_strategy, own),
    )


def _seconds(rows: Sequence[Row], complete: Sequence[Curve]) -> Seconds:
    """Average the times of a strategy, over its rows and its finished curves."""
    select = [row.seconds_select for row in rows if row.round > 0]
    seeds = {curve.seed for curve in complete}
    spent = sum(row.seconds_train + row.seconds_select for row in rows if row.seed in seeds)
    return Seconds(
        train=float(np.mean([row.seconds_train for row in rows])),
        select=float(np.mean(select)) if select else None,
        runs_per_hour=3600 * len(seeds) / spent if spent > 0 else None,
    )


def _other_measures(rows: Sequence[Row], own: Sequence[Curve]) -> dict[str, Interval]:
    ends = {(curve.seed, curve.last_round) for curve in own}
    last = [row for row in rows if (row.seed, row.round) in ends]
    intervals = {}
    for name, title in MEASURES.items():
        values = [value for row in last if (value := getattr(row, name)) is not None]
        if values and len(values) == len(last):
            intervals[title] = mean_interval(values)
    return intervals


def _effort_summary(
    strategy: str, efforts: Mapping[str, Efforts], axis: Axis, reference: Reference | None
) -> EffortSummary | None:
    own = efforts.get(strategy)
    if not own or reference is None:
        return None
    reached = [effort for effort in own.values() if effort is not None]
    value = geometric_mean(reached) if reached else None
    total = reference.totals[axis]
    random = efforts.get(RANDOM, {})
    return EffortSummary(
        value=value,
        share=value / total if value is not None and total > 0 else None,
        reached=len(reached),
        seeds=len(own),
        ratio=None if strategy == RANDOM else effort_ratio(own, random),
    )


def _shown(strategy: str, every: Sequence[Curve], done: Sequence[Curve]) -> list[Curve]:
    own = [curve for curve in done if curve.strategy == strategy]
    return own or [curve for curve in every if curve.strategy == strategy]


def _order(standing: Standing, axis: Axis) -> tuple[float, str]:
    area = standing.area[axis] or standing.final
    return (-area.mean if area else 1.0), standing.strategy


# -- settings, commits and warnings ------------------------------------------------------------------------------------
def _parsed(settings: str) -> dict[str, str]:
    try:
        values = json.loads(settings)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        return {"settings": settings} if settings else {}
    return {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def _settings(settings: str) -> list[tuple[str, str]]:
    return sorted(_parsed(settings).items())


def _warnings(rows: Sequence[Row], every: Sequence[Curve], done: Sequence[Curve]) -> list[str]:
    """Return sentences on what makes the comparison unfair, or incomplete."""
    warnings = [*_mixed_settings(rows), *_mixed_commits(rows)]
    lost = len(rows) - len(usable(rows))
    if lost:
        warnings.append(f"{lost} of {len(rows)} rows hold no number as mIoU or clicks, and are left out.")
    complete = {curve.name for curve in done}
    under_way = [curve.name for curve in every if curve.name not in complete]
    if under_way:
        warnings.append(f"Not finished, and so not compared: {_some(under_way)}.")
    return warnings + _missing_seeds(done)


def _mixed_settings(rows: Sequence[Row]) -> list[str]:
    counts = Counter(row.settings for row in rows)
    if len(counts) < 2:
        return []
    parsed = [_parsed(settings) for settings in counts]
    differing = []
    for name in sorted({name for settings in parsed for name in settings}):
        values = list(dict.fromkeys(settings.get(name, "not set") for settings in parsed))
        if len(values) > 1:
            differing.append(f"{name}: {_some(values)}")
    sizes = ", ".join(str(count) for count in counts.values())
    text = "; ".join(differing) or "they are written differently"
    return [f"Rows of {len(counts)} different settings ({sizes} rows) are compared with each other. {text}."]


def _mixed_commits(rows: Sequence[Row]) -> list[str]:
    counts = Counter(row.commit or "unknown" for row in rows)
    warnings = []
    if len(counts) > 1:
        text = _some([f"{commit} ({count} rows)" for commit, count in counts.most_common()])
        warnings.append(f"Rows of {len(counts)} different commits are compared with each other: {text}.")
    if any(commit.endswith("+") for commit in counts):
        warnings.append("Some rows were made by code with changes that were not committed (a + after the commit).")
    return warnings


def _missing_seeds(done: Sequence[Curve]) -> list[str]:
    by_strategy: dict[str, set[int]] = {}
    for curve in done:
        by_strategy.setdefault(curve.strategy, set()).add(curve.seed)
    every = set().union(*by_strategy.values()) if by_strategy else set()
    missing = [
        f"{strategy} ({', '.join(map(str, sorted(every - seeds)))})"
        for strategy, seeds in by_strategy.items()
        if every - seeds
    ]
    return [f"Seeds that others have are missing; pairs compare the common ones: {_some(missing)}."] if missing else []


def _some(names: Sequence[str]) -> str:
    """Join names; of more than _MOST_NAMES, the first."""
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
