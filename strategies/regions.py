"""Windows of an image as candidates for labelling: their sums over pixel maps, and the choice among them.

Paper: Mackowiak et al., "CEREALS: Cost-effective region-based active learning for semantic segmentation", 2018,
arXiv 1810.09726: a window slides over each image, the maps are summed in it, overlapping windows are suppressed,
and the best are taken until their area equals the budget.

Frames: windows are laid out in pixels of the original image, the maps in pixels of what the network saw, which
may be smaller. A window's border may therefore fall inside a pixel of the map; it then counts by the part inside.

Choosing is greedy by nature: the best window anywhere, then the best that does not overlap it, and so on. Since
windows suppress each other within an image only, a heap of each image's best window is all that has to be kept
in order: linear in the number of windows, plus a look at an image for each window chosen.

Where images are labelled one by one, so many of them before the next ranking, the windows in so many images are a batch
of their own: what would be the best use of a larger budget's area is asked for in other images, by the next batch.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies import selection
from strategies.checks import check_count, check_shape
from strategies.observation import Observation, Region
from strategies.ranking import Budget, Ranking

_FIXED_POINT = 2.0**30
"""Steps per unit before summing: sums of up to 2^23 are then exact, so that equal windows have equal sums."""

_SAME = 1e-9
"""Sums that differ by less than this, relative to the largest, differ by rounding."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """A square window that slides over an image of any size.

    The last window of a row or a column ends at the image's border, so that every pixel is in a window. A side
    shorter than the window is covered by one window of that length: a small image is one window.

    Attributes:
        window: its side, in pixels of the original image.
        stride: its step, likewise; not longer than the window, so that no pixel is left out.

    Raises:
        ValueError: on creation, when an attribute is not as above.

    >>> Windows(window=4, stride=2).starts(9).tolist()  # 5 + 4 = 9 ends at the border
    [0, 2, 4, 5]
    >>> Windows(window=4, stride=2).starts(3).tolist()
    [0]
    """

    window: int
    stride: int

    def __post_init__(self) -> None:
        check_count("window", self.window, 1)
        check_count("stride", self.stride, 1)
        if self.stride > self.window:
            raise ValueError(f"stride: expected at most the window of {self.window}, received {self.stride}")

    def starts(self, length: int) -> NDArray[np.int64]:
        """Return the first pixel of every window along a side of that length, ascending."""
        return _starts(self.window, self.stride, length)

    def extent(self, length: int) -> int:
        """Return the windows' own length along a side of that length."""
        return min(self.window, length)

    def sums(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """Sum a map over every window of an image.

        Args:
            pixels: (h,w) floating and finite, the map of the whole image without padding.
            size: height and width of the original image.

        Returns:
            (rows,columns) float64 on the map's device.

        >>> Windows(window=2, stride=1).sums(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), (2, 3)).tolist()
        [[12.0, 16.0]]
        """
        check_shape("pixels", pixels, h=None, w=None)
        total = (pixels.double() * _FIXED_POINT).round() / _FIXED_POINT
        for side in size:  # columns of windows from rows of pixels, then the other way round
            total = self._summed_along_rows(total, side).T
        return total

    def area(self, size: tuple[int, int]) -> int:
        """Return the pixels of a window in an image of that size (height, width)."""
        return self.extent(size[0]) * self.extent(size[1])

    def region(self, size: tuple[int, int], row: int, column: int, score: float) -> Region:
        """Return the window in that row and column of an image of that size (height, width)."""
        height, width = size
        return Region(
            top=int(self.starts(height)[row]),
            left=int(self.starts(width)[column]),
            height=self.extent(height),
            width=self.extent(width),
            score=score,
        )

    def place(self, region: Region) -> tuple[int, int]:
        """Return the row and the column of a window: windows before the last are a step apart."""
        return -(-region.top // self.stride), -(-region.left // self.stride)

    def overlapping(self, size: tuple[int, int], box: Region) -> tuple[slice, slice]:
        """Return the rows and columns of the windows that share a pixel with a box."""
        rows, columns = (
            slice(
                int(np.searchsorted(self.starts(length), first - self.extent(length), side="right")),
                int(np.searchsorted(self.starts(length), first + extent, side="left")),
            )
            for length, first, extent in zip(size, (box.top, box.left), (box.height, box.width), strict=True)
        )
        return rows, columns

    def _summed_along_rows(self, pixels: Tensor, length: int) -> Tensor:
        """Sum (h,w) over the windows along the first axis, which is `length` pixels of the original: (rows,w)."""
        integral = torch.nn.functional.pad(pixels.cumsum(dim=0), (0, 0, 1, 0))  # (h+1,w)
        first = torch.from_numpy(self.starts(length)).to(pixels.device)
        return _at(integral, first + self.extent(length), length) - _at(integral, first, length)


def normalised(grids: Sequence[NDArray[np.float64]], *, constant: float) -> list[NDArray[np.float64]]:
    """Map the values of a whole pool from their least and largest to [0, 1]; `constant` when all are the same.

    Rounded to 12 decimals, so that windows which differ by rounding only are equal, and go by id and place.

    >>> [grid.tolist() for grid in normalised([np.array([[1.0, 3.0]]), np.array([[2.0]])], constant=0)]
    [[[0.0, 1.0]], [[0.5]]]
    >>> normalised([np.array([[7.0, 7.0]])], constant=0)[0].tolist()
    [[0.0, 0.0]]
    """
    least = min((float(grid.min()) for grid in grids), default=0.0)
    most = max((float(grid.max()) for grid in grids), default=0.0)
    if most - least <= _SAME * max(abs(least), abs(most)):
        return [np.full_like(grid, constant) for grid in grids]
    return [((grid - least) / (most - least)).round(12) for grid in grids]


def choose(
    scores: Sequence[NDArray[np.float64]],
    sizes: Sequence[tuple[int, int]],
    excluded: Sequence[Sequence[Region]],
    *,
    windows: Windows,
    area: int,
    images: int | None = None,
) -> dict[int, list[Region]]:
    """Take the best windows of all images, no two of which overlap, until their area comes to the budget.

    Args:
        scores: per image (rows,columns), finite; ties go to the earlier image, then to the upper left.
        sizes: per image height and width of the original.
        excluded: per image boxes that no window may overlap.
        area: in pixels of the original images. Not exceeded, except by the first window if that is larger.
        images: how many images make a batch; the windows of the next batch are in other images. None: all are one.

    Returns:
        Position of the image -> its windows, the best first; images in the order of their best window.
    """
    live = [grid.astype(np.float64) for grid in scores]  # copies: suppressed windows become -inf, never a mere 0
    for grid, size, boxes in zip(live, sizes, excluded, strict=True):
        for box in boxes:
            grid[windows.overlapping(size, box)] = -np.inf
    heap = [(-float(grid.max()), position) for position, grid in enumerate(live)]
    heapq.heapify(heap)
    chosen: dict[int, list[Region]] = {}
    spent = 0
    batch: set[int] = set()
    closed: set[int] = set()
    while heap and heap[0][0] < np.inf:
        score, position = -heap[0][0], heap[0][1]
        if len(batch) == images and position not in batch:
            closed |= batch
            batch = set()
        if position in closed:
            heapq.heappop(heap)
            continue
        batch.add(position)
        grid = live[position]
        row, column = np.unravel_index(int(grid.argmax()), grid.shape)
        region = windows.region(sizes[position], int(row), int(column), score)
        spent += region.height * region.width
        if spent > area and chosen:
            break
        chosen.setdefault(position, []).append(region)
        grid[windows.overlapping(sizes[position], region)] = -np.inf
        heapq.heapreplace(heap, (-float(grid.max()), position))
    return chosen


def rank(
    pool: Observation,
    scores: Sequence[NDArray[np.float64]],
    windows: Windows,
    budget: Budget,
    costs: Sequence[NDArray[np.float64]] | None = None,
) -> Ranking:
    """Rank a pool by its best windows: the images of the chosen ones first, the rest by information.

    Args:
        pool: with `excluded` set where boxes were asked for in earlier rounds; its ids break ties.
        scores: per image of the pool (rows,columns), one score per window.
        windows: those that the scores belong to.
        budget: so many pixels; or so many images a batch, up to the area of so many images of average size.
        costs: per image (rows,columns), the effort that each window is expected to take; it becomes the chosen
            regions' cost.

    Raises:
        ValueError: a grid does not fit its image.
    """
    sizes = [(height, width) for height, width in pool.size.tolist()]
    for grid, (height, width) in zip(scores, sizes, strict=True):
        wanted = (len(windows.starts(height)), len(windows.starts(width)))
        if grid.shape != wanted:
            image = f"an image of {height} x {width}"
            raise ValueError(f"Observation.regions: expected {wanted} windows in {image}, received {grid.shape}")
    by_id = selection.by_id(pool.ids).tolist()
    chosen = choose(
        [scores[position] for position in by_id],
        [sizes[position] for position in by_id],
        [pool.excluded[position] for position in by_id],
        windows=windows,
        area=budget.in_pixels(pool.size),
        images=budget.images,
    )
    asked = {by_id[place]: boxes for place, boxes in chosen.items()}
    if costs is not None:
        asked = {position: _priced(boxes, costs[position], windows) for position, boxes in asked.items()}
    return _ranking(pool, asked)


def _priced(chosen: Sequence[Region], costs: NDArray[np.float64], windows: Windows) -> list[Region]:
    """Give the chosen windows of an image their cost, out of (rows,columns)."""
    return [replace(window, cost=float(costs[windows.place(window)])) for window in chosen]


def _ranking(pool: Observation, chosen: Mapping[int, Sequence[Region]]) -> Ranking:
    information = selection.by_information(pool.ids, pool.information.cpu().numpy())
    rest = [position for position in information.tolist() if position not in chosen]
    whole = Ranking.in_order(pool.ids, np.array([*chosen, *rest], dtype=np.int64))
    boxes = {pool.ids[position]: tuple(regions) for position, regions in chosen.items()}
    return Ranking(ids=whole.ids, priority=whole.priority, regions=boxes)


@lru_cache(maxsize=1024)
def _starts(window: int, stride: int, length: int) -> NDArray[np.int64]:
    last = max(length - window, 0)
    return np.append(np.arange(0, last, stride, dtype=np.int64), last)


def _at(integral: Tensor, position: Tensor, length: int) -> Tensor:
    """Read sums (h+1,w) before pixels `position` (rows) of `length`, in between by linear interpolation: (rows,w)."""
    height = integral.shape[0] - 1
    whole, part = (position * height).div(length, rounding_mode="floor"), (position * height) % length
    below = integral[(whole + 1).clamp(max=height)]  # (rows,w)
    fraction = (part.double() / length)[:, None]
    return integral[whole] * (1 - fraction) + below * fraction
