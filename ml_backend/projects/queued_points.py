"""The points that a ranking asks for, with why: what the network takes each for, by how much, and what it promises."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strategies import Point


@dataclass(frozen=True)
class QueuedPoint:
    """A point that is asked for.

    Attributes:
        row, column: of its pixel.
        guess: name of the class that the network takes it for; empty where no network was asked.
        margin: in [0, 1], by how much that class is likelier than the next; None likewise.
        score: what its answer promises, in the strategy's own unit; higher = more.
    """

    row: int
    column: int
    guess: str
    margin: float | None
    score: float


def points_to_text(points: Sequence[Point], classes: Sequence[str]) -> str:
    """Return points as text for the database.

    Args:
        classes: names of the network's classes.
    """
    rows = []
    for point in points:
        guess = "" if point.guess is None else classes[point.guess]
        margin = None if point.margin is None else round(point.margin, 4)
        rows.append([point.row, point.column, guess, margin, float(f"{point.score:.4g}")])
    return json.dumps(rows)


def points_from_text(text: str) -> tuple[QueuedPoint, ...]:
    """Return the points of a text of `points_to_text`; none where there is none.

    >>> points_from_text('[[3, 4, "cell", 0.25, 0.5]]')
    (QueuedPoint(row=3, column=4, guess='cell', margin=0.25, score=0.5),)
    """
    return tuple(QueuedPoint(*row) for row in json.loads(text)) if text else ()
