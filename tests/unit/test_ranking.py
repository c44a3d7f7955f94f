"""Ranking: a stream of batches through a real strategy, samples, and what comes behind the scored tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch

from ml_backend.errors import ConfigurationError
from ml_backend.ranking import DRIVEN, append_unscored, make_strategy, rank_pool, sample_order, within_time
from strategies import Batch, available


def batch(*sureness: tuple[int, float]) -> Batch:
    """Images of four pixels whose first class has this probability."""
    ids = tuple(task for task, _ in sureness)
    first = torch.tensor([probability for _, probability in sureness]).view(1, -1, 1, 1, 1).expand(1, -1, 1, 2, 2)
    return Batch(ids=ids, images=torch.zeros(len(ids), 3, 2, 2), probabilities=torch.cat([first, 1 - first], dim=2))


def stream(*batches: Batch) -> Callable[[], Iterator[Batch]]:
    return lambda: iter(batches)


def rank(
    name: str, *batches: Batch, seed: int = 0, progress: Callable[[int], None] = lambda _: None
) -> dict[int, float]:
    strategy = make_strategy(name, {})
    return rank_pool(strategy, stream(*batches), stream(), budget=3, seed=seed, round_number=0, progress=progress)


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


def test_a_strategy_may_read_the_pool_again_in_prepare() -> None:
    reads = []

    class TwoPasses:
        """Wraps a strategy: its prepare walks both pools twice, as one that trains its own network does."""

        needs = frozenset({"labelled"})

        def __init__(self) -> None:
            self.inner = make_strategy("entropy", {})

        def prepare(self, labelled: object, unlabelled: object, **_: object) -> None:
            for pool in (labelled, labelled, unlabelled, unlabelled):
                reads.append(sum(len(one.ids) for one in pool))  # type: ignore[attr-defined]

        def observe(self, one: Batch) -> object:
            return self.inner.observe(one)

        def rank(self, unlabelled: object, labelled: object, **options: object) -> object:
            assert labelled is not None
            return self.inner.rank(unlabelled, labelled, **options)  # type: ignore[arg-type]

    found = rank_pool(
        TwoPasses(),  # type: ignore[arg-type]
        stream(batch((1, 0.9), (2, 0.6))),
        stream(batch((7, 0.5))),
        budget=1,
        seed=0,
        round_number=0,
        progress=lambda _: None,
    )
    assert reads == [1, 1, 2, 2]
    assert in_order(found) == [2, 1]


@pytest.mark.parametrize(("name", "options"), [("entropie", {}), ("entropy", {"temperature": 2})])
def test_an_unknown_strategy_or_option_names_the_setting(name: str, options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=rf"NEXTMASK_STRATEGY = '{name}'.*NEXTMASK_STRATEGY_OPTIONS") as raised:
        make_strategy(name, options)
    if not options:
        assert all(one in str(raised.value) for one in available())


# -- samples ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(set(available()) - set(DRIVEN)))
def test_a_method_that_the_backend_does_not_drive_is_refused_at_once(name: str) -> None:
    with pytest.raises(ConfigurationError, match="Choose one of: entropy, least_confidence, margin, random"):
        make_strategy(name, {})


@pytest.mark.parametrize("name", DRIVEN)
def test_what_the_backend_drives_needs_nothing_else(name: str) -> None:
    assert make_strategy(name, {}).needs <= {"probabilities"}


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
    ranking = append_unscored({1: 0.9, 2: 0.1}, [])
    assert (dict(ranking.priorities), ranking.scored) == ({1: 0.9, 2: 0.1}, 2)


def test_tasks_without_score_come_behind_in_the_order_given() -> None:
    ranking = append_unscored({1: 0.0, 2: 1.0, 3: 0.4}, [9, 8, 7])
    assert in_order(dict(ranking.priorities)) == [2, 3, 1, 9, 8, 7]
    assert ranking.scored == 3
    assert all(0 < priority <= 1 for priority in ranking.priorities.values())
    assert len(set(ranking.priorities.values())) == 6


def test_without_any_score_the_order_given_is_the_ranking() -> None:
    ranking = append_unscored({}, list(range(50_000)))
    assert in_order(dict(ranking.priorities)) == list(range(50_000))
    assert ranking.scored == 0
