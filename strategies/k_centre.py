"""Greedy k-centre: cover a pool with balls around chosen images, the largest ball as small as the greedy rule can.

Each pick is the image farthest from all centres so far; the radius is at most twice the best possible radius
(Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985).

A pick costs one product of the descriptors with the new centre, O(N·D), in their own precision. It bounds every
distance from below; only images that the centre may have come closer to are measured again, in float64 and by
differences, so that copies of an image are at a distance of exactly 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from strategies.descriptors import Floats, chunks


class KCentre:
    """Chooses images of a pool, farthest first; memory is O(N) besides the descriptors.

    Args:
        descriptors: (N,D), compared by Euclidean distance.
        centres: (L,D), what covers the pool already; L can be 0.
        order: (N) all positions; the first of equally distant images is chosen.

    Attributes:
        nearest: (N) float64, squared distance to the nearest centre, -1 for images that were chosen; infinite
            while there is no centre.
    """

    def __init__(self, descriptors: Floats, centres: Floats, order: NDArray[np.int64]) -> None:
        self._descriptors, self._order = descriptors, order
        self._squares = np.empty(len(descriptors))  # (N) squared lengths
        for rows in chunks(len(descriptors)):
            self._squares[rows] = (descriptors[rows].astype(np.float64) ** 2).sum(axis=1)
        self.nearest = np.full(len(descriptors), np.inf)
        self._approach(centres)

    def picks(self) -> Iterator[int]:
        """Yield positions until every image is chosen; without a centre the image nearest to the mean comes first.

        >>> line = np.array([[0.0], [1.0], [4.0], [9.0]])  # the mean is 3.5
        >>> list(KCentre(line, np.empty((0, 1)), np.arange(4)).picks())  # 4, then 9 (5 off), 0 (4 off), 1
        [2, 3, 0, 1]
        >>> next(KCentre(line, np.array([[8.0]]), np.arange(4)).picks())  # 0 is 8 off
        0
        """
        for _ in range(len(self._order)):
            farthest = np.argmax(self.nearest[self._order])
            pick = int(self._order[farthest])
            if np.isinf(self.nearest[pick]):
                pick = self._central()
            self._approach(self._descriptors[pick : pick + 1])
            self.nearest[pick] = -1
            yield pick

    def _approach(self, centres: Floats) -> None:
        """Lower the distances to the nearest centre, now that there are these (L,D), too."""
        for rows in chunks(len(self._descriptors)):
            part = self._descriptors[rows]  # (T,D): stays in the cache for all centres
            for centre in centres:
                self._approach_one(part, self._squares[rows], centre, self.nearest[rows])

    def _approach_one(
        self, part: Floats, squares: NDArray[np.float64], centre: Floats, nearest: NDArray[np.float64]
    ) -> None:
        """Lower `nearest` (T) in place for the images `part` (T,D)."""
        exact = centre.astype(np.float64)
        length = (exact**2).sum()
        with np.errstate(over="ignore", invalid="ignore"):
            product = np.einsum("td,d->t", part, centre.astype(part.dtype))  # (T): a BLAS is slower at it
            precision = np.finfo(part.dtype)
            rounding = precision.eps * np.sqrt(squares * length) + precision.tiny  # of one term, underflow included
            least = squares + length - 2 * product - 4 * (part.shape[1] + 4) * rounding
            closer = np.flatnonzero(~(least >= nearest))  # NaN, from products that overflow, is looked at, too
        distance = ((part[closer] - exact) ** 2).sum(axis=1)
        nearest[closer] = np.minimum(nearest[closer], distance)

    def _central(self) -> int:
        """Return the image nearest to the mean, the first in order of those."""
        total = np.zeros(self._descriptors.shape[1])  # (D)
        for rows in chunks(len(self._order)):
            total += self._descriptors[self._order[rows]].sum(axis=0, dtype=np.float64)
        mean, distance = total / len(self._order), np.empty(len(self._order))
        for rows in chunks(len(self._order)):
            distance[rows] = ((self._descriptors[rows] - mean) ** 2).sum(axis=1)
        return int(self._order[np.argmin(distance[self._order])])
