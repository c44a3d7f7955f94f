"""PostgreSQL: what is said of one that cannot be used, what a restart does, and clocks of workers that are wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from postgresql import PASSWORD, Cluster, set_database_clock
from wiring import project_of, task_of

from ml_backend.demo.label_studio import free_port
from ml_backend.errors import LeaseLost, StoreError, StoreUnavailable
from ml_backend.store import Store
from ml_backend.store.postgresql import Patience, make_engine

pytestmark = pytest.mark.usefixtures("postgresql")
ROOT = Path(__file__).parents[3]
NOBODY, SMALL = "nobody_who_owns", "small"


# -- one that cannot be used -----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def roles(shared_postgresql: Cluster) -> Cluster:
    """Users without rights, and with a single connection."""
    for name, more in ((NOBODY, ""), (SMALL, " CONNECTION LIMIT 0")):
        shared_postgresql.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'{more}")
    return shared_postgresql


PROBLEMS: dict[str, tuple[Callable[[Cluster, str], str], str]] = {
    "nobody listens": (lambda it, name: it.url(name, port=free_port()), "refused.*Start the database, or mend NEXT"),
    "no such machine": (
        lambda it, name: it.url(name).replace("127.0.0.1", "nowhere.invalid"),
        "nowhere.invalid.*No machine has this name",
    ),
    "the password": (
        lambda it, name: it.url(name, password="wrong"),
        "password authentication failed.*wrong: mend NEXT",
    ),
    "the user": (lambda it, name: it.url(name, user="stranger"), "stranger.*user or the password is wrong"),
    "the database": (lambda it, _: it.url("labels"), '"labels" does not exist.*createdb --owner'),
    "no rights": (lambda it, name: it.url(name, user=NOBODY), "permission denied.*owner of the database"),
    "too many": (lambda it, name: it.url(name, user=SMALL), "too many connections for role"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_why_it_cannot_be_opened_and_what_to_do_is_said_in_a_sentence(
    problem: str, roles: Cluster, empty_postgresql_url: str
) -> None:
    make, says = PROBLEMS[problem]
    url = make(roles, empty_postgresql_url.rpartition("/")[2])
    with pytest.raises(StoreError, match=f"^The state database postgresql.* cannot be opened: .*{says}") as raised:
        Store(url)
    told = str(raised.value)
    assert "\n" not in told
    assert PASSWORD not in told
    assert told.endswith(".")


def test_a_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"Install the driver: pip install 'nextmask\[postgres\]'\.$"):
        Store("postgresql://user:word@localhost/name")


def test_addresses_as_others_write_them(postgresql_url: str) -> None:
    for scheme in ("postgres", "postgresql"):
        store = Store(postgresql_url.replace("postgresql+psycopg", scheme))
        store.wake(1)
        store.close()


# -- connections -----------------------------------------------------------------------------------------------------
@pytest.fixture
def store(postgresql_url: str) -> Iterator[Store]:
    opened = Store(postgresql_url)
    yield opened
    opened.close()


def test_statements_and_locks_have_limits_unless_others_are_set(postgresql_url: str) -> None:
    def limits(url: str) -> list[str]:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        engine = make_engine(sa.make_url(url), Patience())
        with engine.connect() as connection:
            shown = [str(connection.exec_driver_sql(f"SHOW {name}").scalar()) for name in names]
        engine.dispose()
        return shown

    assert limits(postgresql_url) == ["2min", "20s", "1min"]
    assert limits(f"{postgresql_url}?options=-clock_timeout%3D7s") == ["2min", "7s", "1min"]


def test_who_waits_for_a_lock_too_long_is_told(store: Store, postgresql_url: str) -> None:
    store.wake(1)
    impatient = Store(f"{postgresql_url}?options=-clock_timeout%3D300ms")
    with psycopg.connect(postgresql_url.replace("+psycopg", "")) as other:
        other.execute("UPDATE projects SET title = 'held'")
        with pytest.raises(StoreUnavailable, match=r"cannot be used now: .*lock timeout.*Work goes on by itself"):
            impatient.update_project(1, title="mine")
        other.rollback()
    impatient.update_project(1, title="mine")
    assert project_of(store, 1).title == "mine"
    impatient.close()


def test_writers_of_the_same_rows_in_other_orders_do_not_block_each_other(store: Store) -> None:
    tasks = [task_of(number, 1) for number in range(200)]

    def write(step: int) -> None:
        for _ in range(5):
            store.put_tasks(tasks[::step])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, [1, -1, 1, -1]))
    assert len(store.tasks(1)) == 200


def test_a_mistake_of_ours_is_no_outage(store: Store) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        store.put_ranking(1, {1: None})  # type: ignore[dict-item]


# -- restarts --------------------------------------------------------------------------------------------------------
@pytest.fixture
def restartable(own_postgresql: Cluster) -> Iterator[tuple[Cluster, Store]]:
    with own_postgresql.database() as url:
        store = Store(url)
        yield own_postgresql, store
        store.close()
        if own_postgresql.is_stopped:
            own_postgresql.start()


def test_a_restart_between_two_calls_is_not_noticed(restartable: tuple[Cluster, Store]) -> None:
    cluster, store = restartable
    store.wake(1)
    cluster.restart()
    store.wake(2)
    assert [project.id for project in store.projects()] == [1, 2]


def test_who_waits_for_it_goes_on_when_it_is_there_again(restartable: tuple[Cluster, Store]) -> None:
    cluster, store = restartable
    store.wake(1)
    store.wait_for_database(60.0)
    cluster.stop()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(store.update_project, 1, title=str(number)) for number in range(4)]
        time.sleep(0.5)
        assert not any(one.done() for one in waiting)
        cluster.start()
        for one in waiting:
            one.result(60)
    assert project_of(store, 1).title in "0123"


def test_who_does_not_wait_is_told_at_once_and_the_database_is_not_stormed(
    restartable: tuple[Cluster, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, store = restartable
    store.wake(1)
    cluster.stop(signal.SIGQUIT)  # as a crash ends it
    attempts: list[object] = []
    monkeypatch.setattr(psycopg.Connection, "connect", _counted(psycopg.Connection.connect, attempts))
    began = time.monotonic()
    for _ in range(200):
        with pytest.raises(StoreUnavailable, match=r"cannot be used now: .*refused.*Work goes on by itself"):
            store.wake(1, train=True)
    seconds = time.monotonic() - began
    assert len(attempts) <= 2 + seconds / 0.9  # one a second
    cluster.start()
    deadline = time.monotonic() + 30
    while True:
        try:
            store.wake(1, train=True)
        except StoreUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            break
    assert project_of(store, 1).train_requested_at is not None


def _counted(call: Callable[..., object], calls: list[object]) -> Callable[..., object]:
    def counted(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        return call(*arguments, **options)

    return counted


def test_what_was_committed_outlives_a_crash_of_the_database(restartable: tuple[Cluster, Store]) -> None:
    cluster, store = restartable
    written, ended = list[int](), threading.Event()

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            try:
                store.put_tasks([task_of(number, 1)])
            except StoreUnavailable:
                continue
            written.append(number)

    store.wait_for_database(60.0)
    thread = threading.Thread(target=write)
    thread.start()
    try:
        for how in (signal.SIGQUIT, signal.SIGINT):
            time.sleep(1.0)
            cluster.restart(how)
        reached = len(written)
        deadline = time.monotonic() + 30
        while len(written) <= reached and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        ended.set()
        thread.join()
    assert len(written) > reached
    assert set(written) <= {task.task_id for task in store.tasks(1)}


# -- clocks ----------------------------------------------------------------------------------------------------------
SECONDS = 30.0


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let this machine's clock be wrong by so many seconds; the database's is right."""
    real = time.time
    return lambda wrong: monkeypatch.setattr(time, "time", lambda: real() + wrong)


