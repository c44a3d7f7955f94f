"""Which kind of question to ask: the class of a few points of an image, or its whole mask.

The points of an image resemble each other, so each tells less than the one before. Of what a mask teaches, k points
teach 1 - e^(-k/w): the first ones a w-th each, all pixels everything. Both kinds have an effort, and the kind that
teaches more per effort is asked for. The other kind is asked for now and then, so that its effort stays known: by its
effort at most one part in ten, by its number at most one image in ten.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from strategies.checks import check_number

WORTH = 60.0
"""w, the points that teach as much as a mask, were each on an image of its own."""
PIXELS_PER_CLICK = 10.0
"""Length of outline, in pixels, that takes a click: what is expected of masks before any was drawn."""
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
        is_measured: whether both were measured; else one of them, or both, is what is expected.

    Raises:
        ValueError: on creation, when an effort is negative or not finite.
    """

    points: float | None = None
    mask: float | None = None
    unit: str = "clicks"
    is_measured: bool = True

    def __post_init__(self) -> None:
        for name, value in (("points", self.points), ("mask", self.mask)):
            if value is not None:
                check_number(f"Prices.{name}", value, 0)

    def completed(self, *, points: float, mask: float) -> Prices:
        """Return the prices with what is expected in place of what was not measured.

        Args:
            points, mask: expected, in clicks. Where one of the two was measured, in whatever unit, the other is taken
                to be dearer or cheaper than it by as much as in clicks.

        >>> Prices(points=20, unit="seconds").completed(points=10, mask=100)
        Prices(points=20, mask=200.0, unit='seconds', is_measured=False)
        """
        if self.points is not None and self.mask is not None:
            return self
        points, mask = max(_LEAST, points), max(_LEAST, mask)
        if self.points is None and self.mask is None:
            return Prices(points=points, mask=mask, is_measured=False)
        if self.mask is None:
            return replace(self, mask=(self.points or 0.0) * mask / points, is_measured=False)
        return replace(self, points=self.mask * points / mask, is_measured=False)


@dataclass(frozen=True, kw_only=True)
class Question:
    """The kind of question of a round.

    Attributes:
        is_points: whether points are asked for, and not masks.
        every: one image in so many is asked the other question.
        reason: why, in a sentence.
    """

    is_points: bool
    every: int
    reason: str

    def is_other(self, generator: torch.Generator) -> Iterator[bool]:
        """Yield for one image after the other whether it is asked the other question: one of every `every` in turn."""
        left = int(torch.randint(self.every, (), generator=generator))
        while True:
            yield left == 0
            left = self.every - 1 if left == 0 else left - 1


def question(count: int, prices: Prices, *, worth: float = WORTH) -> Question:
    """Choose the kind of question.

    Args:
        count: k, points of an image.
        prices: what both kinds take; both known.
        worth: w.

    >>> asked = question(10, Prices(points=10, mask=142))
    >>> asked.is_points, asked.every
    (True, 129)
    >>> print(asked.reason)
    Points: 10 of an image teach about 15 % of what its mask does and take 10 clicks, 7 % of its 142.
    >>> print(question(10, Prices(points=10, mask=22)).reason)
    Masks: 10 points of an image teach about 15 % of what its mask does, but take 10 clicks, 45 % of its 22.
    """
    points, mask = (max(_LEAST, float(price or 0)) for price in (prices.points, prices.mask))
    taught, effort = -math.expm1(-count / worth), points / mask
    is_points = taught > effort
    main, other = (points, mask) if is_points else (mask, points)
    every = max(math.ceil(1 / _EXPLORED), 1 + math.ceil((1 / _EXPLORED - 1) * other / main))
    teach, part = (f"{100 * share:.0f} %" for share in (taught, effort))
    doubt = "" if prices.is_measured else ", as is expected"
    takes = f"take {_number(points)} {prices.unit}, {part} of its {_number(mask)}{doubt}."
    if is_points:
        reason = f"Points: {count} of an image teach about {teach} of what its mask does and {takes}"
    else:
        reason = f"Masks: {count} points of an image teach about {teach} of what its mask does, but {takes}"
    return Question(is_points=is_points, every=every, reason=reason)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 10 else f"{value:.2g}"
