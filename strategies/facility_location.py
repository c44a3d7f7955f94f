"""Greedy facility location: choose images that are like as much of a pool as possible.

F(S) = Σ_j max(0, max_{i in S} cos(x_i, x_j)) over the pool grows with S, by less and less, so that greedy choices reach
at least 1 - 1/e of the best F (Nemhauser, Wolsey and Fisher, 1978).

Plain greedy choice would compare all K candidates with the pool of N for every pick, O(k·K·N·D). Three things make it
fast, and equal to the plain choice to the last bit:

- *Once*: similarities are computed once and kept in three bytes each, as many as the memory allowed for them takes; a
  million images and 256 candidates take 732 MB. Those of the images beyond are computed again when they are needed.
- *Only what changed*: a pick changes the gains of the others where it raised the coverage of the pool, and nowhere
  else. What was kept of the pick alone says which images these are; only they are compared with the candidates again.
  (Where nothing was kept a product with the pick alone, O(N·D), bounds it.) After t picks it is about one image in
  t, N·K·log k in all. (Minoux's lazy evaluation, 1978, saves as much only where gains are far apart: in a pool without
  clusters it evaluates almost all of them.)
- *Exact*: unit descriptors are rounded to multiples of 2^-26, so that their products are integers below 2^53, which
  float64 adds without rounding in any order; similarities are rounded to multiples of 2^-23 and summed as integers.
  Neither chunks nor threads nor memory nor the order of the pool can show, and equal gains are equal.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from strategies.descriptors import Floats, chunks, unit_rows

_UNIT = 2.0**26
"""Steps per unit of a descriptor."""
ONE = 2**23
"""Steps per unit of a similarity: as exact as float32, and what is at least 0 and at most 1 fits three bytes."""
_SLACK = 2.0**-19
"""More than rounding to steps can change a similarity, for descriptors of up to 2^13 numbers."""
_NORMAL = 1e-15, 1e15
"""Lengths of descriptors for which products in float32 neither overflow nor vanish."""
_BYTES = 3
"""Of a similarity that is kept."""
_MEMORY = 768 * 2**20
"""Bytes for the similarities that are kept."""

Steps = NDArray[np.int32]
"""Similarities in whole steps; those below 0 are 0."""


class FacilityLocation:
    """Chooses images that cover a pool.

    Args:
        descriptors: (N,D) of the pool; a descriptor of zeros is like nothing.
        threshold: similarities from it count 1, others 0 (maximum cover); None: similarities count as they are.
        memory: bytes for keeping similarities; besides it takes O(K·chunk + N). It changes no result.

    Attributes:
        coverage: (N) similarity of each image to its nearest pick so far, 0 where it is negative; in steps.
    """

    def __init__(self, descriptors: Floats, threshold: float | None = None, memory: int = _MEMORY) -> None:
        self._descriptors, self._threshold, self._memory = descriptors, threshold, memory
        self.coverage: Steps = np.zeros(len(descriptors), dtype=np.int32)

    @property
    def value(self) -> float:
        """F of what has been picked."""
        return float(self.coverage.sum(dtype=np.int64) / ONE)

    def picks(self, candidates: NDArray[np.int64]) -> Iterator[int]:
        """Yield candidates, positions (K), by what each adds to the coverage; the first of those that add the same.

        >>> directions = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        >>> location = FacilityLocation(directions)
        >>> picks = location.picks(np.arange(4))
        >>> next(picks), location.value  # the first two are alike: it covers 2 images
        (0, 2.0)
        >>> list(picks)  # the second adds nothing any more
        [2, 3, 1]
        """
        parts, gains = self._compared(unit_steps(self._descriptors[candidates]))
        waiting = np.ones(len(candidates), dtype=np.bool_)
        for _ in range(len(candidates)):
            best = int(np.argmax(np.where(waiting, gains, -1)))
            waiting[best] = False
            for rows, part in zip(chunks(len(self.coverage)), parts, strict=True):
                gains -= _covered(part, best, self.coverage[rows])
            yield int(candidates[best])

    def _compared(self, directions: NDArray[np.float64]) -> tuple[list[_Part], NDArray[np.int64]]:
        """Compare the pool with the candidates' directions (K,D): its chunks, and what each would add (K), in steps."""
        parts: list[_Part] = []
        gains, left = np.zeros(len(directions), dtype=np.int64), self._memory
        for rows in chunks(len(self.coverage)):
            similar = similarities(self._descriptors[rows], directions, self._threshold)  # (T,K)
            left -= similar.size * _BYTES
            again = left < 0
            parts.append(_Computed(self._descriptors[rows], directions, self._threshold) if again else _Kept(similar))
            gains += _above(similar, self.coverage[rows])
        return parts, gains


