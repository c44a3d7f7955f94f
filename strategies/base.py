"""The contract: what goes into a strategy, what comes out, and what it does in between.

A strategy maps and reduces. `observe` maps each `Batch` of a pool, however large, to a small `Observation`;
`rank` reduces the observations of the whole pool to one `Ranking`. Throughout the package higher = label sooner.

Letters mean the same everywhere: M committee members, B images of a batch, C classes, H, W pixels,
D length of a descriptor, N images of a pool.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from strategies import selection
from strategies.batch import Batch
from strategies.checks import Id
from strategies.observation import Observation, Point, Region
from strategies.questions import Prices
from strategies.ranking import Budget, Pick, Ranking

__all__ = [
    "Batch",
    "Budget",
    "Id",
    "Observation",
    "Order",
    "Pick",
    "Picks",
    "Point",
    "Prices",
    "Progress",
    "Ranking",
    "Region",
    "Round",
    "Strategy",
]

Progress = Callable[[int, int], None]
"""Called now and then with the steps done and the steps in all."""

Order = NDArray[np.int64]
"""All positions (N) in a pool, the most valuable image first."""

Picks = Mapping[int, Pick]
"""What is known of the places of images beyond their information, by position in the pool."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """What is learned from: the arguments of `Strategy.prepare`, whose documentation says what they are."""

    labelled: Iterable[Batch]
    unlabelled: Iterable[Batch]
    generator: torch.Generator
    progress: Progress | None
    deadline: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Round:
    """What an order is made from: the arguments of `Strategy.rank`, whose documentation says what they are."""

    unlabelled: Observation
    labelled: Observation | None
    known: frozenset[Id]
    budget: Budget
    number: int
    prices: Prices
    generator: torch.Generator


class Strategy(ABC):
    """One active-learning method. Options are keyword arguments of its `__init__`, each with a default.

    Attributes:
        name: what `strategies.create` knows it by; its module and its test module are named so, too.
        needs: what the caller has to compute for it, out of "probabilities" (a network's, M >= 1), "committee"
            (M >= 2 members that differ), "features" (one descriptor per image), "labelled" (the observations of the
            labelled images in `rank`), "examples" (batches of both pools in `prepare`) and "background" (a first
            class that is no object). Options may change it.
        asks_for_regions: whether its rankings name the regions of an image that are worth labelling.
        asks_for_points: whether its rankings may name single pixels of an image, whose class is all that is to be
            labelled of it. Options may change it.
        plans_one_round: whether its budget should be what is labelled before the next ranking, because what is beyond
            it is treated in another way (left to pseudo-labels, or for later regions), and not just of lower rank.
    """

    name: ClassVar[str]
    asks_for_regions: ClassVar[bool] = False
    asks_for_points: bool = False
    plans_one_round: ClassVar[bool] = False
    needs: frozenset[str]

    def prepare(
        self,
        labelled: Iterable[Batch],
        unlabelled: Iterable[Batch],
        *,
        generator: torch.Generator,
        progress: Progress | None = None,
        deadline: float | None = None,
    ) -> None:
        """Train what the method itself needs to observe; by default there is nothing to train.

        Args:
            labelled, unlabelled: can be iterated over and over; an image labelled in part is in both.
            generator: the only source of randomness.
            progress: told about long work.
            deadline: time on `time.monotonic`'s clock, in seconds, by which to be ready with what is there.
        """
        self._learn(
            Lesson(labelled=labelled, unlabelled=unlabelled, generator=generator, progress=progress, deadline=deadline)
        )

    def _learn(self, lesson: Lesson) -> None:
        """Train what the method needs to observe; by default nothing."""
        del lesson

    @abstractmethod
    def observe(self, batch: Batch) -> Observation:
        """Measure each image on the batch's device; changes no state.

        What is observed of an image does not depend on the other images of the batch.

        Raises:
            ValueError: the batch lacks something out of `needs`.
        """

    def rank(
        self,
        unlabelled: Observation,
        labelled: Observation | None,
        *,
        budget: Budget,
        round: int = 0,
        known: Iterable[Id] | None = None,
        prices: Prices | None = None,
        generator: torch.Generator,
    ) -> Ranking:
        """Order the unlabelled pool.

        Args:
            unlabelled: the pool, in any order. Empty gives an empty ranking.
            labelled: what is observed of labelled images; None or empty when nothing is. Both hold an image labelled
                in part.
            budget: up to it the images are chosen as a set, beyond it they follow by information. It may exceed
                the pool.
            round: how often has been ranked before, for thresholds that decay.
            known: ids of all labelled images, for methods that count them and need no look at them; None: those of
                `labelled`.
            prices: what answering took so far, for methods that choose the kind of question; None: it is not known.
            generator: the only source of randomness, drawn from after sorting by id.

        Returns:
            Every unlabelled id exactly once, the same for any order of the pool.
        """
        if not unlabelled.ids:
            return Ranking.in_order((), np.zeros(0, dtype=np.int64))
        observed = () if labelled is None else labelled.ids
        return self._ranking(
            Round(
                unlabelled=unlabelled,
                labelled=labelled,
                known=frozenset(observed if known is None else known),
                budget=budget,
                number=round,
                prices=Prices() if prices is None else prices,
                generator=generator,
            )
        )

    def _ranking(self, round: Round) -> Ranking:
        """Return the ranking of a pool that is not empty; by default of whole images in their order."""
        ids = round.unlabelled.ids
        order, picks = self._explained_order(round)
        certain = self._pseudo_labels(round, order)
        return replace(
            Ranking.in_order(ids, order),
            pseudo_labels=tuple(ids[position] for position in certain),
            picks={ids[position]: pick for position, pick in picks.items()},
        )

    def _explained_order(self, round: Round) -> tuple[Order, Picks]:
        """Return the order of a pool that is not empty, and how images came to their places; by default nothing."""
        return self._order(round), {}

    def _order(self, round: Round) -> Order:
        """Return the order of a pool that is not empty; by default by information alone, ties by id."""
        return selection.by_information(round.unlabelled.ids, round.unlabelled.information.cpu().numpy())

    def _pseudo_labels(self, round: Round, order: Order) -> Iterable[int]:
        """Return the positions of images whose prediction may stand for a label; by default of none."""
        del round, order
        return ()

    def state_dict(self) -> dict[str, Any]:
        """Return what `prepare` has learned, so that another process can observe or go on; by default nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            ValueError: the state is another method's.
        """
        if state:
            raise ValueError(f"{self.name} learns nothing: expected an empty state, received {sorted(state)}")
