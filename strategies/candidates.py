"""Pixels of an image that may be asked about: few enough to be kept for every image of a pool.

An image has more pixels than can be kept. It is cut into at most about `CELLS` squares, and of each square one pixel
stands for all, drawn in proportion to what the pixels promise. If the squares are then drawn in proportion to all that
their pixels promise, every pixel is drawn as if from the whole image.

Frames: places are in pixels of what the network saw, pixels in those of the original image.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from strategies.checks import Id

CELLS = 512
"""Squares of an image, about."""
LEAST = 1e-9
"""What a pixel promises at least: any may be drawn where nothing is uncertain, and the uncertain come first."""

Values = NDArray[np.float64]
Pixels = NDArray[np.int64]
Mask = NDArray[np.bool_]
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Pixels of one image, n of them.

    Attributes:
        pixels: (n,2) rows and columns in the original image.
        places: (n,2) rows and columns in what the network saw.
        weight: (n) from 0, what all pixels promise that a candidate stands for.
        promise: (n) in [0, 1], what it promises itself.
        classes: (n) its likeliest class; -1 where no network was asked.
        margin: (n) by how much that class is likelier than the next, in [0, 1]; 0 where no network was asked.
    """

    pixels: Pixels
    places: Pixels
    weight: Values
    promise: Values
    classes: Pixels
    margin: Values

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in vars(self).items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"Candidates: expected arrays of one length, received {lengths}")

    def __len__(self) -> int:
        return len(self.pixels)


def chance_of(salt: int, image: Id) -> np.random.Generator:
    """Return the random numbers of an image: the same whatever images are observed with it."""
    digest = hashlib.sha256(f"{salt}|{image!r}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def open_to_questions(valid: Mask, labelled: Mask, apart: float) -> Mask:
    """Return the pixels (h,w) that are valid and at least `apart` from every pixel that a person has labelled.

    >>> valid, labelled = np.ones((1, 5), bool), np.array([[False, True, False, False, False]])
    >>> open_to_questions(valid, labelled, 2).tolist()
    [[False, False, False, True, True]]
    """
    if not labelled.any():
        return valid
    far: Mask = np.asarray(distance_transform_edt(~labelled)) >= apart
    return valid & ~labelled & far


def of_cells(weight: Values, free: Mask, chance: np.random.Generator) -> tuple[Pixels, Values]:
    """Draw one free pixel of each square of an image, in proportion to its weight.

    Args:
        weight: (h,w) from 0; what it holds where no pixel is free changes nothing.
        free: (h,w).

    Returns:
        Rows and columns (n,2), and the weights of all free pixels of their squares (n).

    >>> weight, free = np.array([[1.0, 3.0]]), np.array([[True, True]])
    >>> places, total = of_cells(weight, free, np.random.default_rng(0))  # so small an image is kept pixel by pixel
    >>> places.tolist(), total.tolist()
    ([[0, 0], [0, 1]], [1.0, 3.0])
    """
    height, width = free.shape
    side = max(1, math.ceil(math.sqrt(height * width / CELLS)))
    some = np.where(free, np.maximum(np.where(free, weight, 0), LEAST), 0)  # (h,w)
    race = np.where(free, chance.exponential(size=free.shape) / np.where(free, some, 1), np.inf)
    first, total = _squares(race, side, np.inf).argmin(axis=-1), _squares(some, side, 0).sum(axis=-1)  # (rows,columns)
    rows, columns = np.nonzero(total > 0)
    inside = first[rows, columns]
    places = np.stack([rows * side + inside // side, columns * side + inside % side], axis=1)
    return places.astype(np.int64), total[rows, columns]


def uniform(free: Mask, size: Size, count: int, chance: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Draw pixels of the original image, each as likely as any other, one from each of `count` parts of equal area.

    The free pixels are put into Morton's order, in which neighbours are near each other, and every n-th is taken from a
    random start: systematic sampling. So the share of points with some property is an unbiased estimate of the share of
    pixels with it.

    Args:
        free: (h,w) in the frame of the network.
        size: height and width of the original image.

    Returns:
        Pixels (n,2) of the original, distinct, and their places (n,2); as many as there are where that is fewer.

    >>> pixels, _ = uniform(np.ones((4, 4), bool), (4, 4), 4, np.random.default_rng(0))
    >>> sorted((row // 2, column // 2) for row, column in pixels.tolist())  # a point in each quarter
    [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    rows, columns = np.nonzero(free)
    order = np.argsort(_morton(rows, columns), kind="stable")
    rows, columns = rows[order], columns[order]
    tops, lefts = (_first_pixels(seen, whole) for seen, whole in zip(free.shape, size, strict=True))
    tall, wide = np.diff(tops)[rows], np.diff(lefts)[columns]  # a place is so many pixels of the original
    ends = np.cumsum(tall * wide)
    total = int(ends[-1]) if len(ends) else 0
    count = min(count, total)
    if not count:
        nothing = np.zeros((0, 2), np.int64)
        return nothing, nothing
    taken = ((np.arange(count) + chance.random()) * total / count).astype(np.int64).clip(0, total - 1)
    at = np.searchsorted(ends, taken, side="right")
    inside = taken - (ends[at] - tall[at] * wide[at])
    pixels = np.stack([tops[rows[at]] + inside // wide[at], lefts[columns[at]] + inside % wide[at]], axis=1)
    return pixels.astype(np.int64), np.stack([rows[at], columns[at]], axis=1).astype(np.int64)


def in_original(places: Pixels, seen: Size, size: Size) -> Pixels:
    """Return the pixels of the original in the middle of places (n,2).

    >>> in_original(np.array([[0, 1]]), (2, 2), (6, 4)).tolist()
    [[1, 3]]
    """
    middles: Pixels = (2 * places + 1) * np.array(size) // (2 * np.array(seen))
    return middles


def _squares(values: NDArray[Any], side: int, fill: float) -> NDArray[Any]:
    """Cut (h,w) into squares: (rows,columns,side²)."""
    height, width = values.shape
    padded = np.pad(values, ((0, -height % side), (0, -width % side)), constant_values=fill)
    rows, columns = padded.shape[0] // side, padded.shape[1] // side
    return padded.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows, columns, side * side)


def _first_pixels(seen: int, whole: int) -> Pixels:
    """Return, for a side of `whole` pixels seen as `seen`, the first pixel of each place, and the end: (seen+1)."""
    owner = (2 * np.arange(whole) + 1) * seen // (2 * whole)
    return np.searchsorted(owner, np.arange(seen + 1)).astype(np.int64)


def _morton(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Pixels:
    """Return the position of places (n) on Morton's curve: the bits of row and column in turn."""
    code = np.zeros(len(rows), np.int64)
    for bit in range(31):
        code |= ((rows >> bit) & 1).astype(np.int64) << (2 * bit + 1)
        code |= ((columns >> bit) & 1).astype(np.int64) << (2 * bit)
    return code
