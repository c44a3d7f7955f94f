"""Tests of the contrasts that were named before the run, and of nothing else.

A contrast is decided once all runs that it names are finished, and with them alone: whoever looks at half of the seeds
and stops where it looks well finds an effect in noise. Its p is that of a paired t-test, corrected (Holm) over all
contrasts of the file, those that are not decided among them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ml_backend.simulation.contrasts import Contrast
from ml_backend.simulation.report.charges import charged, tariff_of
from ml_backend.simulation.report.comparison import Ratio, differences, effort_ratio, efforts_of, log_ratios
from ml_backend.simulation.report.curves import Axis, Curve, areas_of, curves_of, reference_of
from ml_backend.simulation.report.savings import wholes_at
from ml_backend.simulation.report.statistics import LEVEL, Interval, Numbers, holm, mean_interval, paired_t
from ml_backend.simulation.results import FULL, Row
from ml_backend.simulation.tariff import Tariff


@dataclass(frozen=True)
class Verdict:
    """What came of a contrast.

    Attributes:
        finished: number of its seeds of which all runs are there; it is decided where all are.
        ratio: of the efforts, the strategy's by the other's; None where it is not decided, or no seed has both.
        lead: of the strategy's area over the other's; None likewise.
        p: of the paired t-test of what the contrast measures; None where there is none.
        p_corrected: the same, corrected for all contrasts of the file.
    """

    contrast: Contrast
    finished: int
    ratio: Ratio | None = None
    lead: Interval | None = None
    p: float | None = None
    p_corrected: float | None = None

    @property
    def is_decided(self) -> bool:
        """Whether all runs that the contrast names are there."""
        return self.finished == len(self.contrast.seeds)

    @property
    def better(self) -> str | None:
        """The better strategy; None unless the corrected p is below 0.05.

        Efforts are compared in the seeds that reached the target: one that missed it more often is not the better.
        """
        if self.p_corrected is None or self.p_corrected >= LEVEL:
            return None
        one, other = self.contrast.strategy, self.contrast.against
        if self.contrast.measure == "area":
            return None if self.lead is None else one if self.lead.mean > 0 else other
        if self.ratio is None:
            return None
        if self.ratio.value < 1:
            return one if self.ratio.missed <= self.ratio.other_missed else None
        return other if self.ratio.other_missed <= self.ratio.missed else None


def verdicts_on(contrasts: Sequence[Contrast], rows: Sequence[Row], target: float, axis: Axis) -> list[Verdict]:
    """Test contrasts on rows of any data sets, in their order."""
    found = [_verdict(contrast, rows, target, axis) for contrast in contrasts]
    corrected = holm([1.0 if one.p is None else one.p for one in found])
    return [
        one if one.p is None else dataclasses.replace(one, p_corrected=p)
        for one, p in zip(found, corrected, strict=True)
    ]


def _verdict(contrast: Contrast, rows: Sequence[Row], target: float, axis: Axis) -> Verdict:
    own = [row for row in rows if row.dataset == contrast.dataset and row.seed in contrast.seeds]
    compared = {contrast.strategy, contrast.against} - {FULL}
    runs: dict[str, dict[int, Curve]] = {name: {} for name in compared}
    for curve in curves_of(_as_charged(contrast, (row for row in own if row.round <= contrast.rounds))):
        if curve.strategy in runs and curve.last_round == contrast.rounds:
            runs[curve.strategy][curve.seed] = curve
    full = {row.seed for row in own if row.strategy == FULL}
    finished = len(set.intersection(full, *map(set, runs.values())))
    reference = reference_of(own)
    if reference is None or finished < len(contrast.seeds):
        return Verdict(contrast, finished)
    if contrast.measure == "whole":
        return _whole(contrast, [row for row in own if row.round <= contrast.rounds])
    return _decided(contrast, runs, target * reference.miou.mean, axis)


def _as_charged(contrast: Contrast, rows: Iterable[Row]) -> list[Row]:
    """Return rows with the clicks that a contrast charges."""
    every = list(rows)
    if contrast.measure != "product" and contrast.point_clicks is None and contrast.opening_clicks is None:
        return every
    charge = partial(charged, point=contrast.point_clicks, opening=contrast.opening_clicks)
    others = charge([row for row in every if row.strategy != contrast.strategy])
    own = [row for row in every if row.strategy == contrast.strategy]
    return [*others, *charge(own, mended=contrast.measure == "product")]


def _whole(contrast: Contrast, rows: Sequence[Row]) -> Verdict:
    usual = tariff_of(rows[0])
    tariff = Tariff(
        usual.point if contrast.point_clicks is None else contrast.point_clicks,
        usual.opening if contrast.opening_clicks is None else contrast.opening_clicks,
    )
    wholes = wholes_at(rows, tariff)
    own, other = wholes.get(contrast.strategy, {}), wholes.get(FULL, {})
    ratio = effort_ratio(own, other)
    return Verdict(contrast, len(contrast.seeds), ratio=ratio, p=paired_t(log_ratios(own, other)))


def _decided(contrast: Contrast, runs: Mapping[str, Mapping[int, Curve]], goal: float, axis: Axis) -> Verdict:
    curves = [curve for own in runs.values() for curve in own.values()]
    efforts, areas = efforts_of(curves, axis, goal), areas_of(curves, axis)
    own, other = efforts[contrast.strategy], efforts[contrast.against]
    gains: Numbers = differences(areas.get(contrast.strategy, {}), areas.get(contrast.against, {}))
    tested = gains if contrast.measure == "area" else log_ratios(own, other)
    return Verdict(
        contrast,
        len(contrast.seeds),
        ratio=effort_ratio(own, other),
        lead=mean_interval(gains) if len(gains) else None,
        p=paired_t(tested),
    )
