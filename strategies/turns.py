"""Drawing images class by class: a share of the picks goes to the classes in turn, the others are drawn from all.

The smallest of exponential numbers, each divided by its weight, falls to an image with a probability proportional to
the weight; so does the next among the rest. A single random number per image and class therefore suffices.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.noise import exponential

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Turn:
    """A position that was drawn, and the class whose turn it was; None where it was drawn from all."""

    position: int
    of: int | None


def drawn(weights: Values, generator: torch.Generator) -> list[int]:
    """Draw all positions without replacement, each in proportion to its weight: (N), positive."""
    order: list[int] = np.argsort(exponential(len(weights), generator) / weights, kind="stable").tolist()
    return order


def in_turns(
    weights: Values,
    *,
    others: Sequence[int],
    areas: Values,
    share: float,
    generator: torch.Generator,
    limit: int | None = None,
) -> Iterator[Turn]:
    """Draw positions (N) without replacement until all are drawn.

    The class with the smallest area has its turn first; a class that no image is left of has none.

    Args:
        weights: (N,C), at least 0; in a turn of class c, an image is drawn in proportion to its weight of c.
        others: all positions, in the order in which the other picks are made.
        areas: (C), by which the classes take turns, the smallest first.
        share: part of the picks that goes to the classes, in [0, 1], spread evenly.
        limit: at most so many images wait for the turns of a class; None for all.
    """
    return _picks(others, _queues(weights, areas, limit, generator), share)


def _queues(weights: Values, areas: Values, limit: int | None, generator: torch.Generator) -> deque[Iterator[Turn]]:
    """Draw, for each class from the smallest, the images with some weight in the order of their turns."""
    queues: dict[int, Iterator[Turn]] = {}
    for number in range(weights.shape[1]):
        turns = exponential(len(weights), generator)
        some = np.flatnonzero(weights[:, number] > 0)
        first = np.argsort(turns[some] / weights[some, number], kind="stable")[:limit]
        queues[number] = iter([Turn(position, number) for position in some[first].tolist()])
    return deque(queues[number] for number in np.argsort(areas, kind="stable").tolist())


def _picks(others: Sequence[int], queues: deque[Iterator[Turn]], share: float) -> Iterator[Turn]:
    plain, taken = iter(others), set[int]()
    for count in range(len(others)):
        stratified = math.floor((count + 1) * share) > math.floor(count * share)
        pick = _next_of_classes(queues, taken) if stratified else None
        if pick is None:
            pick = Turn(next(position for position in plain if position not in taken), None)
        taken.add(pick.position)
        yield pick


def _next_of_classes(queues: deque[Iterator[Turn]], taken: set[int]) -> Turn | None:
    """Take an image from the class whose turn it is; None when no class has an image left."""
    while queues:
        queue = queues.popleft()
        pick = next((turn for turn in queue if turn.position not in taken), None)
        if pick is not None:
            queues.append(queue)
            return pick
    return None
