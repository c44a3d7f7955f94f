"""Tasks behind the rows of a ranking: the queue is the same as if each of them had a row."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pytest
from database_work import watched
from wiring import PROJECT, task_of

from ml_backend.learning.ranking import PoolRanking, append_unscored, sample_order
from ml_backend.projects.audit import AuditSet, turns_of
from ml_backend.projects.services import Services
from ml_backend.store import Behind, Store
from ml_backend.system.chance import draw
from ml_backend.worker.audit_places import most_audits, with_audits

SEED, SHARE = 3, 0.25
SCORED, PLACES = 6, 14


def ranked(store: Store, *, tasks: int, audits: int, places: int | None) -> Mapping[int, float]:
    """Rank tasks, of which the last are of the audit set, as the worker does; with so many rows, or one for each."""
    others, images = range(1, tasks + 1), [(task, f"g{task}", f"{task}.png") for task in range(100, 100 + audits)]
    store.put_tasks(task_of(task) for task in others)
    store.put_tasks(task_of(task, group_key=group) for task, group, _ in images)
    store.draw_tasks(PROJECT, SEED)
    store.set_audit(PROJECT, [task for task, *_ in images], audit=True)
    store.set_turns(PROJECT, turns_of(images, AuditSet(SHARE, SEED)))
    newest = store.newest_task(PROJECT)
    order = [task.task_id for task in store.drawn_tasks(PROJECT, newest=newest, at_once=4)]
    assert order == sample_order(list(others), SEED)
    scored, rest = order[:SCORED], order[SCORED:] if places is None else order[SCORED:places]
    left = len(order) - SCORED - len(rest)
    ranking = PoolRanking({task: 1 - at / 9 for at, task in enumerate(scored)}, SCORED)
    after = draw(SEED, order[-1 if places is None else places - 1])
    ranking = append_unscored(ranking, rest, behind=left, after=after)
    turns = store.audits_in_turn(PROJECT, newest=newest)
    given = list(turns) if places is None else list(turns)[: most_audits(len(ranking.priorities), SHARE)]
    mixed = with_audits(ranking, given, SHARE, [], more=len(turns) - len(given))
    turn = turns[given[mixed.used - 1]] if mixed.used else -1
    behind = Behind(after, turn, newest, mixed.first, mixed.period) if left else None
    store.put_ranking(PROJECT, mixed.ranking.priorities, behind=behind)
    return mixed.ranking.priorities


def queue(store: Store, *, limit: int = 7) -> list[tuple[int, float]]:
    """All pages of the queue."""
    total = store.count_ranked(PROJECT)
    pages = [store.queue_page(PROJECT, "", offset=offset, limit=limit) for offset in range(0, total, limit)]
    entries = [entry for page in pages for entry in page]
    assert [entry.rank for entry in entries] == list(range(1, total + 1))
    return [(entry.task.task_id, round(entry.priority, 9)) for entry in entries]


@pytest.mark.parametrize(("tasks", "audits"), [(40, 12), (40, 0), (18, 30), (14, 5)])
def test_the_queue_is_the_same_as_if_each_task_had_a_row(tasks: int, audits: int, services: Services) -> None:
    store = services.store
    store.wake(PROJECT)
    whole = ranked(store, tasks=tasks, audits=audits, places=None)
    expected = [(task, round(priority, 9)) for task, priority in whole.items()]
    expected.sort(key=lambda place: -place[1])
    assert queue(store) == expected
    rows = ranked(store, tasks=tasks, audits=audits, places=PLACES)
    assert (len(rows) < len(whole)) is (tasks > PLACES)
    assert queue(store) == expected
    order = [task for task, _ in expected]
    for task in (*order[:1], *order[len(rows) :: 5], order[-1]):
        assert store.rank_of(PROJECT, task) == 1 + order.index(task)
    priorities = store.priorities_of_all(PROJECT, order)
    assert {task: round(priority, 9) for task, priority in priorities.items()} == dict(expected)
    assert store.extend_ranking(PROJECT, least=len(rows), more=5) == 0, "enough wait"
    placed = len(rows)
    while more := store.extend_ranking(PROJECT, least=len(whole), more=5):
        placed += more
        assert queue(store) == expected
        assert store.count_new(PROJECT, after=0) == 0
        assert [(task.task_id, round(at, 9)) for task, at in store.ranked(PROJECT)] == expected[:placed]
    assert placed == len(whole)


def test_what_happens_to_tasks_behind(services: Services) -> None:
    """One is labelled, of one the image fails, one is deleted, one arrives: the others keep their order."""
    store = services.store
    store.wake(PROJECT)
    rows = ranked(store, tasks=40, audits=0, places=PLACES)
    known = store.changes(PROJECT)
    order = [task for task, _ in queue(store)]
    labelled, failed, deleted = order[len(rows) : len(rows) + 3]
    store.put_tasks([task_of(labelled, status="labelled"), task_of(41)])
    store.set_task_error(PROJECT, failed, "not found")
    store.delete_tasks(PROJECT, [deleted])
    left = [task for task in order if task not in (labelled, failed, deleted)]
    assert [task for task, _ in queue(store)] == left
    assert all(before[1] > after[1] for before, after in pairwise(queue(store)))
    assert store.rank_of(PROJECT, 41) is None
    assert store.count_new(PROJECT, after=known) == 1, "the one that arrived; the others keep their places"
    store.set_task_error(PROJECT, failed, "")
    store.put_tasks([task_of(labelled)])
    assert [task for task, _ in queue(store)] == [task for task in order if task != deleted]
    assert store.count_new(PROJECT, after=known) == 1
    store.put_ranking(PROJECT, {7: 1.0})
    assert [task for task, _ in queue(store)] == [7]


def test_another_seed_draws_anew(services: Services) -> None:
    store = services.store
    store.put_tasks(task_of(task) for task in range(1, 30))
    for seed in (0, 5, 5, 0):
        store.draw_tasks(PROJECT, seed)
        store.put_tasks([task_of(30), task_of(3)])
        drawn = [task.task_id for task in store.drawn_tasks(PROJECT, newest=30)]
        assert drawn == sample_order(list(range(1, 31)), seed)


@pytest.mark.sqlite("counts the steps of SQLite")
def test_a_page_far_behind_reads_the_page(services: Services) -> None:
    store = services.store
    store.wake(PROJECT)
    ranked(store, tasks=99, audits=0, places=PLACES)
    with watched(store) as work:
        store.count_ranked(PROJECT)
        rows, _ = work.of(lambda: store.queue_page(PROJECT, "", offset=70, limit=5))
    assert rows < 5 + PLACES + 20
