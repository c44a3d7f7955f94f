"""Greedy facility location: choose images that are like as much of a pool as possible.

F(S) = Σ_j max(0, max_{i in S} cos(x_i, x_j)) over the pool grows with S, by less and less, so that greedy choices reach
at least 1 - 1/e of the best F (Nemhauser, Wolsey and Fisher, 1978).

Plain greedy choice would compare all K candidates with the pool of N for every pick, O(k·K·N·D), and a table of K x N
would not fit the memory. Two things make it fast, and equal to the plain choice to the last bit:

- *Only what changed*: a pick changes the gains of the others where it raised the coverage of the pool, and nowhere
  else. A product with the pick alone, O(N·D), bounds which images these can be; only they are compared with the
  candidates again. After t picks it is about one image in t, K·N·D·log k in all. (Minoux's lazy evaluation, 1978,
  saves as much only where gains are far apart: in a pool without clusters it evaluates almost all of them.)
- *Exact*: unit descriptors are rounded to multiples of 2^-26, so that their products are integers below 2^53, which
  float64 adds without rounding in any order; similarities are rounded to multiples of 2^-30 and summed as integers.
  Neither chunks nor threads nor the order of the pool can show, and equal gains are equal.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from strategies.descriptors import Floats, chunks, unit_rows

_UNIT = 2.0**26
"""Steps per unit of a descriptor."""
_ONE = 2.0**30
"""Steps per unit of a similarity: exact to 1e-9, and the sum over 2^33 images fits an int64."""
_SLACK = 2.0**-19
"""More than rounding to steps can change a similarity, for descriptors of up to 2^13 numbers."""
_NORMAL = 1e-15, 1e15
"""Lengths of descriptors for which products in float32 neither overflow nor vanish."""


class FacilityLocation:
    """Chooses images that cover a pool; memory is O(K·chunk + N) besides the descriptors.

    Args:
        descriptors: (N,D) of the pool; one of zeros is like nothing.
        threshold: similarities from it count 1, others 0 (maximum cover); None: similarities count as they are.

    Attributes:
        coverage: (N) similarity of each image to its nearest pick so far, 0 where it is negative; in steps of 2^-30.
    """

    def __init__(self, descriptors: Floats, threshold: float | None = None) -> None:
        self._descriptors, self._threshold = descriptors, threshold
        self._lengths = np.empty(len(descriptors))
        for rows in chunks(len(descriptors)):
            self._lengths[rows] = np.sqrt((descriptors[rows].astype(np.float64) ** 2).sum(axis=1))
        least, most = _NORMAL
        self._lengths[~((self._lengths > least) & (self._lengths < most))] = np.nan  # bounds nothing: looked at always
        self.coverage = np.zeros(len(descriptors))

    @property
    def value(self) -> float:
        """F of what has been picked."""
        return float(self.coverage.sum() / _ONE)

    def picks(self, candidates: NDArray[np.int64]) -> Iterator[int]:
        """Yield candidates, positions (K), by what each adds to the coverage; the first of those that add the same.

        >>> directions = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        >>> location = FacilityLocation(directions)
        >>> picks = location.picks(np.arange(4))
        >>> next(picks), location.value  # the first two are alike: it covers 2 images
        (0, 2.0)
        >>> list(picks)  # the second one adds nothing any more
        [2, 3, 1]
        """
        units = _integers(self._descriptors[candidates])  # (K,D)
        gains, waiting = self._gains(units), np.ones(len(candidates), dtype=np.bool_)
        for _ in range(len(candidates)):
            best = int(np.argmax(np.where(waiting, gains, -1)))
            waiting[best] = False
            self._add(units, best, gains)
            yield int(candidates[best])

    def _gains(self, units: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return what each candidate would add to the coverage: (K), in steps."""
        gains = np.zeros(len(units), dtype=np.int64)
        for rows in chunks(len(self._descriptors)):
            covered = self.coverage[rows, None]  # (T,1)
            more = np.maximum(self._similarities(self._descriptors[rows], units), covered) - covered  # (T,K)
            gains += more.sum(axis=0).astype(np.int64)
        return gains

    def _add(self, units: NDArray[np.float64], best: int, gains: NDArray[np.int64]) -> None:
        """Raise the coverage by a pick, and lower the gains by what is covered now, both in place."""
        direction = (units[best] / _UNIT).astype(self._descriptors.dtype)
        for rows in chunks(len(self._descriptors)):
            part, coverage = self._descriptors[rows], self.coverage[rows]  # a view: written to
            raised = self._may_raise(part, self._lengths[rows], direction, coverage)
            similar = self._similarities(part[raised], units)  # (J,K)
            before = coverage[raised]
            after = np.maximum(before, similar[:, best])
            coverage[raised] = after
            lost = np.clip(similar, before[:, None], after[:, None]) - before[:, None]  # (J,K)
            gains -= lost.sum(axis=0).astype(np.int64)

    def _may_raise(
        self, part: Floats, lengths: NDArray[np.float64], direction: Floats, coverage: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return which of the images (T,D) may be more similar to a direction (D) than they are covered: (J)."""
        slack = 4 * (part.shape[1] + 4) * np.finfo(part.dtype).eps + _SLACK
        with np.errstate(over="ignore", invalid="ignore"):
            most = (part @ direction) / lengths + slack  # (T)
            if self._threshold is not None:
                most = np.where(most < self._threshold, 0, 1)
            return np.flatnonzero(~(most * _ONE <= coverage))  # NaN is looked at, too

    def _similarities(self, part: Floats, units: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the cosines of images (T,D) and candidates (K,D) in whole steps: (T,K)."""
        cosines = _integers(part) @ units.T  # exact
        cosines *= _ONE / _UNIT**2
        if self._threshold is None:
            return np.rint(cosines, out=cosines)
        return np.where(cosines >= (self._threshold - _SLACK / 2) * _ONE, _ONE, 0)


def _integers(rows: Floats) -> NDArray[np.float64]:
    """Return unit descriptors (T,D) in whole steps."""
    scaled = unit_rows(rows)
    scaled *= _UNIT
    return np.rint(scaled, out=scaled)
