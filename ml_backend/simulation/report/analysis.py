"""All numbers of a report, for each data set: what stands in its tables, and what a reader must be warned of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ml_backend.simulation.report import statistics
from ml_backend.simulation.report.statistics import AXES, RANDOM, Axis, Curve, Effort, Interval, Pair, Ratio, Reference
from ml_backend.simulation.results import Row

MEASURES = {"dice": "Dice", "object_f1": "object F1", "object_dice": "object Dice"}
"""Measures beside mIoU, with their names for people."""


@dataclass(frozen=True)
class EffortSummary:
    """What a strategy took to reach the target, over its finished seeds.

    Attributes:
        value: geometric mean; seeds that did not reach it count as the whole budget.
        share: the same as a share of the whole budget.
        reached: how many seeds did, of `seeds`.
        ratio: to random's; None for random itself, and where it cannot be known.
    """

    value: float
    share: float | None
    reached: int
    seeds: int
    ratio: Ratio | None


@dataclass(frozen=True)
class Standing:
    """One strategy in a data set.

    Attributes:
        seeds: finished ones.
        area: for each axis, the area under the budget curve; None where the curves share no range.
        final: mIoU after the last round; None as long as no seed is finished.
        other: what else was measured after the last round, as MEASURES names it; only what every seed has.
        efforts: for each axis; None without a reference.
    """

    strategy: str
    seeds: int
    area: Mapping[Axis, Interval | None]
    final: Interval | None
    other: Mapping[str, Interval]
    efforts: Mapping[Axis, EffortSummary | None]
    seconds: statistics.Seconds


@dataclass(frozen=True, eq=False)
class Analysis:
    """One data set.

    Attributes:
        target: share of the reference that efforts are measured for; `target_miou` is what that comes to.
        curves: by strategy, the finished ones, and of a strategy without any all that it has.
        standings: best area first.
        pairs: every two strategies, compared on `axis`.
        ranges: for each axis, what the areas are taken over.
        settings: of the last row, as names and values.
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
    pairs: Sequence[Pair]
    ranges: Mapping[Axis, tuple[float, float] | None]
    settings: Sequence[tuple[str, str]]
    commits: Sequence[str]
    warnings: Sequence[str]

    @property
    def other_measures(self) -> list[str]:
        """What else was measured of any strategy, in order."""
        return [title for title in MEASURES.values() if any(title in one.other for one in self.standings)]

    def against_random(self, strategy: str) -> Pair | None:
        """The comparison of a strategy with random."""
        for pair in self.pairs:
            if {pair.one, pair.other} == {strategy, RANDOM}:
                return pair
        return None


def analyse(rows: Sequence[Row], target: float, axis: Axis) -> list[Analysis]:
    """Analyse each data set, in the order in which they first appear."""
    by_dataset: dict[str, list[Row]] = {}
    for row in rows:
        by_dataset.setdefault(row.dataset, []).append(row)
    return [_analyse(dataset, found, target, axis) for dataset, found in by_dataset.items()]


def _analyse(dataset: str, rows: Sequence[Row], target: float, axis: Axis) -> Analysis:
    good = statistics.usable(rows)
    reference = statistics.reference(good)
    goal = target * reference.miou.mean if reference else None
    every = statistics.curves(good)
    done = statistics.finished(every)
    areas = {name: statistics.areas(done, name) for name in AXES}
    efforts = {name: _efforts(done, name, goal, reference) for name in AXES}
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
        curves={one.strategy: _shown(one.strategy, every, done) for one in standings},
        standings=sorted(standings, key=lambda one: _order(one, axis)),
        pairs=statistics.compare_pairs(areas[axis]),
        ranges={name: statistics.common_range(done, name) for name in AXES},
        settings=_settings(rows[-1].settings),
        commits=[commit for commit, _ in Counter(row.commit or "unknown" for row in rows).most_common()],
        warnings=_warnings(rows, every, done),
    )


def _efforts(
    done: Sequence[Curve], axis: Axis, goal: float | None, reference: Reference | None
) -> dict[str, dict[int, Effort]]:
    if goal is None or reference is None:
        return {}
    return statistics.efforts(done, axis, goal, reference.totals[axis])


