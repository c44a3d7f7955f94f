"""The store: wake-ups, leases among threads and processes, atomic writes, and databases that cannot be used."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from wiring import Clock, task_of

from ml_backend.annotations.boxes import Box, Query
from ml_backend.errors import LeaseLost, StoreError
from ml_backend.store import Decision, Event, Lease, Project, Store, Task

ROOT = Path(__file__).parents[3]
SECONDS = 30.0  # of a lease here: longer than any test
INTERVAL = 3600.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'state' / 'nextmask.sqlite3'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(url)
    yield opened
    opened.close()


def acquire(store: Store, owner: str = "me", *, interval: float = INTERVAL, only: int | None = None) -> Lease | None:
    return store.acquire(owner, lease_seconds=SECONDS, interval=interval, only=only)


def taken(store: Store, owner: str = "me", **options: Any) -> Lease:
    lease = acquire(store, owner, **options)
    assert lease is not None
    return lease


def project(store: Store, project_id: int = 1) -> Project:
    found = store.project(project_id)
    assert found is not None
    return found


# -- wake-ups --------------------------------------------------------------------------------------------------------
def test_a_project_that_waits_need_not_be_woken_again_and_its_first_moment_is_kept(store: Store, clock: Clock) -> None:
    for _ in range(3):
        store.wake(1)
        clock.now += 5
    woken = project(store)
    assert (woken.wakes, woken.wakes_handled, woken.dirty_since) == (1, 0, clock.now - 15)
    assert woken.train_requested_at is None


def test_a_wake_up_during_the_work_is_looked_at_again(store: Store, clock: Clock) -> None:
    store.wake(1)
    lease = taken(store)
    clock.now += 1
    store.wake(1)
    store.release(lease, handled=True)
    after = project(store)
    assert (after.wakes, after.wakes_handled, after.dirty_since) == (2, 1, clock.now)
    assert acquire(store) is not None


def test_many_wake_ups_before_the_work_lead_to_one_look(store: Store) -> None:
    for _ in range(9):
        store.wake(1)
    store.release(taken(store), handled=True)
    assert project(store).dirty_since is None
    assert acquire(store) is None


def test_work_that_was_left_stays_due(store: Store) -> None:
    store.wake(1)
    store.release(taken(store), handled=False)
    assert project(store).wakes_handled == 0
    assert acquire(store) is not None


def test_asking_for_training_ends_the_pause_after_a_failed_one(store: Store, clock: Clock) -> None:
    store.wake(1, retry_at=clock.now + 900, failed_digest="x")
    store.wake(1, train=True)
    assert (project(store).retry_at, project(store).train_requested_at) == (None, clock.now)
    clock.now += 7
    store.wake(1)  # another event does not take the request back
    assert project(store).train_requested_at == clock.now - 7


def test_no_wake_up_is_lost_among_threads(store: Store) -> None:
    store.wake(1)
    taken(store)  # while it is worked on, each counts: it may tell of what this look did not see
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.wake(1), range(80)))
    assert project(store).wakes == 81


def test_a_disconnected_project_is_taken_up_only_on_demand(store: Store) -> None:
    store.wake(1)
    store.update_project(1, managed=False)
    store.wake(1)
    assert acquire(store) is None
    assert store.projects() == []
    store.wake(1, manage=True, extra_params="{}")
    assert [one.id for one in store.projects()] == [1]
    assert project(store).extra_params == "{}"
    assert acquire(store) is not None


# -- whose turn it is ------------------------------------------------------------------------------------------------
def test_who_waits_longest_comes_first(store: Store, clock: Clock) -> None:
    for number in (3, 1, 2):
        store.wake(number)
        clock.now += 1
    assert [taken(store, str(turn)).project_id for turn in range(3)] == [3, 1, 2]


def test_the_timer_looks_at_projects_that_nobody_woke(store: Store, clock: Clock) -> None:
    store.wake(1)
    store.release(taken(store), handled=True)
    clock.now += INTERVAL - 1
    assert acquire(store) is None
    clock.now += 1
    assert acquire(store) is not None


def test_a_moment_in_the_future_is_of_a_clock_that_was_set_back(store: Store, clock: Clock) -> None:
    store.wake(1)
    store.release(taken(store), handled=True)
    clock.now -= 100 * INTERVAL
    assert acquire(store) is not None


def test_a_named_project_is_taken_due_or_not(store: Store) -> None:
    store.wake(1)
    store.wake(2)
    store.release(taken(store, only=2), handled=True)
    assert taken(store, only=2).project_id == 2
    assert acquire(store, only=2) is None  # it is held
    assert acquire(store, only=3) is None  # there is none


# -- leases ----------------------------------------------------------------------------------------------------------
def test_a_held_project_is_not_given_again(store: Store) -> None:
    store.wake(1)
    taken(store)
    store.wake(1)
    assert acquire(store, "other") is None


def test_one_of_many_threads_gets_the_lease(store: Store) -> None:
    store.wake(1)
    barrier = threading.Barrier(8)

    def take(number: int) -> Lease | None:
        barrier.wait()
        return acquire(store, str(number))

    with ThreadPoolExecutor(8) as pool:
        found = [lease for lease in pool.map(take, range(8)) if lease]
    assert len(found) == 1
    assert project(store).lease_owner == found[0].owner


def test_a_dead_workers_lease_runs_out(store: Store, clock: Clock) -> None:
    store.wake(1)
    taken(store, "dead")
    clock.now += SECONDS
    assert taken(store, "alive").owner == "alive"


def test_a_heartbeat_keeps_it(store: Store, clock: Clock) -> None:
    store.wake(1)
    lease = taken(store)
    for _ in range(5):
        clock.now += SECONDS - 1
        store.heartbeat(lease, lease_seconds=SECONDS)
    assert acquire(store, "other") is None


def test_a_lease_taken_before_the_clock_was_set_back_runs_out_at_once(store: Store, clock: Clock) -> None:
    store.wake(1)
    lease = taken(store, "before")
    clock.now -= 7200
    assert taken(store, "after").owner == "after"
    with pytest.raises(LeaseLost, match="project 1"):
        store.heartbeat(lease, lease_seconds=SECONDS)


def test_whoever_lost_the_lease_learns_it_and_changes_nothing(store: Store, clock: Clock) -> None:
    store.wake(1)
    old = taken(store, "old")
    clock.now += SECONDS + 1
    taken(store, "new")
    with pytest.raises(LeaseLost, match="went to another worker"):
        store.heartbeat(old, lease_seconds=SECONDS)
    store.release(old, handled=True)
    after = project(store)
    assert (after.lease_owner, after.wakes_handled) == ("new", 0)


# -- several processes -----------------------------------------------------------------------------------------------
def in_process(url: str, code: str) -> subprocess.Popen[str]:
    """Run code with `store` open in a process of its own; it starts when told to, by a line on standard input."""
    start = "import sys; from ml_backend.store import *; store = Store(sys.argv[1]); print('up', flush=True); input();"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    process = subprocess.Popen([sys.executable, "-c", f"{start}\n{code}\nstore.close()", url], **pipes)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def answers(processes: list[subprocess.Popen[str]]) -> list[Any]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return [json.loads(output) for output in outputs]


def test_processes_write_at_once_and_lose_nothing(store: Store, url: str) -> None:
    code = """
