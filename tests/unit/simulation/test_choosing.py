"""What a round asks for: budgets that are kept, windows across images, and rankings that never see the truth."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from simulated_data import CLASSES, TINY, picture, plan, shapes, with_mask

from ml_backend.annotations.boxes import Box, covered_pixels
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.learning.ranking import make_strategy, sample_order
from ml_backend.settings import Settings
from ml_backend.simulation.choosing import Budgeted, Choice, Chooser
from ml_backend.simulation.labels import Labels, Pick
from ml_backend.simulation.material import Material, Picture
from ml_backend.simulation.presets import plan_of
from ml_backend.simulation.training.trainer import Trainer
from strategies import Batch, Budget, Observation, Ranking, Region, Strategy
from strategies.base import Prices

pytestmark = pytest.mark.usefixtures("one_thread")
PIXELS = 40 * 48


class Scripted(Strategy):
    """Answers with a ranking that is given, and remembers what it was shown."""

    name = "scripted"
    needs = frozenset[str]()

    def __init__(
        self,
        order: Sequence[int] = (),
        *,
        regions: Mapping[int, Sequence[Region]] | None = None,
        pseudo_labels: Sequence[int] = (),
    ) -> None:
        self.order, self.regions, self.pseudo = tuple(order), regions or {}, tuple(pseudo_labels)
        self.asks_for_regions = regions is not None
        self.budgets: list[Budget] = []
        self.shown: list[int] = []
        self.excluded: dict[Any, tuple[Region, ...]] = {}
        self.seconds = 0.0

    def prepare(self, *_: Any, deadline: float | None = None, **options: Any) -> None:
        self.seconds = (deadline or 0.0) - time.monotonic()

    def observe(self, batch: Batch) -> Observation:
        self.shown += map(int, batch.ids)
        return Observation.from_batch(batch, information=torch.zeros(len(batch.ids), dtype=torch.float64))

    def rank(self, unlabelled: Observation, labelled: Any, *, budget: Budget, **_: Any) -> Ranking:
        self.budgets.append(budget)
        self.excluded = dict(zip(unlabelled.ids, unlabelled.excluded, strict=True))
        there = set(unlabelled.ids)
        order = [one for one in self.order if one in there] + sorted(there - set(self.order))
        ranking = Ranking.in_order(order, np.arange(len(order)))
        regions = {one: boxes for one, boxes in self.regions.items() if one in there}
        pseudo = [one for one in self.pseudo if one in there]
        return Ranking(ids=ranking.ids, priority=ranking.priority, regions=regions, pseudo_labels=tuple(pseudo))


def region(left: int, top: int, width: int, height: int, score: float) -> Region:
    return Region(top=top, left=left, height=height, width=width, score=score)


@pytest.fixture(scope="module")
def pool() -> dict[int, Picture]:
    return {number: picture(number) for number in range(8)}


@pytest.fixture(scope="module")
def predictor(pool: dict[int, Picture], tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    data = Material("shapes", CLASSES, 0, pool, list(pool.values())[:1])
    labels = Labels(pool, 0)
    labels.add([Pick(0), Pick(1)])
    return Trainer(plan(iterations=20), data, tmp_path_factory.mktemp("networks")).train(labels, 0).predictor


def labelled(pool: Mapping[int, Picture], *picks: Pick) -> Labels:
    labels = Labels(pool, 0)
    labels.add(picks or [Pick(0)])
    return labels


def choose(
    strategy: Strategy, labels: Labels, predictor: Predictor, file: Path, budget: Budgeted, *, round_number: int = 0
) -> Choice:
    pictures = labels.pictures
    chooser = Chooser(strategy, pictures, TINY, budget=budget, seed=3, file=file)
    return chooser.choose(labels, predictor, None, round_number)


def numbers(choice: Choice) -> list[int]:
    return [pick.number for pick in choice.picks]


def test_a_strategy_has_the_time_of_production_to_learn(
    pool: dict[int, Picture], predictor: Predictor, tmp_path: Path
) -> None:
    strategy = Scripted([5])
    choose(strategy, labelled(pool), predictor, tmp_path / "x", Budgeted(1, "images"))
    minutes = Settings.model_fields["prepare_minutes"].default
    assert strategy.seconds == pytest.approx(60 * minutes, abs=30)
    assert plan_of(None, {}, {}).recipe.prepare_minutes == minutes


# -- budgets -----------------------------------------------------------------------------------------------------------
def test_a_budget_of_images_is_spent(pool: dict[int, Picture], predictor: Predictor, tmp_path: Path) -> None:
    strategy = Scripted([5, 2, 7])
    choice = choose(strategy, labelled(pool), predictor, tmp_path / "x", Budgeted(2, "images"))
    assert choice.picks == (Pick(5), Pick(2))
    assert strategy.budgets == [Budget(images=2)]


@pytest.mark.parametrize(("amount", "expected"), [(1, 1), (PIXELS, 1), (PIXELS + 1, 2), (3 * PIXELS, 3)])
def test_a_budget_of_pixels_is_spent_by_the_pick_that_reaches_it(
    pool: dict[int, Picture], predictor: Predictor, tmp_path: Path, amount: int, expected: int
) -> None:
    strategy = Scripted([5, 2, 7])
    choice = choose(strategy, labelled(pool), predictor, tmp_path / "x", Budgeted(amount, "pixels"))
    assert numbers(choice) == [5, 2, 7][:expected]
    assert strategy.budgets == [Budget(pixels=amount)]


@pytest.mark.parametrize("more", [0, 1])
def test_a_budget_of_clicks_is_spent_by_the_pick_that_reaches_it(
    pool: dict[int, Picture], predictor: Predictor, tmp_path: Path, more: int
) -> None:
    labels = labelled(pool)
    amount = labels.cost(Pick(5)) + labels.cost(Pick(2)) + more
    choice = choose(Scripted([5, 2, 7, 1]), labels, predictor, tmp_path / "x", Budgeted(amount, "clicks"))
    assert numbers(choice) == [5, 2, 7][: 2 + more]


def test_clicks_are_planned_from_those_made_so_far(pool: dict[int, Picture]) -> None:
    """One image and a half of what an average one took: of two images that took 20 clicks, 30 clicks are three."""
    labels = labelled(pool, Pick(0), Pick(1))
    labels.drawn = 20
    assert Budgeted(20, "clicks").planned(labels, regions=False) == Budget(images=3)
    assert Budgeted(20, "clicks").planned(labels, regions=True) == Budget(pixels=12 * PIXELS)
    assert Budgeted(1, "clicks").planned(labels, regions=False) == Budget(images=1)  # at least one
    assert Budgeted(7, "pixels").planned(labels, regions=True) == Budget(pixels=7)
    assert Budgeted(7, "images").planned(labels, regions=True) == Budget(images=7)


def test_clicks_are_planned_where_none_were_made() -> None:
    empty = {0: picture(0, np.zeros((8, 8), np.uint8))}
    labels = labelled(empty)
    assert labels.clicks == 0
    assert Budgeted(5, "clicks").planned(labels, regions=False).images
    assert Budgeted(5, "clicks").planned(labels, regions=True).pixels


def test_a_budget_larger_than_the_pool_takes_the_pool(
    pool: dict[int, Picture], predictor: Predictor, tmp_path: Path
) -> None:
    choice = choose(Scripted([5]), labelled(pool), predictor, tmp_path / "x", Budgeted(100, "images"))
    assert sorted(numbers(choice)) == [1, 2, 3, 4, 5, 6, 7]


def test_an_empty_pool_gives_nothing(pool: dict[int, Picture], predictor: Predictor, tmp_path: Path) -> None:
    labels = labelled(pool, *map(Pick, pool))
    for strategy in (Scripted(), Scripted(regions={}), make_strategy("entropy", {}), make_strategy("random", {})):
        assert choose(strategy, labels, predictor, tmp_path / "x", Budgeted(2, "images")) == Choice(())


def test_what_is_labelled_is_not_ranked(pool: dict[int, Picture], predictor: Predictor, tmp_path: Path) -> None:
    strategy = Scripted()
    choose(strategy, labelled(pool, Pick(3), Pick(6)), predictor, tmp_path / "x", Budgeted(2, "images"))
    assert sorted(strategy.shown) == [0, 1, 2, 4, 5, 7]


# -- windows -----------------------------------------------------------------------------------------------------------
WINDOWS = {
    5: (region(0, 0, 16, 16, 0.9), region(16, 0, 16, 16, 0.3)),
    2: (region(0, 16, 16, 16, 0.7), region(16, 16, 16, 16, 0.5)),
    7: (region(0, 0, 16, 16, 0.6),),
}


def test_windows_are_taken_by_score_across_images(
    pool: dict[int, Picture], predictor: Predictor, tmp_path: Path
) -> None:
    """0.9 of image 5, 0.7 of 2, 0.6 of 7, 0.5 of 2: four windows; those of one image are one label."""
    strategy = Scripted([5, 2, 7], regions=WINDOWS)
    choice = choose(strategy, labelled(pool), predictor, tmp_path / "x", Budgeted(3 * 256 + 1, "pixels"))
    assert choice.picks == (
        Pick(5, (Box(0, 0, 16, 16),)),
        Pick(2, (Box(0, 16, 16, 16), Box(16, 16, 16, 16))),
        Pick(7, (Box(0, 0, 16, 16),)),
    )


def test_windows_of_equal_score_keep_their_order(
    pool: dict[int, Picture], predictor: Predictor, tmp_path: Path
) -> None:
    same = {one: tuple(region(16 * step, 0, 16, 16, 0.5) for step in range(2)) for one in (2, 5)}
    strategy = Scripted([5, 2], regions=same)
    choice = choose(strategy, labelled(pool), predictor, tmp_path / "x", Budgeted(3 * 256, "pixels"))
    assert choice.picks == (Pick(5, (Box(0, 0, 16, 16), Box(16, 0, 16, 16))), Pick(2, (Box(0, 0, 16, 16),)))


def test_windows_are_paid_in_clicks(pool: dict[int, Picture], predictor: Predictor, tmp_path: Path) -> None:
    labels, best = labelled(pool), Pick(5, (Box(0, 0, 16, 16),))
    amount = labels.cost(best) + 1
    choice = choose(Scripted(regions=WINDOWS), labels, predictor, tmp_path / "x", Budgeted(amount, "clicks"))
    assert choice.picks[0] == best
    assert sum(map(labels.cost, choice.picks)) >= amount
    spent_before_the_last = sum(map(labels.cost, choice.picks)) - labels.cost(choice.picks[-1])
    assert spent_before_the_last < amount


def test_of_an_image_a_window_takes_its_part(pool: dict[int, Picture], predictor: Predictor, tmp_path: Path) -> None:
    """24 x 20 pixels are a quarter of an image: four of them are one."""
    quarters = {
        one: tuple(region(left, top, 24, 20, score) for left in (0, 24) for top in (0, 20))
        for one, score in ((5, 0.9), (2, 0.5))
    }
    strategy = Scripted([5, 2], regions=quarters)
    choice = choose(strategy, labelled(pool), predictor, tmp_path / "x", Budgeted(1, "images"))
    assert numbers(choice) == [5]
    assert len(choice.picks[0].boxes) == 4


def test_an_image_of_which_a_part_is_labelled_can_be_asked_for_again(
    pool: dict[int, Picture], predictor: Predictor, tmp_path: Path
) -> None:
    labels = labelled(pool, Pick(0), Pick(5, (Box(32, 0, 16, 16),)))
    by_window, by_image = Scripted(regions=WINDOWS), Scripted()
    choose(by_window, labels, predictor, tmp_path / "x", Budgeted(256, "pixels"))
    assert sorted(by_window.shown) == [1, 2, 3, 4, 5, 6, 7]
    assert by_window.excluded[5] == (region(32, 0, 16, 16, 0.0),)
    assert by_window.excluded[2] == ()
    choose(by_image, labels, predictor, tmp_path / "x", Budgeted(1, "images"))
    assert sorted(by_image.shown) == [1, 2, 3, 4, 6, 7]


@pytest.mark.parametrize("unit", ["pixels", "clicks", "images"])
def test_no_window_overlaps_an_earlier_one(
    pool: dict[int, Picture], predictor: Predictor, tmp_path: Path, unit: Any
) -> None:
    """Rounds of the real method until nothing is left: every pixel once."""
    strategy = make_strategy("cereals", {"window": 16, "stride": 8, "iterations": 2})
    labels = labelled(pool, Pick(0), Pick(1))
    amount = {"pixels": 5 * 256, "clicks": 40, "images": 1}[unit]
    for number in range(3):
        choice = choose(strategy, labels, predictor, tmp_path / "x.pt", Budgeted(amount, unit), round_number=number)
        assert choice.picks
        labels.add(choice.picks)
    for number in labels.numbers[2:]:
        boxes = labels.boxes(number)
        assert covered_pixels(boxes, (40, 48)).sum() == sum(box.area for box in boxes)


# -- chance and pseudo-labels ------------------------------------------------------------------------------------------
class Ignorant(Scripted):
    """Sees only what it has learned, and has learned nothing."""

    needs = frozenset({"examples"})


def test_a_strategy_that_learned_nothing_falls_back_to_chance(
    pool: dict[int, Picture], predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = labelled(pool, Pick(2))
    with caplog.at_level(logging.WARNING):
        choice = choose(Ignorant(), labels, predictor, tmp_path / "x", Budgeted(3, "images"))
    assert numbers(choice) == sample_order([0, 1, 3, 4, 5, 6, 7], 3)[:3]
    assert choice.pseudo_labels == ()
    assert "left to chance" in caplog.text


def test_chance_asks_for_no_image_twice(pool: dict[int, Picture], predictor: Predictor, tmp_path: Path) -> None:
    """Also where a strategy asks for windows: an image of which a part is labelled cannot be labelled in whole."""
    labels = labelled(pool, Pick(2), Pick(5, (Box(0, 0, 16, 16),)))
    choice = choose(Ignorant(regions={}), labels, predictor, tmp_path / "x", Budgeted(100, "images"))
    assert sorted(numbers(choice)) == [0, 1, 3, 4, 6, 7]
    labels.add(choice.picks)


def test_what_is_asked_for_is_no_pseudo_label(pool: dict[int, Picture], predictor: Predictor, tmp_path: Path) -> None:
    strategy = Scripted([5, 2, 7], pseudo_labels=[7, 2, 1])
    choice = choose(strategy, labelled(pool), predictor, tmp_path / "x", Budgeted(2, "images"))
    assert numbers(choice) == [5, 2]
    assert choice.pseudo_labels == (7, 1)


def test_certain_images_of_ceal_are_pseudo_labels(
    pool: dict[int, Picture], predictor: Predictor, tmp_path: Path
) -> None:
    strategy = make_strategy("ceal", {"threshold": 1.0, "decay": 0})
    choice = choose(strategy, labelled(pool), predictor, tmp_path / "x", Budgeted(2, "images"))
    assert sorted([*numbers(choice), *choice.pseudo_labels]) == [1, 2, 3, 4, 5, 6, 7]


# -- the truth ---------------------------------------------------------------------------------------------------------
STRATEGIES = {
    "entropy": {},
    "random": {},
    "coreset": {},
    "density": {},
    "class_balanced": {},
    "vaal": {"epochs": 1, "width": 4, "latent": 4},
    "ceal": {"threshold": 1.0},
    "cereals": {"window": 16, "stride": 8, "iterations": 2},
}


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("unit", ["images", "pixels"])
def test_the_truth_of_what_is_not_labelled_never_enters(
    pool: dict[int, Picture], predictor: Predictor, tmp_path: Path, name: str, unit: Any
) -> None:
    """Other masks of all that is not labelled: the same images are asked for, and the same are pseudo-labels."""
    random = np.random.default_rng(0)
    part = Box(0, 0, 16, 16)
    partly = pool[1].truth().copy()
    partly[partly == 2] = 0  # the square, which is outside; outlines that cross the window would change inside it, too
    masks = {number: random.integers(0, 3, (40, 48)).astype(np.uint8) for number in range(2, 8)} | {1: partly}
    other = pool | {number: with_mask(pool[number], mask) for number, mask in masks.items()}
    choices = []
    for place, pictures in enumerate((pool, other)):
        picks = [Pick(0), Pick(1, (part,))] if name == "cereals" else [Pick(0)]
        strategy = make_strategy(name, STRATEGIES[name])
        budget = Budgeted(2 if unit == "images" else 3 * 256, unit)
        choices.append(choose(strategy, labelled(pictures, *picks), predictor, tmp_path / str(place), budget))
    assert choices[0] == choices[1]
    assert choices[0].picks


def test_with_clicks_the_truth_says_only_where_the_ranking_ends(
    pool: dict[int, Picture], predictor: Predictor, tmp_path: Path
) -> None:
    """Images that take many clicks instead of few: the order is the same, of which less is paid for."""
    checkered = (np.indices((40, 48)).sum(axis=0) // 4 % 2 + 1).astype(np.uint8)
    other = {number: with_mask(one, checkered) if number else one for number, one in pool.items()}
    amount = Budgeted(30, "clicks")
    strategy = make_strategy("entropy", {})
    plain = choose(strategy, labelled(pool), predictor, tmp_path / "x", amount)
    dear = choose(strategy, labelled(other), predictor, tmp_path / "x", amount)
    assert len(dear.picks) < len(plain.picks)
    assert numbers(dear) == numbers(plain)[: len(dear.picks)]


# -- repeating ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["random", "vaal", "cereals"])
def test_the_same_round_asks_for_the_same(
    pool: dict[int, Picture], predictor: Predictor, tmp_path: Path, name: str
) -> None:
    """Also by a strategy that has learned already, as when a run is killed before its choice is written down."""
    labels, amount = labelled(pool, Pick(0), Pick(4)), Budgeted(2 * 256, "pixels")
    first, again = (
        choose(make_strategy(name, STRATEGIES[name]), labels, predictor, tmp_path / "same.pt", amount) for _ in range(2)
    )
    assert first == again


def test_rounds_and_seeds_differ(pool: dict[int, Picture], predictor: Predictor, tmp_path: Path) -> None:
    strategy, labels = make_strategy("random", {}), labelled(pool)
    budget = Budgeted(100, "images")
    orders = {
        (seed, number): tuple(
            numbers(
                Chooser(strategy, pool, TINY, budget=budget, seed=seed, file=tmp_path / "x").choose(
                    labels, predictor, None, number
                )
            )
        )
        for seed in (0, 10)
        for number in (0, 1)
    }
    assert len(set(orders.values())) == 4


def test_shapes_have_a_truth() -> None:
    """What the tests above leave out of account is there."""
    assert sorted(np.unique(shapes(2)[1])) == [0, 1, 2]


# -- points or masks ---------------------------------------------------------------------------------------------------
class Curious(Scripted):
    """Remembers what answers took."""

    prices = Prices()

    def rank(self, unlabelled: Observation, labelled: Any, *, budget: Budget, **options: Any) -> Ranking:
        self.prices = options["prices"]
        return super().rank(unlabelled, labelled, budget=budget)


def test_a_strategy_is_told_what_points_and_masks_took(
    pool: dict[int, Picture], predictor: Predictor, tmp_path: Path
) -> None:
    strategy = Curious([5])
    labels = labelled(pool, Pick(0, points=((1, 1), (2, 2))), Pick(3))
    choose(strategy, labels, predictor, tmp_path / "x", Budgeted(1, "images"))
    assert strategy.prices == Prices(points=2, mask=pool[3].outlines.clicks)
    choose(strategy, labelled(pool, Pick(3)), predictor, tmp_path / "x", Budgeted(1, "images"))
    assert strategy.prices.points is None


@pytest.mark.parametrize(("worth", "is_points"), [(2.0, True), (1000.0, False)])
def test_auto_asks_most_images_for_what_teaches_more(
    pool: dict[int, Picture], predictor: Predictor, tmp_path: Path, worth: float, is_points: bool
) -> None:
    """Ten points take about as many clicks as a mask. One image in ten may be asked for the other."""
    auto = make_strategy("auto", {"points": 10, "worth": worth})
    known = labelled(pool, Pick(0), Pick(1, points=tuple((3 * at, 3 * at) for at in range(10))))
    asked = choose(auto, known, predictor, tmp_path / "x", Budgeted(70, "clicks"))
    kinds = [not pick.is_whole for pick in asked.picks]
    assert len(kinds) >= 5
    assert kinds.count(is_points) >= len(kinds) - 1
    assert all(len(pick.points) == 10 for pick in asked.picks if not pick.is_whole)
