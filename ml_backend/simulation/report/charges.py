"""Rows charged anew: other clicks for a point or for opening an image, masks that are mended. It takes no training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

from ml_backend.simulation.results import Row
from ml_backend.simulation.tariff import USUAL, Tariff


def charged(
    rows: Iterable[Row], *, point: int | None = None, opening: int | None = None, mended: bool = False
) -> list[Row]:
    """Return rows with the clicks of a tariff; those that count too little for it are left out.

    Args:
        point, opening: see `Tariff`; None: as in the run.
        mended: masks are mended from those that were predicted, and not drawn from nothing.
    """
    found = []
    for row in rows:
        own = tariff_of(row)
        tariff = Tariff(own.point if point is None else point, own.opening if opening is None else opening)
        masks = row.mended if mended else row.drawn
        if masks is not None and row.points is not None and row.opened is not None:
            clicks = tariff.clicks(masks=masks, points=row.points, opened=row.opened)
            found.append(replace(row, clicks=clicks))
    return found


def to_finish(row: Row, tariff: Tariff) -> float | None:
    """Return the clicks until every image has its mask: those of a last round, and those of mending what is left.

    None where the row does not say what is left.
    """
    if row.mended is None or row.rest is None or row.rest_mended is None:
        return None
    return tariff.clicks(
        masks=row.mended + row.rest_mended, points=row.points or 0, opened=(row.opened or 0) + row.rest
    )


def tariff_of(row: Row) -> Tariff:
    """Return what a run was charged."""
    try:
        settings = json.loads(row.settings)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        return USUAL
    return Tariff(settings.get("point_clicks", USUAL.point), settings.get("opening_clicks", USUAL.opening))
