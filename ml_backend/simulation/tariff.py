"""What labels are charged: the clicks of masks as they are, so many for each point, so many for opening an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Tariff:
    """What annotators are charged for besides the clicks of outlines.

    Attributes:
        point: clicks that the answer to a point counts as.
        opening: clicks that opening an image counts as, each time.
    """

    point: int = 1
    opening: int = 0

    def clicks(self, *, masks: float, points: int, opened: int) -> float:
        """Return the clicks of some labels.

        Args:
            masks: clicks that their masks took.
            points: answers to points.
            opened: how often an image was opened.

        >>> Tariff(point=3, opening=5).clicks(masks=40, points=10, opened=2)
        80
        """
        return masks + self.point * points + self.opening * opened


USUAL: Final = Tariff()
GRID: Final = tuple(Tariff(point, opening) for point in (1, 2, 3) for opening in (0, 2, 5))
"""The tariffs that savings are reported for."""
