"""Descriptors of a pool, compared without a table of N x N and read in chunks, so that they may lie on a disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.observation import Observation

CHUNK = 8192
"""Images that are read at a time."""

Floats = NDArray[Any]
"""Descriptors (N,D), float32 or float64."""


def as_array(observation: Observation, name: str) -> Floats:
    """Return the descriptors (N,D) of an observation without a copy where they lie on the CPU.

    Raises:
        ValueError: it has none; it says which method asks.
    """
    if observation.descriptors is None:
        if observation.ids:
            raise ValueError(f"{name} needs Observation.descriptors: expected (N,D), received None")
        return np.zeros((0, 1), dtype=np.float32)
    descriptors = observation.descriptors.detach().cpu()
    if descriptors.dtype not in (torch.float32, torch.float64):
        descriptors = descriptors.float()
    array: Floats = descriptors.numpy()
    return array


def mean_cosine(descriptors: Floats, order: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean cosine of each image to all images of the pool, itself included: (N,D) -> (N).

    Zero for a descriptor of zeros. O(N·D); the sum over the pool is taken in `order`, all positions once.

    >>> mean_cosine(np.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 0.0]]), np.arange(4)).tolist()
    [0.0, 0.25, 0.0, 0.0]
    """
    total = np.zeros(descriptors.shape[1])  # (D)
    for rows in chunks(len(order)):
        total += unit_rows(descriptors[order[rows]]).sum(axis=0)
    mean = total / max(len(order), 1)
    likeness = np.zeros(len(order))
    for rows in chunks(len(order)):
        likeness[rows] = (unit_rows(descriptors[rows]) * mean).sum(axis=1)
    return likeness


def chunks(count: int) -> Iterator[slice]:
    """Cut so many rows into chunks."""
    return (slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))


def unit_rows(rows: Floats) -> NDArray[np.float64]:
    """Scale rows (T,D) to length 1, in float64; rows of zeros stay.

    Each row is scaled by its largest number first, so that no square overflows or vanishes.
    """
    exact = np.array(rows, dtype=np.float64)
    largest = np.abs(exact).max(axis=1, keepdims=True)
    exact /= np.where(largest > 0, largest, 1)
    exact /= np.maximum(np.sqrt((exact**2).sum(axis=1, keepdims=True)), 1)  # at least 1, unless all are zeros
    return exact
