"""Ordering as pure functions on small arrays with an entry per image.

Positions are indices into the arrays that were passed, int64 (N). Everything starts from the order of the
ids, so that neither the order of the pool nor the size of its batches can show in a ranking.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from strategies.checks import Id


def by_id(ids: Sequence[Id]) -> NDArray[np.int64]:
    """Return the positions in ascending order of id (strings compare by code point).

    >>> by_id([30, 10, 20]).tolist()
    [1, 2, 0]
    """
    return np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)


def by_information(ids: Sequence[Id], information: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the positions in descending order of information (N), ties in ascending order of id.

    >>> by_information(["c", "b", "a"], np.array([0.5, 0.9, 0.5])).tolist()  # b, then a before c
    [1, 2, 0]

    Raises:
        ValueError: information is not of length N, or not finite.
    """
    if information.shape != (len(ids),):
        raise ValueError(f"information: expected shape (N={len(ids)}), received {information.shape}")
    if not np.isfinite(information).all():
        raise ValueError("information: expected finite values, received NaN or infinity")
    order = by_id(ids)
    return order[np.argsort(-information[order], kind="stable")]


def first_then(first: Sequence[int], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions in `first`, then those of `order` that are not among them, in its order.

    >>> first_then([2, 0], np.array([0, 1, 2, 3])).tolist()
    [2, 0, 1, 3]
    """
    chosen = np.array(first, dtype=np.int64)
    return np.concatenate([chosen, order[~np.isin(order, chosen)]])


def descending_priority(count: int) -> NDArray[np.float64]:
    """Return `count` priorities in (0, 1], strictly decreasing in steps of 1/count, for a ranking in order.

    >>> descending_priority(4).tolist()
    [1.0, 0.75, 0.5, 0.25]
    """
    return np.arange(count, 0, -1, dtype=np.float64) / max(count, 1)
