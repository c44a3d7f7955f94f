"""Work ahead in threads: in order, bounded, and ended with whoever takes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from ml_backend.system.ahead import cores, in_order


def test_results_come_in_order_whatever_takes_longest() -> None:
    def work(item: int) -> int:
        time.sleep(0.02 * (item % 3))
        return item * item

    futures = in_order(work, range(20), workers=4, name="test")
    assert [future.result() for future in futures] == [item * item for item in range(20)]


def test_several_threads_work_at_once() -> None:
    together = threading.Barrier(3, timeout=30)
    futures = in_order(lambda _: together.wait(), range(3), workers=3, name="test")
    assert sorted(future.result() for future in futures) == [0, 1, 2]


def test_an_error_is_of_its_item_alone() -> None:
    def work(item: int) -> float:
        return 1 / item

    futures = list(in_order(work, [1, 0, 2], workers=2, name="test"))
    assert [future.exception() is None for future in futures] == [True, False, True]
    with pytest.raises(ZeroDivisionError):
        futures[1].result()


def counted(taken: list[int], count: int) -> Iterator[int]:
    for item in range(count):
        taken.append(item)
        yield item


def test_no_more_is_taken_than_two_for_each_worker() -> None:
    taken = list[int]()
    futures = in_order(lambda item: item, counted(taken, 100), workers=3, name="test")
    next(futures)
    assert len(taken) == 6
    next(futures)
    assert len(taken) == 7
    futures.close()


def test_large_items_are_taken_one_after_the_other() -> None:
    taken = list[int]()
    futures = in_order(
        lambda item: item,
        counted(taken, 9),
        workers=4,
        name="test",
        size=lambda item: 60 if item < 8 else 500,
        most=100,
    )
    assert next(futures).result() == 0
    assert taken == [0, 1]  # the second begins below the bound
    assert [future.result() for future in futures] == list(range(1, 9))  # what is larger than the bound comes, too


def test_closed_early_nothing_goes_on() -> None:
    stopped, release, done = threading.Event(), threading.Event(), list[int]()

    def work(item: int) -> int:
        if item:
            release.wait(30)
        done.append(item)
        return item

    def stop() -> None:
        stopped.set()
        release.set()

    futures = in_order(work, range(100), workers=2, name="test", stop=stop)
    assert next(futures).result() == 0
    futures.close()
    assert stopped.is_set()
    assert len(done) <= 3  # those that had begun
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test")]


def test_there_is_a_core() -> None:
    assert 1 <= cores() <= 16
