"""Which kind of question to ask: the class of a few points of an image, or its whole mask.

The points of an image resemble each other, so each tells less than the one before. Of what a mask teaches, k points
teach 1 - e^(-k/w): the first ones a w-th each, all pixels everything. Both kinds have an effort, and the kind that
teaches more per effort is asked for. The other kind is asked now and then, so that its effort stays known: by its
effort at most one part in ten, by its number at most one image in ten.

As long as it is not known what a mask takes, points are asked for, and a single mask: it may take ten clicks or a
thousand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from strategies.checks import check_number

WORTH = 60.0
"""w, the points that teach as much as a mask, were each on an image of its own."""
_EXPLORED = 0.1
"""Most of the effort, and of the images, that goes to the kind that teaches less."""
_LEAST = 0.01
"""Least effort of a question, in clicks: a mask that was right as it was shown took a look."""


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What answering took on average, opening an image included.

    Attributes:
        points: effort of all points of an image; None where none were answered yet.
        mask: effort of the mask of an image; None where none was made yet.
        unit: of both, in words.

    Raises:
        ValueError: on creation, when an effort is negative or not finite.
    """

    points: float | None = None
    mask: float | None = None
    unit: str = "clicks"

    def __post_init__(self) -> None:
        for name, value in (("points", self.points), ("mask", self.mask)):
            if value is not None:
                check_number(f"Prices.{name}", value, 0)


@dataclass(frozen=True, kw_only=True)
class Question:
    """The kind of question of a round.

    Attributes:
        is_points: whether points are asked for, and not masks.
        every: one image in so many is asked the other question; None: the second image alone.
        reason: why, in a sentence.
    """

    is_points: bool
    every: int | None
    reason: str

    def is_other(self, generator: torch.Generator) -> Iterator[bool]:
        """Yield for one image after the other whether it is asked the other question; the first is drawn."""
        if self.every is None:
            yield from (False, True)
            while True:
                yield False
        left = int(torch.randint(self.every, (), generator=generator))
        while True:
            yield left == 0
            left = self.every - 1 if left == 0 else left - 1


def question(count: int, prices: Prices, *, worth: float = WORTH) -> Question:
    """Choose the kind of question.

    Args:
        count: k, points of an image.
        prices: what both kinds take. In clicks, points that were not answered yet take one each.
        worth: w.

    >>> asked = question(10, Prices(points=10, mask=142))
    >>> asked.is_points, asked.every
    (True, 129)
    >>> print(asked.reason)
    Points: 10 of an image teach about 15 % of what its mask does and take 10 clicks, 7 % of its 142.
    >>> print(question(10, Prices(mask=22)).reason)
    Masks: 10 points of an image teach about 15 % of what its mask does, but take 10 clicks, 45 % of its 22.
    >>> print(question(10, Prices()).reason)
    Points: what a mask takes here is not known yet, and one is asked for to find out.
    """
    if prices.mask is None:
        reason = "Points: what a mask takes here is not known yet, and one is asked for to find out."
        return Question(is_points=True, every=None, reason=reason)
    points = prices.points
    if points is None:
        points = float(count) if prices.unit == "clicks" else 0.0
    points, mask = max(_LEAST, points), max(_LEAST, prices.mask)
    taught, effort = -math.expm1(-count / worth), points / mask
    is_points = taught > effort
    main, other = (points, mask) if is_points else (mask, points)
    every = max(math.ceil(1 / _EXPLORED), 1 + math.ceil((1 / _EXPLORED - 1) * other / main))
    if prices.points is None and prices.unit != "clicks":
        reason = f"Points: how many {prices.unit} they take here is not known yet."
        return Question(is_points=True, every=every, reason=reason)
    teach, part = (f"{100 * share:.0f} %" for share in (taught, effort))
    takes = f"take {_number(points)} {prices.unit}, {part} of its {_number(mask)}."
    if is_points:
        reason = f"Points: {count} of an image teach about {teach} of what its mask does and {takes}"
    else:
        reason = f"Masks: {count} points of an image teach about {teach} of what its mask does, but {takes}"
    return Question(is_points=is_points, every=every, reason=reason)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 10 else f"{value:.2g}"