def _standing(
    strategy: str,
    rows: Sequence[Row],
    done: Sequence[Curve],
    areas: Mapping[Axis, Mapping[str, Mapping[int, float]]],
    efforts: Mapping[Axis, Mapping[str, Mapping[int, Effort]]],
    reference: Reference | None,
) -> Standing:
    own = [curve for curve in done if curve.strategy == strategy]
    of_areas = {axis: list(areas[axis].get(strategy, {}).values()) for axis in AXES}
    return Standing(
        strategy=strategy,
        seeds=len(own),
        area={axis: statistics.mean_interval(found) if found else None for axis, found in of_areas.items()},
        final=statistics.mean_interval([float(curve.miou[-1]) for curve in own]) if own else None,
        other=_other_measures([row for row in rows if row.strategy == strategy], own),
        efforts={axis: _effort_summary(strategy, efforts[axis], axis, reference) for axis in AXES},
        seconds=statistics.seconds([row for row in rows if row.strategy == strategy], own),
    )


def _other_measures(rows: Sequence[Row], own: Sequence[Curve]) -> dict[str, Interval]:
    ends = {(curve.seed, curve.last_round) for curve in own}
    last = [row for row in rows if (row.seed, row.round) in ends]
    found = {}
    for name, title in MEASURES.items():
        values = [value for row in last if (value := getattr(row, name)) is not None]
        if values and len(values) == len(last):
            found[title] = statistics.mean_interval(values)
    return found


def _effort_summary(
    strategy: str, efforts: Mapping[str, Mapping[int, Effort]], axis: Axis, reference: Reference | None
) -> EffortSummary | None:
    own = efforts.get(strategy)
    if not own or reference is None:
        return None
    value = statistics.geometric_mean([one.value for one in own.values()])
    total = reference.totals[axis]
    random = efforts.get(RANDOM, {})
    return EffortSummary(
        value=value,
        share=value / total if total > 0 else None,
        reached=sum(one.reached for one in own.values()),
        seeds=len(own),
        ratio=None if strategy == RANDOM else statistics.effort_ratio(own, random),
    )


def _shown(strategy: str, every: Sequence[Curve], done: Sequence[Curve]) -> list[Curve]:
    own = [curve for curve in done if curve.strategy == strategy]
    return own or [curve for curve in every if curve.strategy == strategy]


def _order(one: Standing, axis: Axis) -> tuple[float, str]:
    area = one.area[axis] or one.final
    return (-area.mean if area else 1.0), one.strategy


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
    """Say what makes the comparison less than fair, or incomplete."""
    found = [*_mixed_settings(rows), *_mixed_commits(rows)]
    lost = len(rows) - len(statistics.usable(rows))
    if lost:
        found.append(f"{lost} of {len(rows)} rows hold no number as mIoU or clicks, and are left out.")
    complete = {curve.name for curve in done}
    under_way = [curve.name for curve in every if curve.name not in complete]
    if under_way:
        found.append(f"Not finished, and so not compared: {_some(under_way)}.")
    return found + _missing_seeds(done)


def _mixed_settings(rows: Sequence[Row]) -> list[str]:
    counts = Counter(row.settings for row in rows)
    if len(counts) < 2:
        return []
    parsed = [_parsed(settings) for settings in counts]
    differing = []
    for name in sorted({name for one in parsed for name in one}):
        values = list(dict.fromkeys(one.get(name, "not set") for one in parsed))
        if len(values) > 1:
            differing.append(f"{name}: {_some(values)}")
    sizes = ", ".join(str(count) for count in counts.values())
    text = "; ".join(differing) or "they are written differently"
    return [f"Rows of {len(counts)} different settings ({sizes} rows) are compared with each other. {text}."]


def _mixed_commits(rows: Sequence[Row]) -> list[str]:
    counts = Counter(row.commit or "unknown" for row in rows)
    found = []
    if len(counts) > 1:
        text = _some([f"{commit} ({count} rows)" for commit, count in counts.most_common()])
        found.append(f"Rows of {len(counts)} different commits are compared with each other: {text}.")
    if any(commit.endswith("+") for commit in counts):
        found.append("Some rows were made by code with changes that were not committed (a + after the commit).")
    return found


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


def _some(names: Sequence[str], most: int = 12) -> str:
    """Join names, the first ones of many."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
