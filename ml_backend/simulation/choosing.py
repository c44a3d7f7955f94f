"""Choosing the labels of a round: the ranking of production, cut off where the budget is used up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from ml_backend.annotations.boxes import Box
from ml_backend.learning.prediction.batches import Shrunk, image_batches
from ml_backend.learning.prediction.committees import Committee
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.learning.ranking import Pools, Preparation, observed, rank_pool, sample_order, sees_predictions
from ml_backend.simulation.labels import Labels, Pick
from ml_backend.simulation.material import Picture
from ml_backend.simulation.plan import Recipe, Unit
from strategies import Batch, Budget, Ranking, Strategy

_SPARE = 1.5
"""A ranking covers so many times an average round, because the chosen images may be cheaper."""
_SPARE_REGIONS = 6.0
"""As `_SPARE`, for parts of images, whose costs differ more: some are nearly free."""


@dataclass(frozen=True)
class Budgeted:
    """The budget of a round: an amount of images, pixels or clicks."""

    amount: int
    unit: Unit
    growth: float = 1.0

    def of_round(self, number: int) -> Budgeted:
        """Return the budget after so many rounds, each of which added `growth` times as much as the one before.

        >>> [Budgeted(10, "clicks", growth=1.5).of_round(number).amount for number in range(4)]
        [10, 15, 22, 34]
        """
        return replace(self, amount=max(1, round(self.amount * self.growth**number)))

    def spent(self, labels: Labels, pick: Pick, *, is_open: bool = False) -> int | Fraction:
        """Return what a pick takes of the budget; in images, boxes count as their share of the image, points as one.

        Args:
            is_open: more of the image was picked in the same round.
        """
        if self.unit == "clicks":
            return labels.cost(pick, is_open=is_open)
        if self.unit == "images" and pick.points:
            return 0 if is_open else 1
        return (
            labels.area(pick) if self.unit == "pixels" else Fraction(labels.area(pick), labels.area(Pick(pick.number)))
        )

    def planned(self, labels: Labels, *, regions: bool) -> Budget:
        """Return the budget that a strategy plans for, in images or pixels.

        The clicks of an image are not known before it is labelled: they are estimated from the labels so far.
        """
        if self.unit == "images":
            return Budget(images=self.amount)
        if self.unit == "pixels":
            return Budget(pixels=self.amount)
        pixels_per_click = labels.pixels / max(1, labels.clicks)
        if regions:  # a larger budget does not change which come first
            return Budget(pixels=max(1, round(_SPARE_REGIONS * self.amount * pixels_per_click)))
        pixels = max(1, round(_SPARE * self.amount * pixels_per_click))
        return Budget(images=max(1, round(pixels * len(labels) / max(1, labels.pixels))))


@dataclass(frozen=True)
class Choice:
    """The labels that a round adds.

    Attributes:
        picks: to be labelled.
        pseudo_labels: numbers of images whose prediction trains the next network.
        mending: clicks that mending its predicted mask takes, by the number of the image, of picks of whole images.
    """

    picks: tuple[Pick, ...]
    pseudo_labels: tuple[int, ...] = ()
    mending: Mapping[int, int] = field(default_factory=dict)


def initial_choice(pool: Iterable[int], count: int, seed: int) -> Choice:
    """Draw the images that are labelled at first: the same for all strategies.

    Args:
        pool: numbers of the images that can be labelled.
        count: number of images to draw.
    """
    return Choice(tuple(Pick(number) for number in sample_order(sorted(pool), seed)[:count]))


class Chooser:
    """Chooses labels out of a pool for one strategy.

    Args:
        pictures: number -> picture of the pool.
        file: keeps what the strategy learns from round to round.
    """

    def __init__(
        self,
        strategy: Strategy,
        pictures: Mapping[int, Picture],
        recipe: Recipe,
        *,
        budget: Budgeted,
        seed: int,
        file: Path,
    ) -> None:
        self._strategy, self._pictures, self._recipe = strategy, pictures, recipe
        self._budget, self._seed, self._file = budget, seed, file

    def choose(self, labels: Labels, predictor: Predictor, committee: Committee | None, round_number: int) -> Choice:
        """Rank the pool with the current network and take the best up to the budget.

        Args:
            committee: of the current network; None for a strategy that needs none.
            round_number: number of rounds that were chosen before.
        """
        pool = [number for number in self._pictures if self._is_open(number, labels)]
        budget = self._budget.of_round(round_number)
        ranked = rank_pool(
            self._strategy,
            self._pools(pool, labels, predictor, committee),
            budget=budget.planned(labels, regions=self._strategy.asks_for_regions),
            seed=self._seed + round_number,
            round_number=round_number,
            progress=lambda _: None,
            preparation=Preparation(self._file, 60 * self._recipe.prepare_minutes, lambda *_: None),
            prices=labels.prices,
        )
        if ranked is None:
            by_chance = (Pick(number) for number in sample_order(pool, self._seed) if number not in labels)
            return Choice(_affordable(by_chance, labels, budget))
        ranking = ranked.ranking
        picks = _affordable(_picks(ranking, self._strategy), labels, budget)
        asked = {pick.number for pick in picks}
        pseudo = tuple(number for number in map(int, ranking.pseudo_labels) if number not in asked)
        return Choice(picks, pseudo)

    def first_points(self, images: Sequence[int], predictor: Predictor) -> Choice:
        """Ask for the first points of some images, without a network that has learned anything.

        Args:
            predictor: of a network with its initial weights.
        """
        items = [self._pictures[number].shrunk() for number in images]

        def batches() -> Iterator[Batch]:
            size = self._recipe.score_size
            if sees_predictions(self._strategy):
                return predictor.places(items, batch_size=size)
            return image_batches(items, input_size=self._recipe.input_size, batch_size=size, device=predictor.device)

        ranked = rank_pool(
            self._strategy,
            Pools(observed(batches), observed(lambda: ()), lambda: (), lambda: ()),
            budget=Budget(images=max(1, len(images))),
            seed=self._seed,
            round_number=0,
            progress=lambda _: None,
        )
        return Choice(() if ranked is None else tuple(_picks(ranked.ranking, self._strategy)))

    def _is_open(self, number: int, labels: Labels) -> bool:
        if self._strategy.asks_for_regions or self._strategy.asks_for_points:
            return not labels.is_whole(number)
        return number not in labels

    def _pools(self, pool: Sequence[int], labels: Labels, predictor: Predictor, committee: Committee | None) -> Pools:
        def predicted(numbers: Sequence[int]) -> Iterator[Batch]:
            return predictor.batches(
                self._items(numbers, labels),
                features="features" in self._strategy.needs,
                batch_size=self._recipe.score_size,
                committee=committee,
            )

        def plain(numbers: Sequence[int]) -> Iterator[Batch]:
            return image_batches(
                self._items(numbers, labels),
                input_size=self._recipe.input_size,
                batch_size=self._recipe.score_size,
                device=predictor.device,
            )

        known = [number for number in labels.numbers if number in self._pictures]
        seen = predicted if sees_predictions(self._strategy) else plain
        return Pools(
            unlabelled=observed(lambda: seen(pool)),
            labelled=observed(lambda: seen(known)),
            unlabelled_images=lambda: plain(pool),
            labelled_images=lambda: plain(known),
            asked={number: labels.asked(number) for number in pool},
            known=known,
        )

    def _items(self, numbers: Sequence[int], labels: Labels) -> Iterator[Shrunk]:
        for number in numbers:
            is_known = number in labels
            known, cost = (labels.known(number), labels.effort(number)) if is_known else (None, None)
            yield self._pictures[number].shrunk(known, cost)


def _picks(ranking: Ranking, strategy: Strategy) -> list[Pick]:
    """Return the picks of a ranking in order: images, points of images or both, or windows by their score."""
    if strategy.asks_for_points:  # and perhaps of some images for all of it: their entry of regions is empty
        return [
            Pick(int(number), points=tuple((point.row, point.column) for point in ranking.points.get(number, ())))
            for number in ranking.ids
            if number in ranking.points or number in ranking.regions
        ]
    if not strategy.asks_for_regions:
        return [Pick(int(number)) for number in ranking.ids]
    windows = [
        (
            -region.score,
            position,
            order,
            Pick(int(number), (Box(region.left, region.top, region.width, region.height),)),
        )
        for position, number in enumerate(ranking.ids)
        for order, region in enumerate(ranking.regions.get(number, ()))
    ]
    return [pick for *_, pick in sorted(windows, key=lambda window: window[:3])]


def _affordable(picks: Iterable[Pick], labels: Labels, budget: Budgeted) -> tuple[Pick, ...]:
    """Take picks until the budget is used up; the last may exceed it. Boxes of an image become one pick."""
    taken: dict[int, Pick] = {}
    spent: int | Fraction = 0
    for pick in picks:
        if spent >= budget.amount:
            break
        before = taken.get(pick.number)
        spent += budget.spent(labels, pick, is_open=before is not None)
        taken[pick.number] = pick if before is None else Pick(pick.number, (*before.boxes, *pick.boxes))
    return tuple(taken.values())
