"""Ranking: batches through a real strategy, samples, and what comes behind the scored tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ml_backend.annotations.boxes import Box
from ml_backend.errors import ConfigurationError
from ml_backend.learning.ranking import (
    Batches,
    Observations,
    PoolRanking,
    Pools,
    Preparation,
    append_unscored,
    make_strategy,
    observed,
    rank_pool,
    sample_order,
    state_name,
    within_time,
)
from strategies import Batch, Budget, available


def batch(*sureness: tuple[int, float]) -> Batch:
    """Images of four pixels whose first class has this probability."""
    ids = tuple(task for task, _ in sureness)
    first = torch.tensor([probability for _, probability in sureness]).view(1, -1, 1, 1, 1).expand(1, -1, 1, 2, 2)
    return Batch(ids=ids, images=torch.zeros(len(ids), 3, 2, 2), probabilities=torch.cat([first, 1 - first], dim=2))


def reread(*some: Batch) -> Batches:
    return lambda: iter(some)


def measured(*some: Batch) -> Observations:
    return observed(reread(*some))


def rank(
    name: str, *batches: Batch, seed: int = 0, progress: Callable[[int], None] = lambda _: None
) -> dict[int, float]:
    pools = Pools(measured(*batches), measured(), reread(*batches), reread())
    return dict(ranked(make_strategy(name, {}), pools, seed=seed, progress=progress).priorities)


def ranked(strategy: object, pools: Pools, images: int = 3, **options: Any) -> PoolRanking:
    options = {"seed": 0, "round_number": 0, "progress": lambda _: None} | options
    return PoolRanking.of(rank_pool(strategy, pools, budget=Budget(images=images), **options))  # type: ignore[arg-type]


def in_order(priorities: dict[int, float]) -> list[int]:
    return sorted(priorities, key=lambda task: -priorities[task])


@pytest.mark.parametrize("name", ["entropy", "margin", "least_confidence"])
def test_the_least_certain_image_comes_first(name: str) -> None:
    shown: list[int] = []
    found = rank(name, batch((1, 0.9), (2, 0.6)), batch((3, 0.99), (4, 0.5)), progress=shown.append)
    assert in_order(found) == [4, 2, 1, 3]
    assert all(0 <= priority <= 1 for priority in found.values())
    assert len(set(found.values())) == 4
    assert shown == [2, 4]


def test_the_order_does_not_depend_on_the_batches() -> None:
    assert rank("entropy", batch((1, 0.9), (2, 0.6), (3, 0.5))) == rank(
        "entropy", batch((3, 0.5)), batch((2, 0.6), (1, 0.9))
    )


def test_randomness_is_the_seeds() -> None:
    pool = batch(*((task, 0.5) for task in range(1, 21)))
    assert rank("random", pool, seed=3) == rank("random", pool, seed=3)
    assert in_order(rank("random", pool, seed=3)) != in_order(rank("random", pool, seed=4))


def test_an_empty_pool_ranks_nothing() -> None:
    assert rank("entropy") == {}


class Learner:
    """Wraps a strategy: its prepare walks both pools twice and reports, as one that trains its own network does."""

    asks_for_regions = False

    def __init__(self, needs: set[str]) -> None:
        self.inner, self.needs = make_strategy("entropy", {}), frozenset(needs)
        self.read: list[int] = []
        self.known: object = None
        self.learned = 0
        self.deadline: float | None = None

    def prepare(self, labelled: Any, unlabelled: Any, *, deadline: Any = None, progress: Any = None, **_: Any) -> None:
        self.deadline = deadline
        for pool in (labelled, labelled, unlabelled, unlabelled):
            self.read.append(sum(len(one.ids) for one in pool))
        for step in range(1, 3):
            self.learned += 1
            if progress:
                progress(step, 2)

    def observe(self, one: Batch) -> object:
        return self.inner.observe(one)

    def rank(self, unlabelled: Any, labelled: Any, **options: Any) -> object:
        self.known = labelled
        return self.inner.rank(unlabelled, labelled, **options)

    def state_dict(self) -> dict[str, Any]:
        return {"learned": self.learned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learned = state["learned"]


POOLS = Pools(
    measured(batch((1, 0.9), (2, 0.6))),
    measured(batch((7, 0.5))),
    reread(batch((1, 0.9), (2, 0.6), (3, 0.5))),
    reread(batch((7, 0.5), (8, 0.5))),
)
"""Of different lengths, so that one cannot be taken for another."""


def test_a_strategy_learns_from_the_images_alone_as_often_as_it_wants() -> None:
    strategy = Learner({"examples"})
    found = ranked(strategy, POOLS)
    assert strategy.read == [2, 2, 3, 3]
    assert in_order(dict(found.priorities)) == [2, 1]
    assert strategy.known is None  # who does not ask for them pays for no pass over what is labelled


def test_what_is_labelled_is_observed_for_methods_that_ask_for_it() -> None:
    strategy = Learner({"labelled"})
    ranked(strategy, POOLS)
    assert strategy.known.ids == (7,)  # type: ignore[attr-defined]


# -- what a strategy learned -----------------------------------------------------------------------------------------
def preparation(file: Path, progress: Callable[[int, int], None] = lambda *_: None) -> Preparation:
    return Preparation(file, 60.0, progress)


def test_what_was_learned_is_kept_for_the_next_round(tmp_path: Path) -> None:
    file, shown = tmp_path / "strategy" / "learner.pt", list[tuple[int, int]]()
    ranked(Learner(set()), POOLS, preparation=preparation(file, lambda *steps: shown.append(steps)))
    assert shown == [(1, 2), (2, 2)]
    again = Learner(set())
    ranked(again, POOLS, preparation=preparation(file))
    assert again.learned == 4
    assert again.deadline is not None
    assert 50 < again.deadline - time.monotonic() <= 60


def test_a_ranking_that_is_killed_while_it_learns_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "learner.pt"
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def killed(done: int, _total: int) -> None:
        now[0] += 31  # what was learned is written down every 30 s
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ranked(Learner(set()), POOLS, preparation=preparation(file, killed))
    again = Learner(set())
    ranked(again, POOLS, preparation=preparation(file))
    assert again.learned == 1 + 2


def test_a_damaged_state_is_learned_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "learner.pt"
    file.write_bytes(b"half a file")
    strategy = Learner(set())
    ranked(strategy, POOLS, preparation=preparation(file))
    assert strategy.learned == 2
    assert "learner.pt cannot be used" in caplog.text


def test_options_have_states_of_their_own() -> None:
    names = {state_name("vaal", options) for options in ({}, {"latent": 8}, {"latent": 9})}
    assert len(names) == 3
    assert state_name("vaal", {"a": 1, "b": 2}) == state_name("vaal", {"b": 2, "a": 1})


# -- regions and pseudo-labels ---------------------------------------------------------------------------------------
def corners(task: int, *sure: float) -> Batch:
    """An image of 8 x 8 pixels whose four quarters are of this sureness, from the upper left, row by row."""
    quarters = torch.tensor(sure).view(2, 2).repeat_interleave(4, 0).repeat_interleave(4, 1)
    first = quarters[None, None, None]
    return Batch(ids=(task,), images=torch.zeros(1, 3, 8, 8), probabilities=torch.cat([first, 1 - first], dim=2))


def test_regions_are_asked_for_where_nothing_was_asked_before() -> None:
    strategy = make_strategy("cereals", {"window": 4, "stride": 4, "fusion": "information"})
    asked = {2: (Box(0, 0, 4, 4),)}
    images = measured(corners(1, 0.99, 0.98, 0.9, 0.97), corners(2, 0.5, 0.6, 0.99, 0.99))
    found = ranked(strategy, Pools(images, measured(), reread(), reread(), asked), images=1)
    assert found.queries[2].boxes[0] == Box(4, 0, 4, 4)
    assert all(Box(0, 0, 4, 4) not in query.boxes for task, query in found.queries.items() if task == 2)
    assert in_order(dict(found.priorities)) == [2, 1]


def test_certain_images_are_proposed_as_pseudo_labels() -> None:
    found = ranked(
        make_strategy("ceal", {"threshold": 0.05}),
        Pools(measured(batch((1, 0.9999), (2, 0.5))), measured(), reread(), reread()),
        images=1,
    )
    assert found.pseudo_labels == (1,)


def test_labelled_images_are_counted_without_a_look_at_them() -> None:
    """Half as many pseudo-labels as there are labels: to count them no image has to pass the network."""

    def never() -> Iterator[Batch]:
        raise AssertionError("labelled images were read")

    def two_classes(task: int) -> Batch:
        return corners(task, 0.95, 0.95, 0.05, 0.05)

    pool = reread(*map(two_classes, (1, 2, 3, 4)))
    pools = Pools(observed(pool), observed(never), pool, never, known=(7, 8, 9, 4))
    found = ranked(make_strategy("auto", {"points": 0}), pools, images=1)
    assert len(found.pseudo_labels) == 2
    assert 4 not in found.pseudo_labels


# -- names -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", available())
def test_every_method_of_the_library_can_be_set(name: str) -> None:
    assert make_strategy(name, {}).name == name


def test_a_preset_stands_for_the_options_of_a_paper() -> None:
    assert "committee" in make_strategy("ceal", {"preset": "melanoma"}).needs
    assert "committee" not in make_strategy("ceal", {"preset": "melanoma", "measure": "entropy"}).needs
    with pytest.raises(ConfigurationError, match="unknown preset 'mole'; valid: melanoma"):
        make_strategy("ceal", {"preset": "mole"})
    with pytest.raises(ConfigurationError, match="unknown preset 'melanoma'; valid: none"):
        make_strategy("entropy", {"preset": "melanoma"})


@pytest.mark.parametrize(("name", "options"), [("entropie", {}), ("entropy", {"temperature": 2})])
def test_an_unknown_strategy_or_option_names_the_setting(name: str, options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=rf"NEXTMASK_STRATEGY = '{name}'.*NEXTMASK_STRATEGY_OPTIONS") as raised:
        make_strategy(name, options)
    if not options:
        assert all(one in str(raised.value) for one in available())


def test_an_unknown_strategy_is_answered_with_all_that_a_project_can_have() -> None:
    with pytest.raises(ConfigurationError) as raised:
        make_strategy("point", {})
    assert str(raised.value).endswith(f"available: {', '.join(available())}")
    assert {"points", "random_points"} < set(available())
    assert all(make_strategy(name, {}).name == name for name in available())


# -- samples ---------------------------------------------------------------------------------------------------------
def test_the_sample_depends_on_ids_and_seed_only() -> None:
    tasks = list(range(1, 101))
    first = sample_order(tasks, 0)
    assert sorted(first) == tasks
    assert first == sample_order(tasks[::-1], 0)
    assert first != tasks
    assert first != sample_order(tasks, 1)
    # tasks that come or go leave the others in their order
    assert sample_order(tasks[:50], 0) == [task for task in first if task <= 50]


def test_time_ends_the_stream_but_not_before_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def batches() -> Iterator[Batch]:
        for number in range(10):
            now[0] += 1
            yield batch((2 * number, 0.5), (2 * number + 1, 0.5))

    def passed(seconds: float, at_least: int) -> int:
        now[0] = 0.0
        return sum(len(one.ids) for one in within_time(batches(), seconds=seconds, at_least=at_least))

    assert passed(4, 0) == 8
    assert passed(4, 12) == 12
    assert passed(4, 11) == 12
    assert passed(100, 0) == 20
    assert passed(0, 0) == 2


# -- what was not scored ---------------------------------------------------------------------------------------------
def test_when_all_are_scored_priorities_stay() -> None:
    ranking = append_unscored(PoolRanking({1: 0.9, 2: 0.1}, 2), [])
    assert (dict(ranking.priorities), ranking.scored) == ({1: 0.9, 2: 0.1}, 2)


def test_tasks_without_score_come_behind_in_the_order_given() -> None:
    ranking = append_unscored(PoolRanking({1: 0.0, 2: 1.0, 3: 0.4}, 3), [9, 8, 7])
    assert in_order(dict(ranking.priorities)) == [2, 3, 1, 9, 8, 7]
    assert ranking.scored == 3
    assert all(0 < priority <= 1 for priority in ranking.priorities.values())
    assert len(set(ranking.priorities.values())) == 6


def test_without_any_score_the_order_given_is_the_ranking() -> None:
    ranking = append_unscored(PoolRanking({}, 0), list(range(50_000)))
    assert in_order(dict(ranking.priorities)) == list(range(50_000))
    assert ranking.scored == 0


# -- the ranking itself ------------------------------------------------------------------------------------------------
def test_the_ranking_itself_is_what_the_queue_is_made_of() -> None:
    """Simulations take the strategy's ranking as it is, the queue of production its priorities."""
    pools = Pools(measured(batch((1, 0.9), (2, 0.6), (3, 0.5))), measured(), reread(), reread())
    options: dict[str, Any] = {"budget": Budget(images=1), "seed": 0, "round_number": 0, "progress": lambda _: None}
    ranked = rank_pool(make_strategy("entropy", {}), pools, **options)
    assert ranked is not None
    assert ranked.ranking.ids == (3, 2, 1)
    queue = PoolRanking.of(ranked)
    assert in_order(dict(queue.priorities)) == [3, 2, 1]
    assert queue.scored == 3
    assert queue.information[3] == pytest.approx(1.0)
    assert sorted(queue.information, key=lambda task: -queue.information[task]) == [3, 2, 1]


@pytest.mark.parametrize("name", ["entropy", "vaal"])
def test_without_a_pool_there_is_no_ranking(name: str) -> None:
    pools = Pools(measured(), measured(), reread(), reread())
    options: dict[str, Any] = {"budget": Budget(images=1), "seed": 0, "round_number": 0, "progress": lambda _: None}
    ranked = rank_pool(make_strategy(name, {}), pools, **options)
    assert ranked is None
    assert PoolRanking.of(ranked) == PoolRanking({}, 0)