class _Kept:
    """Similarities of a chunk of the pool to the candidates (T,K), in three bytes each."""

    def __init__(self, steps: Steps) -> None:
        self._high, self._low = (steps >> 8).astype(np.uint16), (steps & 255).astype(np.uint8)

    def may_raise(self, candidate: int, coverage: Steps) -> NDArray[np.int64]:
        """Return which images may be more similar to a candidate than they are covered (T): positions (J)."""
        near = np.flatnonzero(self._high[:, candidate] >= coverage >> 8)
        return near[self._whole(near, candidate) > coverage[near]]

    def steps(self, images: NDArray[np.int64]) -> Steps:
        """Return the similarities of some images, positions (J): (J,K)."""
        return self._whole(images)

    def _whole(self, *index: NDArray[np.int64] | int) -> Steps:
        steps: Steps = self._high[index].astype(np.int32)
        steps <<= 8
        steps |= self._low[index]
        return steps


class _Computed:
    """Likewise, computed from descriptors (T,D) and the candidates' directions (K,D) whenever they are asked for."""

    def __init__(self, descriptors: Floats, directions: NDArray[np.float64], threshold: float | None) -> None:
        self._descriptors, self._directions, self._threshold = descriptors, directions, threshold
        self._lengths = np.sqrt((descriptors.astype(np.float64) ** 2).sum(axis=1))  # (T)
        least, most = _NORMAL
        self._lengths[~((self._lengths > least) & (self._lengths < most))] = np.nan  # bounds nothing: looked at always

    def may_raise(self, candidate: int, coverage: Steps) -> NDArray[np.int64]:
        """Bound the similarities by a product in the descriptors' own precision."""
        precision = self._descriptors.dtype
        slack = 4 * (self._descriptors.shape[1] + 4) * np.finfo(precision).eps + _SLACK
        with np.errstate(over="ignore", invalid="ignore"):
            direction = (self._directions[candidate] / _UNIT).astype(precision)
            most = np.einsum("td,d->t", self._descriptors, direction) / self._lengths + slack  # (T)
            if self._threshold is not None:
                most = np.where(most < self._threshold, 0, 1)
            return np.flatnonzero(~(most * ONE <= coverage))  # NaN is looked at, too

    def steps(self, images: NDArray[np.int64]) -> Steps:
        """Return the similarities of some images, positions (J): (J,K)."""
        return similarities(self._descriptors[images], self._directions, self._threshold)


_Part = _Kept | _Computed


def _covered(part: _Part, best: int, coverage: Steps) -> NDArray[np.int64]:
    """Raise the coverage (T) of a chunk by a pick, in place, and return what candidates can add no more: (K)."""
    raised = part.may_raise(best, coverage)  # (J)
    similar, before = part.steps(raised), coverage[raised]  # (J,K), (J)
    after = np.maximum(before, similar[:, best])
    coverage[raised] = after
    return _above(np.minimum(similar, after[:, None], out=similar), before)


def _above(similar: Steps, coverage: Steps) -> NDArray[np.int64]:
    """Return what each candidate, similar to the images by (J,K), adds to their coverage (J): (K)."""
    more = np.maximum(similar, coverage[:, None]) - coverage[:, None]
    total: NDArray[np.int64] = more.sum(axis=0, dtype=np.int64)
    return total


def similarities(descriptors: Floats, directions: NDArray[np.float64], threshold: float | None = None) -> Steps:
    """Return the cosines of images (T,D) and candidates' directions (K,D), computed exactly, then rounded: (T,K)."""
    cosines = unit_steps(descriptors) @ directions.T  # exact
    cosines *= ONE / _UNIT**2
    if threshold is None:
        np.rint(cosines, out=cosines)
    else:
        cosines = np.where(cosines >= (threshold - _SLACK / 2) * ONE, float(ONE), 0.0)
    steps: Steps = np.maximum(cosines, 0, out=cosines).astype(np.int32)
    return steps


def unit_steps(rows: Floats) -> NDArray[np.float64]:
    """Return unit descriptors (T,D) in whole steps of 2^-26."""
    scaled = unit_rows(rows)
    scaled *= _UNIT
    return np.rint(scaled, out=scaled)