@pytest.mark.parametrize("wrong", [-86400.0, -300.0, 300.0, 86400.0])
def test_a_worker_whose_clock_is_wrong_steals_no_lease_and_loses_none(
    store: Store, postgresql_url: str, at: Callable[[float], None], wrong: float
) -> None:
    other = Store(postgresql_url)
    store.wake(1)
    lease = store.acquire("right", lease_seconds=SECONDS, interval=60)
    assert lease is not None
    at(wrong)
    assert other.acquire("wrong", lease_seconds=SECONDS, interval=60) is None
    assert project_of(other, 1).is_held
    other.wake(2)
    theirs = other.acquire("wrong", lease_seconds=SECONDS, interval=60)
    assert theirs is not None
    other.heartbeat(theirs, lease_seconds=SECONDS)
    at(0.0)
    assert store.acquire("right too", lease_seconds=SECONDS, interval=60) is None
    store.heartbeat(lease, lease_seconds=SECONDS)
    at(wrong)
    other.release(theirs, handled=True)
    at(0.0)
    store.release(lease, handled=True)
    for one in (store, other):
        assert one.acquire("next", lease_seconds=SECONDS, interval=60) is None  # both were looked at just now
    other.close()


@pytest.mark.parametrize("wrong", [-300.0, 300.0])
def test_a_lease_ends_by_the_databases_clock(
    store: Store, postgresql_url: str, at: Callable[[float], None], wrong: float
) -> None:
    store.wake(1)
    at(wrong)
    old = store.acquire("dead", lease_seconds=SECONDS, interval=60)
    assert old is not None
    at(0.0)
    set_database_clock(postgresql_url, ahead=SECONDS - 1)
    assert store.acquire("next", lease_seconds=SECONDS, interval=60) is None
    set_database_clock(postgresql_url, ahead=SECONDS + 1)
    assert not project_of(store, 1).is_held
    assert store.acquire("next", lease_seconds=SECONDS, interval=60) is not None
    with pytest.raises(LeaseLost):
        store.heartbeat(old, lease_seconds=SECONDS)


