"""Drawing the points of one image out of its candidates, so that they are never all in one place.

Points are drawn one after the other, each in proportion to its weight, from what is at least a given distance from
those before. Without more, a single long boundary can take them all. So they are drawn at different scales in turn:
from the whole image; from the quarters of it that have the fewest points; from the sixteenths that have the fewest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from strategies.candidates import LEAST, Candidates, Pixels, Size, Values
from strategies.observation import Point, Region

Weights = Callable[[Sequence[int]], Values]
"""Weights (n) of the candidates, given those that were drawn."""
Race = Callable[[int], Values]
"""So many positive random numbers with density exp(-x)."""


def draw(
    candidates: Candidates,
    weights: Weights,
    race: Race,
    *,
    count: int,
    apart: float,
    scales: int,
    size: Size,
    asked: Sequence[Region] = (),
) -> list[int]:
    """Return positions of candidates in the order in which they were drawn.

    Args:
        weights: a weight of 0 comes after all others.
        race: where chance comes from.
        count: most points.
        apart: least distance of two points, in pixels of what the network saw.
        scales: how many scales there are; 1: the whole image alone.
        size: height and width of the original image.
        asked: boxes of the original that were asked for before: no point is in one, and each counts as a point in its
            part of the image.
    """
    live = outside(candidates.pixels, asked)
    cells = [_cells(candidates.pixels, scale, size) for scale in range(scales)]  # (n) each
    taken = [np.bincount(_cells(_middles(asked), scale, size), minlength=4**scale) for scale in range(scales)]
    drawn: list[int] = []
    while len(drawn) < count and live.any():
        scale = len(drawn) % scales
        points = taken[scale][cells[scale]]  # in the part of the image that each candidate is in
        eligible = live & (points == points[live].min())
        times = race(len(candidates)) / np.maximum(weights(drawn), LEAST)
        pick = int(np.where(eligible, times, np.inf).argmin())
        drawn.append(pick)
        for counts, cell in zip(taken, cells, strict=True):
            counts[cell[pick]] += 1
        live &= _distance(candidates.places, pick) >= apart
        live &= (candidates.pixels != candidates.pixels[pick]).any(axis=1)  # a small original has a pixel twice
    return drawn


def distances(descriptors: Values, drawn: Sequence[int]) -> Values:
    """Return a quarter of the squared distance of descriptors (n,D) to the nearest that was drawn: (n) in [0, 1].

    All have length 1. 1 everywhere before anything was drawn.

    >>> distances(np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), [0]).tolist()
    [0.0, 0.5, 1.0]
    """
    if not drawn:
        return np.ones(len(descriptors))
    likeness: Values = (descriptors @ descriptors[list(drawn)].T).max(axis=1)
    apart = ((1 - likeness) / 2).clip(0, 1)
    return np.where(apart > LEAST, apart, 0.0)


def points_of(own: Candidates, drawn: Sequence[int], scores: Values) -> tuple[Point, ...]:
    """Return drawn candidates as points, the highest score first, of equal ones the first drawn."""
    points = []
    for one in sorted(drawn, key=lambda place: -scores[place]):
        row, column = own.pixels[one].tolist()
        guess = int(own.classes[one])
        asked = guess >= 0  # a network was
        points.append(
            Point(
                row=row,
                column=column,
                score=float(scores[one]),
                guess=guess if asked else None,
                margin=float(own.margin[one]) if asked else None,
            )
        )
    return tuple(points)


def outside(pixels: Pixels, boxes: Sequence[Region]) -> NDArray[np.bool_]:
    """Return whether pixels (n,2) are in none of the boxes: (n)."""
    live = np.ones(len(pixels), np.bool_)
    for box in boxes:
        low = np.array([box.top, box.left])
        live &= ((pixels < low) | (pixels >= low + np.array([box.height, box.width]))).any(axis=1)
    return live


def _cells(pixels: Pixels, scale: int, size: Size) -> Pixels:
    """Return which part of the image pixels (n,2) are in, of 4^scale parts: (n)."""
    parts = 2**scale
    rows, columns = (pixels * parts // np.array(size)).clip(0, parts - 1).T
    cells: Pixels = rows * parts + columns
    return cells


def _middles(boxes: Sequence[Region]) -> Pixels:
    middles = [(box.top + box.height // 2, box.left + box.width // 2) for box in boxes]
    return np.array(middles, np.int64).reshape(-1, 2)


def _distance(places: Pixels, pick: int) -> Values:
    distance: Values = np.hypot(*(places - places[pick]).T.astype(np.float64))
    return distance