import json
for n in range(40):
    store.wake(1, train=True)
    store.put_tasks([Task(1, {first} + n, "image")])
print(json.dumps("done"))"""
    processes = [in_process(url, code.replace("{first}", str(100 * number))) for number in range(2)]
    assert answers(processes) == ["done", "done"]
    assert project(store).wakes == 80
    assert len(store.tasks(1)) == 80


def test_leases_are_exclusive_among_processes(store: Store, url: str) -> None:
    for number in range(1, 21):
        store.wake(number)
    code = """
import json, os
taken = []
while lease := store.acquire(str(os.getpid()), lease_seconds=60, interval=3600):
    taken.append(lease.project_id)
print(json.dumps(taken))"""
    mine, theirs = answers([in_process(url, code) for _ in range(2)])
    assert sorted(mine + theirs) == list(range(1, 21))


def test_first_starts_at_the_same_time_make_one_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'state.sqlite3'}"
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(Store, [url] * 6))
    secrets = {store.set_default("webhook_secret", f"made by {number}") for number, store in enumerate(stores)}
    for one in stores:
        one.close()
    assert len(secrets) == 1


# -- tasks -----------------------------------------------------------------------------------------------------------
def test_tasks_come_back_as_they_were_put(store: Store) -> None:
    full = task_of(
        7,
        1,
        group_key="patient 3",
        updated_at="2026-01-01T00:00:00Z",
        status="labelled",
        annotation_id=9,
        label_digest="d",
        mask_file="/m/7.png",
        held_out=True,
        lead_time=2.5,
        regions=3,
        vertices=40,
        shown_version="nextmask-1.1",
        agreement=0.75,
    )
    store.put_tasks([full, task_of(6, 1)])
    assert store.task(1, 7) == full
    assert store.tasks(1) == [task_of(6, 1), full]
    assert store.tasks(1, status="labelled") == [full]
    assert store.count_tasks(1) == {"labelled": 1, "unlabelled": 1}
    store.put_tasks([task_of(7, 1)])
    assert store.task(1, 7) == task_of(7, 1)
    assert (store.task(1, 8), store.tasks(2)) == (None, [])


def test_a_tasks_error_comes_and_goes(store: Store) -> None:
    store.put_tasks([task_of(7, 1)])
    store.set_task_error(1, 7, "no image")
    assert store.tasks(1)[0].error == "no image"
    store.set_task_error(1, 7, "")
    assert store.tasks(1) == [task_of(7, 1)]


def test_deleted_tasks_leave_ranking_and_queue(store: Store) -> None:
    everything = list(range(1, 1201))  # more than one statement takes
    store.put_tasks([task_of(one, 1) for one in everything])
    store.put_ranking(1, {one: 1 / one for one in everything})
    store.put_published(1, "nextmask-1.1", [(one, 0.5, None) for one in everything])
    store.delete_tasks(1, everything[:-1])
    assert [task.task_id for task in store.tasks(1)] == [1200]
    assert store.priorities(1, everything) == {1200: 1 / 1200}
    assert store.queue_length(1, "nextmask-1.1") == 1


# -- ranking ---------------------------------------------------------------------------------------------------------
def test_the_ranking_gives_unlabelled_tasks_best_first(store: Store) -> None:
    store.wake(1)
    store.put_tasks([*(task_of(one, 1) for one in (1, 2, 3, 4)), task_of(5, 1, status="labelled")])
    store.put_ranking(1, {1: 0.2, 2: 0.9, 3: 0.2, 5: 1.0}, ranking_version="nextmask-1.4", ranking_number=4)
    assert [(task.task_id, priority) for task, priority in store.ranked(1)] == [(2, 0.9), (1, 0.2), (3, 0.2)]
    assert [task.task_id for task, _ in store.ranked(1, limit=1)] == [2]
    assert (project(store).ranking_version, project(store).ranking_number) == ("nextmask-1.4", 4)
    store.put_ranking(1, {4: 0.5})
    assert [task.task_id for task, _ in store.ranked(1)] == [4]


def test_a_ranking_that_cannot_be_written_leaves_the_old_one(store: Store) -> None:
    store.wake(1)
    store.put_tasks([task_of(one, 1) for one in (1, 2)])
    store.put_ranking(1, {1: 0.5}, ranking_version="nextmask-1.1")
    with pytest.raises(sa.exc.IntegrityError):
        store.put_ranking(1, {1: 0.1, 2: None}, ranking_version="nextmask-1.2")  # type: ignore[dict-item]
    assert store.priorities(1, [1, 2]) == {1: 0.5}
    assert project(store).ranking_version == "nextmask-1.1"


def test_readers_see_the_old_or_the_new_ranking_whole(store: Store) -> None:
    store.wake(1)
    tasks = list(range(1, 201))
    store.put_tasks([task_of(one, 1) for one in tasks])
    store.put_ranking(1, dict.fromkeys(tasks, 0.0))
    ended = threading.Event()

    def write() -> None:
        for number in range(1, 15):
            store.put_ranking(1, dict.fromkeys(tasks, number / 20))
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = []
    while not ended.is_set():
        seen.append(store.priorities(1, tasks))
    thread.join()
    assert all(len(one) == 200 and len(set(one.values())) == 1 for one in seen)


# -- what was published ----------------------------------------------------------------------------------------------
def test_the_version_before_retires_and_comes_back(store: Store, clock: Clock) -> None:
    store.wake(1)
    for version in ("nextmask-1.1", "nextmask-2.2", "nextmask-1.3"):
        store.mark_published(1, version)
        clock.now += 10
    assert project(store).published_version == "nextmask-1.3"
    assert store.versions(1) == ["nextmask-1.3", "nextmask-2.2", "nextmask-1.1"]
    assert store.retired_versions(1, before=clock.now) == ["nextmask-1.1", "nextmask-2.2"]
    assert store.retired_versions(1, before=clock.now - 15) == ["nextmask-1.1"]
    store.mark_published(1, "nextmask-1.1")  # published again: it must not be pruned
    assert store.retired_versions(1, before=clock.now + 1) == ["nextmask-2.2", "nextmask-1.3"]


def test_what_was_shown_is_kept_until_the_version_is_forgotten(store: Store) -> None:
    store.wake(1)
    store.put_tasks([task_of(5, 1), task_of(6, 1, status="labelled")])
    store.put_published(1, "nextmask-1.1", [(5, 0.25, b"mask of 5"), (6, 0.5, None)])
    store.put_published(1, "nextmask-1.1", [(5, 0.75, b"newer")])
    assert store.published_mask(1, "nextmask-1.1", 5) == b"newer"
    assert store.published_mask(1, "nextmask-1.1", 6) is None
    assert store.published_mask(1, "nextmask-2.1", 5) is None
    assert store.queue_length(1, "nextmask-1.1") == 1  # the other one is labelled
    store.forget_version(1, "nextmask-1.1")
    assert store.published_mask(1, "nextmask-1.1", 5) is None
    assert store.queue_length(1, "nextmask-1.1") == 0


def test_a_version_that_was_imported_and_never_served_is_pruned_as_well(store: Store, clock: Clock) -> None:
    # The worker was killed before it switched, and then ranked anew: the host holds predictions of a dead version.
    store.wake(1)
    store.put_published(1, "nextmask-1.1", [(5, 0.5, None)])
    clock.now += 10
    store.mark_published(1, "nextmask-1.2")
    assert store.retired_versions(1, before=clock.now + 1) == ["nextmask-1.1"]


def test_notes_and_secrets(store: Store) -> None:
    assert store.value("when") is None
    store.set_value("when", "1")
    store.set_value("when", "2")
    assert store.value("when") == "2"
    assert (store.set_default("key", "first"), store.set_default("key", "second")) == ("first", "first")


# -- databases that cannot be used -----------------------------------------------------------------------------------
def test_the_state_survives_a_restart(store: Store, url: str) -> None:
    store.wake(1, title="Cells")
    store.close()
    again = Store(url)
    assert project(again).title == "Cells"
    again.close()


def test_a_database_that_is_none_of_ours_is_refused_and_left_alone(store: Store, url: str) -> None:
    store.set_value("schema", "none of ours")
    store.close()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("DROP TABLE alembic_version")
    connection.close()
    with pytest.raises(StoreError, match=r"schema none of ours, this nextmask needs \d+\. .*MODEL_DIR"):
        Store(url)
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() == ("none of ours",)
    connection.close()


# -- events ----------------------------------------------------------------------------------------------------------
def test_events_come_back_newest_first_and_page_by_page(store: Store, clock: Clock) -> None:
    for number in range(5):
        clock.now += 1
        store.add_event(1 + number % 2, "ranked", f"number {number}", level="info" if number else "warning")
    assert [event.text for event in store.events(None)] == [f"number {number}" for number in (4, 3, 2, 1, 0)]
    first = store.events(1, limit=2)
    assert [event.text for event in first] == ["number 4", "number 2"]
    (last,) = store.events(1, limit=2, before=first[-1].id)
    assert last == Event(last.id, 1, clock.now - 4, "ranked", "warning", "number 0")


def test_the_newest_events_of_each_project_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml_backend.store.events.KEPT_EVENTS", 3)
    store.add_event(2, "ranked", "of another project")
    for number in range(7):
        store.add_event(1, "ranked", str(number))
    assert [event.text for event in store.events(None)] == ["6", "5", "4", "of another project"]


def test_what_an_event_says_is_bounded_and_can_be_stored(store: Store) -> None:
    store.add_event(1, "failed", "a\0b\ud800" + "c" * 10_000, level="error")
    (event,) = store.events(1)
    assert event.text.startswith("ab?c")
    assert len(event.text) == 2000


def test_an_event_that_cannot_be_kept_breaks_nothing(store: Store, url: str, caplog: pytest.LogCaptureFixture) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("DROP TABLE events")
    store.add_event(1, "failed", "text")
    assert "project=1 event=failed cannot be kept: (sqlite3.OperationalError) no such table: events" in caplog.text


# -- queries and decisions -------------------------------------------------------------------------------------------
ASKED = Query((Box(0, 10, 20, 30), Box(50, 10, 20, 30)), cost=12.5)


def test_what_is_asked_for_belongs_to_the_ranking(store: Store) -> None:
    store.put_ranking(1, {5: 0.9, 6: 0.5}, {5: ASKED})
    assert store.ranked_queries(1) == {5: ASKED}
    assert store.ranked_queries(2) == {}
    store.put_ranking(1, {5: 0.9})
    assert store.ranked_queries(1) == {}


def last_queries(store: Store) -> dict[int, Query]:
    return {task: query for (task, _), query in store.published_queries(1).items()}


def test_what_was_published_with_rectangles_outlives_its_version(store: Store) -> None:
    store.put_queries(1, "nextmask-1.1", {5: ASKED, 6: Query((Box(0, 0, 1, 1),))})
    store.put_queries(1, "nextmask-1.2", {5: Query((Box(1, 1, 2, 2),), cost=0.0)})
    store.forget_version(1, "nextmask-1.2")
    assert last_queries(store) == {5: Query((Box(1, 1, 2, 2),), cost=0.0), 6: Query((Box(0, 0, 1, 1),))}
    store.delete_tasks(1, [5])
    assert set(last_queries(store)) == {6}


def test_what_was_published_is_known_by_version(store: Store) -> None:
    first, second = Query((Box(0, 0, 1, 1),), 1.0), Query((Box(1, 1, 2, 2),), 2.0)
    store.put_queries(1, "nextmask-1.10", {5: first})
    store.put_queries(1, "nextmask-1.9", {5: second, 6: second})
    assert store.published_queries(1, 5) == {(5, "nextmask-1.10"): first, (5, "nextmask-1.9"): second}
    assert last_queries(store)[5] == second  # the last one, whatever its version is called
    store.drop_queries(1, "nextmask-1.9", [5])
    assert store.published_queries(1) == {(5, "nextmask-1.10"): first, (6, "nextmask-1.9"): second}


def test_a_mask_that_a_label_began_with_outlives_its_version(store: Store) -> None:
    store.put_published(1, "nextmask-1.1", [(5, 0.5, b"mask"), (6, 0.5, b"other")])
    store.put_tasks([Task(1, 5, "a", status="labelled", shown_version="nextmask-1.1"), Task(1, 6, "b")])
    store.forget_version(1, "nextmask-1.1")
    assert store.published_mask(1, "nextmask-1.1", 5) == b"mask"
    assert store.published_mask(1, "nextmask-1.1", 6) is None
    assert store.versions(1) == []


def test_a_task_takes_the_place_of_another_in_the_ranking(store: Store) -> None:
    store.put_ranking(1, {5: 0.9, 6: 0.5, 8: 0.1}, {5: ASKED})
    store.put_ranking(2, {5: 0.9})
    store.move_ranking(1, {5: 7, 6: 8}, [Task(1, 7, "a")])
    assert store.priorities(1, [5, 6, 7, 8]) == {7: 0.9, 8: 0.5}
    assert store.ranked_queries(1) == {7: ASKED}
    assert store.priorities(2, [5, 7]) == {5: 0.9}
    assert [task.task_id for task, _ in store.ranked(1)] == [7]


def test_decisions_are_kept_with_the_stream_that_made_them(store: Store) -> None:
    passed = Decision(5, keep=False, score=0.25, threshold=0.5, decided_at=10.0)
    store.put_decisions(
        1, [passed, Decision(6, keep=True, score=1.0, threshold=None, decided_at=10.0)], state=("s", "1")
    )
    assert store.value("s") == "1"
    assert store.decisions(1)[5] == passed
    store.update_decisions(1, [5], marked=True)
    assert (store.decisions(1)[5].marked, store.decisions(1)[6].marked) == (True, False)
    store.put_decisions(1, [], state=("s", "2"))
    assert (store.value("s"), len(store.decisions(1))) == ("2", 2)


def test_a_status_is_set_only_where_nobody_labelled(store: Store) -> None:
    store.put_tasks([Task(1, 5, "a"), Task(1, 6, "b", status="labelled"), Task(1, 7, "c", status="skipped")])
    store.set_task_status(1, [5, 6, 7], "passed")
    assert [task.status for task in store.tasks(1)] == ["passed", "labelled", "skipped"]


def in_the_way(folder: Path) -> str:
    """A database below a file."""
    (folder / "file").touch()
    return f"sqlite:///{folder / 'file' / 'state.sqlite3'}"


def is_a_folder(folder: Path) -> str:
    return f"sqlite:///{folder}"


def no_database(folder: Path) -> str:
    (folder / "text.sqlite3").write_text("These are no tables, although the file is long enough. " * 50)
    return f"sqlite:///{folder / 'text.sqlite3'}"


@pytest.mark.parametrize("make", [in_the_way, is_a_folder, no_database])
def test_an_unusable_file_is_a_store_error_that_names_it(tmp_path: Path, make: Callable[[Path], str]) -> None:
    url = make(tmp_path)
    with pytest.raises(StoreError, match=r"cannot be opened: .*Check MODEL_DIR") as raised:
        Store(url)
    assert url.removeprefix("sqlite:///") in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "nosuchdatabase://user:pa55word@host/name",
        "postgresql+nosuchdriver://user:pa55word@host/name",
        "postgresql+psycopg://user:pa55word@host:port/name",
    ],
)
def test_an_address_of_no_database_is_a_store_error_without_the_password(url: str) -> None:
    with pytest.raises(StoreError, match="cannot be opened") as raised:
        Store(url)
    assert "pa55word" not in str(raised.value)
