"""Distances from clicks along paths that cross few edges (Criminisi et al. 2008, equation 2, on a graph of cells).

A step costs by how much colour, features and the network's opinions change on it. Colours and features are measured
against their mean change in the image, so that neither a texture nor a haze is all edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

Map = npt.NDArray[np.float32]

_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))
_LENGTH = 0.2
"""Cost of a step by itself."""
_CROSSINGS = 8.0
"""What a change from one sure class to another costs, as a share of the longest side: 1 / this."""
_REACH = 0.3
"""Distances end here, in mean steps along the longest side."""


@dataclass(frozen=True, eq=False)
class Paths:
    """A graph of cells, each with a path to its eight neighbours.

    Attributes:
        costs: (N,N) sparse, above the diagonal.
        shape: rows and columns of cells.
    """

    costs: csr_array
    shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes of the graph."""
        return int(self.costs.data.nbytes + self.costs.indices.nbytes + self.costs.indptr.nbytes)

    @property
    def reach(self) -> float:
        """The largest distance."""
        return _REACH * max(self.shape)

    def distances(self, sources: npt.NDArray[np.bool_]) -> Map:
        """Return how far it is from the nearest source (r,c) to each cell, at most `reach`."""
        if not sources.any():
            return np.full(self.shape, self.reach, np.float32)
        indices = np.flatnonzero(sources)
        found = dijkstra(self.costs, directed=False, indices=indices, min_only=True, limit=self.reach)
        distances: Map = np.minimum(found, self.reach).astype(np.float32).reshape(self.shape)
        return distances


def paths(colours: Map, features: Map, opinions: Map | None, *, colour: float, feature: float) -> Paths:
    """Return the graph of cells.

    Args:
        colours: (r,c,3).
        features: (r,c,D).
        opinions: (r,c,C), probabilities of the classes; None: nobody knows.
        colour: weight of colours.
        feature: weight of features.
    """
    shape = colours.shape[:2]
    numbers = np.arange(shape[0] * shape[1], dtype=np.int32).reshape(shape)
    means = [max(_mean_change(one), 1e-6) for one in (colours, features)]
    starts, ends, costs = [], [], []
    for step in _STEPS:
        here, there = _shifted(shape, step)
        cost = np.full(numbers[here].shape, _LENGTH * float(np.hypot(*step)), np.float32)
        for one, weight, mean in zip((colours, features), (colour, feature), means, strict=True):
            cost += np.float32(weight / mean) * np.linalg.norm(one[here] - one[there], axis=-1)
        if opinions is not None:
            change = np.abs(opinions[here] - opinions[there]).sum(-1) / 2
            cost += np.float32(max(shape) / _CROSSINGS) * change
        starts.append(numbers[here].ravel())
        ends.append(numbers[there].ravel())
        costs.append(cost.ravel())
    where = np.concatenate(starts), np.concatenate(ends)
    return Paths(csr_array((np.concatenate(costs), where), shape=(numbers.size, numbers.size)), shape)


def _mean_change(values: Map) -> float:
    change: Sequence[Map] = [np.linalg.norm(np.diff(values, axis=axis), axis=-1).ravel() for axis in (0, 1)]
    joined = np.concatenate(change)
    return float(joined.mean()) if joined.size else 0.0


def _shifted(shape: tuple[int, int], step: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return all cells that have a neighbour one step away, and those neighbours."""
    down, right = step
    here = slice(0, shape[0] - down), slice(max(0, -right), shape[1] - max(0, right))
    return here, (slice(down, shape[0]), slice(max(0, right), shape[1] - max(0, -right)))
