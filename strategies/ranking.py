"""What comes out of a strategy, and how much labelling it may plan for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies import selection
from strategies.checks import Id, assign, check_count, check_range, check_shape, unique_ids
from strategies.observation import Point, Region


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is going to be labelled before the next ranking: so many images, or so many pixels of regions.

    >>> Budget(images=50)
    Budget(images=50, pixels=None)

    Raises:
        ValueError: on creation, unless exactly one of the two is given, and is an integer from 1.
    """

    images: int | None = None
    pixels: int | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            raise ValueError(f"Budget: expected either images or pixels, received {given or 'neither'}")
        for name, value in given.items():
            check_count(f"Budget.{name}", value, 1)

    def in_pixels(self, size: Tensor) -> int:
        """Return the budget as an area, for a pool of images with these heights and widths (N,2).

        >>> Budget(images=3).in_pixels(torch.tensor([[5, 4], [5, 8]]))
        90
        """
        if self.pixels is not None:
            return self.pixels
        return (self.images or 0) * int(size.prod(dim=1).sum()) // max(len(size), 1)

    def take(self, picks: Iterable[int], size: Tensor) -> list[int]:
        """Take picks, positions in `size` (N,2), until the budget is used up; no pick is made beyond it.

        The pick that uses up a budget of pixels may exceed it.

        >>> size = torch.tensor([[2, 3], [2, 3], [2, 3]])
        >>> Budget(images=1).take([2, 1, 0], size), Budget(pixels=7).take([2, 1, 0], size)
        ([2], [2, 1])
        """
        taken: list[int] = []
        spent, limit = 0, self.images or self.pixels or 0
        areas = size.cpu().prod(dim=1)  # (N)
        for pick in picks:
            taken.append(pick)
            spent += 1 if self.images else int(areas[pick])
            if spent >= limit:
                break
        return taken


@dataclass(frozen=True, kw_only=True)
class Pick:
    """What a method knows of a place in its ranking beyond the information of the image.

    Attributes:
        turn: index of the class in whose turn the image was picked; None where it was no class's turn.
        outlines: expected length of the outlines to draw, in pixels of the original image; None where the method does
            not weigh it.

    Raises:
        ValueError: on creation, when a field is negative.
    """

    turn: int | None = None
    outlines: float | None = None

    def __post_init__(self) -> None:
        if self.turn is not None:
            check_count("Pick.turn", self.turn, 0)
        if self.outlines is not None and not self.outlines >= 0:
            raise ValueError(f"Pick.outlines: expected a length from 0, received {self.outlines}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """The unlabelled pool in the order in which it is worth labelling.

    Attributes:
        ids: (N) every unlabelled id exactly once, the most valuable first.
        priority: (N) float64 on the CPU, in [0, 1], strictly decreasing.
        regions: what to label of an image, by id, the best first; the whole image where there is no entry or
            an empty entry. An empty entry asks for it although of other images regions or points are asked for.
        points: whose class to ask for, by id, the best first; no two of an image are the same pixel. Of a method that
            asks for nothing else an image without an entry has nothing left to ask.
        pseudo_labels: ids whose prediction may train the model in place of a label, for this round only.
        picks: how images came to their places, by id, where the method can tell more than their information.
        reason: why points or masks are asked for, in a sentence; empty where the method knows one kind of question.

    Raises:
        ValueError: on creation, when a field is not as above; it says what was expected and what was received.
    """

    ids: tuple[Id, ...]
    priority: Tensor
    regions: Mapping[Id, tuple[Region, ...]] = field(default_factory=dict)
    points: Mapping[Id, tuple[Point, ...]] = field(default_factory=dict)
    pseudo_labels: tuple[Id, ...] = ()
    picks: Mapping[Id, Pick] = field(default_factory=dict)
    reason: str = ""

    def __post_init__(self) -> None:
        ids = unique_ids("Ranking.ids", self.ids)
        priority = torch.as_tensor(self.priority, dtype=torch.float64, device="cpu")
        regions = {image: tuple(boxes) for image, boxes in self.regions.items()}
        pseudo_labels = unique_ids("Ranking.pseudo_labels", self.pseudo_labels)
        assign(self, ids=ids, priority=priority, regions=regions, pseudo_labels=pseudo_labels, picks=dict(self.picks))
        assign(self, points={image: tuple(points) for image, points in self.points.items()})
        _check_known("Ranking.regions", regions, ids)
        _check_known("Ranking.points", self.points, ids)
        for points in self.points.values():
            if len({(point.row, point.column) for point in points}) < len(points):
                raise ValueError("Ranking.points: expected every pixel of an image once, received one more than once")
        _check_known("Ranking.pseudo_labels", pseudo_labels, ids)
        _check_known("Ranking.picks", self.picks, ids)
        check_shape("Ranking.priority", priority, N=len(ids))
        check_range("Ranking.priority", priority, 0, 1)
        if not (priority.diff() < 0).all():
            raise ValueError("Ranking.priority: expected strictly decreasing values, received equal or rising ones")

    @classmethod
    def in_order(cls, ids: Sequence[Id], order: NDArray[np.int64]) -> Ranking:
        """Rank whole images: `order` (N) holds positions in `ids`, the most valuable first.

        >>> ranking = Ranking.in_order(["a", "b"], np.array([1, 0]))
        >>> ranking.ids, ranking.priority.tolist()
        (('b', 'a'), [1.0, 0.5])
        """
        ordered = tuple(ids[position] for position in order.tolist())
        return cls(ids=ordered, priority=torch.from_numpy(selection.descending_priority(len(ordered))))


def _check_known(name: str, given: Iterable[Id], ids: tuple[Id, ...]) -> None:
    strangers = set(given) - set(ids)
    if strangers:
        raise ValueError(f"{name}: expected ids of the ranking, received {sorted(map(repr, strangers))[:3]}")
