"""What a team saves, in three figures, for several tariffs.

    same training   clicks to the target against random images, masks drawn from nothing on both sides
    the product     the same with masks mended from those that are predicted, against random images drawn from nothing
    every mask      clicks until every image has its mask, those that are left mended from the last network's, against
                    drawing all of them from nothing

All are paired by seed, and none is a test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ml_backend.simulation.report.charges import charged, to_finish
from ml_backend.simulation.report.comparison import RANDOM, Efforts, Ratio, effort_ratio, efforts_of
from ml_backend.simulation.report.curves import Axis, curves_of, finished
from ml_backend.simulation.results import FULL, Row
from ml_backend.simulation.tariff import GRID, Tariff

_AXIS: Axis = "clicks"


@dataclass(frozen=True)
class Saving:
    """The figures of a strategy at a tariff, each a ratio of clicks; None where it is not known.

    Attributes:
        training: against random images with the same training; None for random itself.
        product: against random images drawn from nothing.
        whole: clicks to finish the data set, against drawing all of it from nothing.
    """

    strategy: str
    tariff: Tariff
    training: Ratio | None
    product: Ratio | None
    whole: Ratio | None


def savings_of(rows: Sequence[Row], goal: float | None) -> list[Saving]:
    """Return the figures of every strategy of a data set, tariff by tariff; none where rows do not count enough.

    Args:
        goal: mIoU that the clicks are counted to; None: it is not known.
    """
    found = []
    for tariff in GRID:
        drawn, mended = (efforts_at(rows, tariff, goal, mended=mended) for mended in (False, True))
        wholes = wholes_at(rows, tariff)
        random, everything = drawn.get(RANDOM, {}), wholes.get(FULL, {})
        for strategy in sorted(drawn):
            found.append(
                Saving(
                    strategy,
                    tariff,
                    training=None if strategy == RANDOM else effort_ratio(drawn[strategy], random),
                    product=effort_ratio(mended.get(strategy, {}), random),
                    whole=effort_ratio(wholes.get(strategy, {}), everything),
                )
            )
    return found


def efforts_at(rows: Sequence[Row], tariff: Tariff, goal: float | None, *, mended: bool) -> dict[str, Efforts]:
    """Return strategy -> seed -> clicks to a mIoU, of finished runs; None where it was not reached."""
    of_tariff = charged(rows, point=tariff.point, opening=tariff.opening, mended=mended)
    return dict(efforts_of(finished(curves_of(of_tariff)), _AXIS, math.inf if goal is None else goal))


def wholes_at(rows: Sequence[Row], tariff: Tariff) -> Mapping[str, Efforts]:
    """Return strategy -> seed -> clicks until every image has its mask; those of "full" are drawn from nothing."""
    found: dict[str, dict[int, float | None]] = {}
    for row in sorted(rows, key=lambda row: row.round):  # the last that tells it counts
        clicks = to_finish(row, tariff)
        if clicks is not None:
            found.setdefault(row.strategy, {})[row.seed] = clicks
    return found
