"""Numbers of changes: every write of tasks takes one, and what is counted or derived follows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ml_backend.annotations.boxes import Box, Query
from ml_backend.store import Decision, Store, Task

PROJECT = 3
LABEL = Task(PROJECT, 1, "1.png", "a", status="labelled", annotation_id=9, label_digest="d", mask_file="/m/1.png")
TASKS = [LABEL, Task(PROJECT, 2, "2.png", "b"), Task(PROJECT, 3, "3.png", "b", status="passed")]
WRITES: dict[str, Callable[[Store], object]] = {
    "a task is added": lambda store: store.put_tasks([Task(PROJECT, 4, "4.png")]),
    "a task is replaced": lambda store: store.put_tasks([replace(TASKS[1], status="skipped")]),
    "an error": lambda store: store.set_task_error(PROJECT, 2, "gone"),
    "a label is left out": lambda store: store.leave_out([LABEL], {1: "gone"}),
    "a status": lambda store: store.set_task_status(PROJECT, [3], "unlabelled"),
    "a side": lambda store: store.set_held_out(PROJECT, [1], held_out=True),
    "the audit set": lambda store: store.set_audit(PROJECT, [2], audit=True),
    "an annotator": lambda store: store.set_unchanged([replace(LABEL, annotator=7)]),
    "a decision": lambda store: store.put_decisions(PROJECT, [Decision(2, True, 0.5, 0.1, 1.0)], state=("s", "")),
    "a ranking": lambda store: store.put_ranking(PROJECT, {2: 0.5}),
    "a follow-up task": lambda store: store.move_ranking(PROJECT, {1: 4}, [Task(PROJECT, 4, "1.png", "a")]),
    "a task is deleted": lambda store: store.delete_tasks(PROJECT, [2]),
}


@pytest.fixture(autouse=True)
def tasks(store: Store) -> None:
    store.wake(PROJECT)
    store.put_tasks(TASKS)
    store.put_ranking(PROJECT, {1: 0.75})


def counted(store: Store) -> object:
    return store.count_tasks(PROJECT), dict(store.count_sides(PROJECT)), store.count_ranked(PROJECT)


@pytest.mark.parametrize("what", WRITES)
def test_every_write_takes_a_number_and_is_counted(what: str, store: Store, url: str) -> None:
    before, _ = store.changes(PROJECT), counted(store)
    WRITES[what](store)
    assert store.changes(PROJECT) > before
    other = Store(url)  # has counted nothing yet
    try:
        assert counted(store) == counted(other)
    finally:
        other.close()


@pytest.mark.parametrize(
    ("what", "moves"),
    [("a task is added", True), ("a task is deleted", True), ("a follow-up task", True), ("a task is replaced", False)],
)
def test_the_pool_changes_with_its_tasks_and_their_groups(what: str, moves: bool, store: Store) -> None:
    before = store.pool_changes(PROJECT)
    WRITES[what](store)
    assert (store.pool_changes(PROJECT) > before) is moves
    before = store.pool_changes(PROJECT)
    store.put_tasks([replace(LABEL, group_key="another")])
    assert store.pool_changes(PROJECT) > before


def test_nothing_to_write_takes_no_number(store: Store) -> None:
    before = store.changes(PROJECT)
    store.put_tasks([])
    store.set_task_status(PROJECT, [], "passed")
    store.set_held_out(PROJECT, [], held_out=True)
    store.delete_tasks(PROJECT, [])
    assert store.changes(PROJECT) == before
    assert store.changes(PROJECT + 1) == 0


def test_sides_that_changed_later_and_the_audit_set_stays_with_a_task_that_is_read_again(store: Store) -> None:
    store.set_audit(PROJECT, [1, 2], audit=True)
    before = store.changes(PROJECT)
    assert store.sides(PROJECT, after=before) == []
    store.put_tasks([replace(LABEL, masked=True)])
    (side,) = store.sides(PROJECT, after=before)
    assert (side.task_id, side.masked, side.audit) == (1, True, True)
    assert dict(store.count_sides(PROJECT)) == {
        ("labelled", True): 1,
        ("labelled", False): 0,
        ("unlabelled", True): 1,
        ("unlabelled", False): 0,
        ("passed", True): 0,
        ("passed", False): 1,
    }


def test_what_a_ranking_reads_is_all_there_is(store: Store) -> None:
    store.set_task_error(PROJECT, 2, "gone")
    assert store.tasks_done(PROJECT) == [store.tasks(PROJECT)[0], store.tasks(PROJECT)[2]]
    assert [task.task_id for task in store.drawn_tasks(PROJECT, newest=3)] == [2]
    assert [label.task_id for label in store.training_labels(PROJECT)] == [1]
    assert [task.task_id for task in store.tasks_without_image(PROJECT)] == [2]
    assert store.label_files(PROJECT) == {"1.png"}
    assert store.a_label(PROJECT) == LABEL
    assert store.answers(PROJECT) == [(1, "labelled", "d"), (3, "passed", "")]
    assert (store.task_ids(PROJECT), store.newest_task(PROJECT), store.newest_task(4)) == ({1, 2, 3}, 3, 0)
    assert store.tasks_of_images(PROJECT, ["2.png", "none"]) == store.tasks(PROJECT, status="unlabelled")


def test_parts_that_are_asked_for(store: Store) -> None:
    assert not store.asks_for_parts(PROJECT)
    store.put_ranking(PROJECT, {1: 0.75, 2: 0.5}, {1: Query((Box(0, 0, 4, 3),), 6.5), 2: Query((Box(0, 0, 2, 2),))})
    assert store.asks_for_parts(PROJECT)
    assert store.asked_tasks(PROJECT) == {2}
    assert store.asked_tasks(PROJECT, waiting=False) == {1}
    store.put_queries(PROJECT, "nextmask-1.1", {1: Query((Box(0, 0, 4, 3),))})
    assert (store.shown_queries(PROJECT, "nextmask-1.1"), store.shown_queries(PROJECT, "nextmask-1.2")) == ({1}, set())
    assert (store.has_ranked(PROJECT, 1), store.has_ranked(PROJECT, 2)) == (True, False)


def test_the_best_of_a_ranking_in_their_order(store: Store) -> None:
    store.put_tasks(Task(PROJECT, number, f"{number}.png") for number in range(10, 20))
    store.put_ranking(PROJECT, {number: 0.5 if number in (12, 15) else number / 100 for number in range(10, 20)})
    assert [task.task_id for task, _ in store.ranked(PROJECT, limit=4)] == [12, 15, 19, 18]
    assert [task.task_id for task, _ in store.ranked(PROJECT, lowest=0.18)] == [12, 15, 19, 18]
    assert [task.task_id for task, _ in store.ranked(PROJECT, among=[10, 15, 99])] == [15, 10]
    page = store.queue_page(PROJECT, "", offset=2, limit=2)
    assert [(entry.task.task_id, entry.rank) for entry in page] == [(19, 3), (18, 4)]