WORK = """
import json, random, sys, time
url, ahead, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
real = time.time
time.time = lambda: real() + ahead
from ml_backend.errors import LeaseLost
from ml_backend.store import Store
store, held, lost, draw = Store(url), [], 0, random.Random(seed)
print("up", flush=True)
input()
end = time.monotonic() + 9
while time.monotonic() < end:
    before = time.monotonic()
    lease = store.acquire(f"worker {seed}", lease_seconds=4.0, interval=0.0)
    if lease is None:
        time.sleep(0.01)
        continue
    began = time.monotonic()
    try:
        for _ in range(draw.randrange(4)):
            time.sleep(0.02)
            store.heartbeat(lease, lease_seconds=4.0)
    except LeaseLost:
        lost += 1
    ended = time.monotonic()
    if draw.random() < 0.02:  # it dies, and its lease runs out
        held.append([lease.project_id, began, before + 4.0])
    else:
        held.append([lease.project_id, began, ended])
        store.release(lease, handled=True)
store.close()
print(json.dumps([held, lost]))
"""
"""A worker whose clock is ahead: takes leases, keeps some of them, dies now and then; prints when it held which."""


def test_workers_with_clocks_minutes_apart_never_work_on_one_project_at_once(store: Store, postgresql_url: str) -> None:
    for number in range(1, 4):
        store.wake(number)
    command = [sys.executable, "-c", WORK, postgresql_url]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    processes = [
        subprocess.Popen([*command, str(ahead), str(seed)], **pipes) for seed, ahead in enumerate((-300.0, 0.0, 300.0))
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
    found = [json.loads(process.communicate("go\n", timeout=120)[0]) for process in processes]
    assert [lost for _, lost in found] == [0, 0, 0]
    held = sorted((project, began, ended) for spans, _ in found for project, began, ended in spans)
    assert {project for project, _, _ in held} == {1, 2, 3}
    assert all(spans for spans, _ in found)
    for (project, _, ended), (following, began, _) in pairwise(held):
        assert following != project or ended <= began


def test_a_project_that_another_worker_is_about_to_take_is_left_to_it(store: Store, postgresql_url: str) -> None:
    """Nobody waits: the next project is taken in place of the one whose row is locked."""
    for number in (1, 2):
        store.wake(number)
    with psycopg.connect(postgresql_url.replace("+psycopg", "")) as other:
        other.execute("SELECT id FROM projects WHERE id = 1 FOR UPDATE")
        taken = store.acquire("me", lease_seconds=SECONDS, interval=60)
        assert taken is not None
        assert taken.project_id == 2
        assert store.acquire("me", lease_seconds=SECONDS, interval=60) is None
        other.rollback()
    again = store.acquire("me", lease_seconds=SECONDS, interval=60)
    assert again is not None
    assert again.project_id == 1
