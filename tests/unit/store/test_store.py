"""The store: wake-ups, leases among threads and processes, and databases that cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from wiring import Clock, execute, project_of

from ml_backend.errors import LeaseLost, StoreError
from ml_backend.store import Lease, Store

ROOT = Path(__file__).parents[3]
SECONDS = 30.0  # of a lease here: longer than any test
INTERVAL = 3600.0


def acquire(store: Store, owner: str = "me", *, interval: float = INTERVAL, only: int | None = None) -> Lease | None:
    return store.acquire(owner, lease_seconds=SECONDS, interval=interval, only=only)


def taken(store: Store, owner: str = "me", **options: Any) -> Lease:
    lease = acquire(store, owner, **options)
    assert lease is not None
    return lease


# -- wake-ups --------------------------------------------------------------------------------------------------------
def test_a_project_that_waits_need_not_be_woken_again_and_its_first_moment_is_kept(store: Store, clock: Clock) -> None:
    for _ in range(3):
        store.wake(1)
        clock.now += 5
    woken = project_of(store, 1)
    assert (woken.wakes, woken.wakes_handled, woken.dirty_since) == (1, 0, clock.now - 15)
    assert woken.train_requested_at is None


def test_a_wake_up_during_the_work_is_looked_at_again(store: Store, clock: Clock) -> None:
    store.wake(1)
    lease = taken(store)
    clock.now += 1
    store.wake(1)
    store.release(lease, handled=True)
    after = project_of(store, 1)
    assert (after.wakes, after.wakes_handled, after.dirty_since) == (2, 1, clock.now)
    assert acquire(store) is not None


def test_many_wake_ups_before_the_work_lead_to_one_look(store: Store) -> None:
    for _ in range(9):
        store.wake(1)
    store.release(taken(store), handled=True)
    assert project_of(store, 1).dirty_since is None
    assert acquire(store) is None


def test_work_that_was_left_stays_due(store: Store) -> None:
    store.wake(1)
    store.release(taken(store), handled=False)
    assert project_of(store, 1).wakes_handled == 0
    assert acquire(store) is not None


def test_asking_for_training_ends_the_pause_after_a_failed_one(store: Store, clock: Clock) -> None:
    store.wake(1, retry_at=clock.now + 900, failed_digest="x")
    store.wake(1, train=True)
    assert (project_of(store, 1).retry_at, project_of(store, 1).train_requested_at) == (None, clock.now)
    clock.now += 7
    store.wake(1)  # another event does not take the request back
    assert project_of(store, 1).train_requested_at == clock.now - 7


def test_no_wake_up_is_lost_among_threads(store: Store) -> None:
    store.wake(1)
    taken(store)  # while it is worked on, each counts: it may tell of what this look did not see
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.wake(1), range(80)))
    assert project_of(store, 1).wakes == 81


def test_a_disconnected_project_is_taken_up_only_on_demand(store: Store) -> None:
    store.wake(1)
    store.update_project(1, managed=False)
    store.wake(1)
    assert acquire(store) is None
    assert store.projects() == []
    store.wake(1, manage=True, extra_params="{}")
    assert [one.id for one in store.projects()] == [1]
    assert project_of(store, 1).extra_params == "{}"
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
    assert project_of(store, 1).lease_owner == found[0].owner


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
    after = project_of(store, 1)
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
    assert project_of(store, 1).wakes == 80
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


def test_first_starts_at_the_same_time_make_one_database(new_url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(Store, [new_url] * 6))
    secrets = {store.set_default("webhook_secret", f"made by {number}") for number, store in enumerate(stores)}
    for one in stores:
        one.close()
    assert len(secrets) == 1


# -- databases that cannot be used -----------------------------------------------------------------------------------
def test_the_state_survives_a_restart(store: Store, url: str) -> None:
    store.wake(1, title="Cells")
    store.close()
    again = Store(url)
    assert project_of(again, 1).title == "Cells"
    again.close()


def test_a_database_that_is_none_of_ours_is_refused_and_left_alone(store: Store, url: str) -> None:
    store.set_value("schema", "none of ours")
    store.close()
    execute(url, "DROP TABLE alembic_version")
    away = "move MODEL_DIR away" if url.startswith("sqlite") else "name an empty database"
    with pytest.raises(StoreError, match=rf"schema none of ours, this nextmask needs \d+\. .*{away}"):
        Store(url)
    assert execute(url, "SELECT value FROM meta WHERE key = 'schema'") == [("none of ours",)]


def in_the_way(folder: Path) -> str:
    """A database below a file."""
    (folder / "file").touch()
    return f"sqlite:///{folder / 'file' / 'state.sqlite3'}"


def is_a_folder(folder: Path) -> str:
    return f"sqlite:///{folder}"


def no_database(folder: Path) -> str:
    (folder / "text.sqlite3").write_text("These are no tables, although the file is long enough. " * 50)
    return f"sqlite:///{folder / 'text.sqlite3'}"


@pytest.mark.sqlite("a file")
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
