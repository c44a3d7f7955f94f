"""Clocks are set, ours and Label Studio's, back and forward: nothing stalls, nothing is pruned too soon, no label lost.

The clock is set through `time.time`, as all of nextmask reads it: under libfaketime 0.9.10, `time.sleep` fails once the
clock is set back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from memory_studio import MemoryStudio
from postgresql import set_database_clock
from wiring import PROJECT, make_services, nothing, task_of

from ml_backend.label_studio.queries import host_time
from ml_backend.label_studio.tokens import PersonalToken
from ml_backend.projects.services import Services
from ml_backend.store import Store
from ml_backend.worker.publish import PriorityQueue
from ml_backend.worker.train import RETRY_SECONDS, is_paused
from ml_backend.worker.worker import Worker

HOUR, YEAR = 3600.0, 365 * 86400.0
STEPS = [-YEAR, -3 * HOUR, -10.0, 3 * HOUR, YEAR]
_REAL = time.time


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Callable[[float], None]:
    """Set the machine's clock by so many seconds, for good; the time since its start goes on as it does.

    PostgreSQL runs on the same machine.
    """

    def by(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: _REAL() + seconds)
        if database_url:
            set_database_clock(database_url, ahead=seconds)

    return by


@pytest.fixture
def set_own_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the clock of the machine that nextmask runs on; PostgreSQL runs on another one."""

    def by(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: _REAL() + seconds)

    return by


@pytest.fixture
def url(database_url: str, tmp_path: Path) -> str:
    return database_url or f"sqlite:///{tmp_path / 'state.sqlite3'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(url)
    yield opened
    opened.close()


# -- leases ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", STEPS)
def test_a_dead_workers_project_is_taken_over_within_a_lease(
    store: Store, set_clock: Callable[[float], None], step: float
) -> None:
    store.wake(PROJECT)
    assert store.acquire("dead", lease_seconds=30, interval=60)
    set_clock(step)
    taken = store.acquire("next", lease_seconds=30, interval=60)
    if taken is None:  # where the clock was hardly moved, the lease runs out as it would have
        set_clock(step + 31)
        taken = store.acquire("next", lease_seconds=30, interval=60)
    assert taken


@pytest.mark.parametrize("step", STEPS)
def test_a_project_is_looked_at_again_however_the_clock_is_set(
    store: Store, set_clock: Callable[[float], None], step: float
) -> None:
    store.wake(PROJECT)
    lease = store.acquire("worker", lease_seconds=30, interval=60)
    assert lease
    store.release(lease, handled=True)
    assert store.acquire("worker", lease_seconds=30, interval=60) is None, "nothing is due"
    set_clock(step)
    assert store.acquire("worker", lease_seconds=30, interval=60), "the timer must not wait for a time that has been"


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_goes_on_with_what_it_is_at(
    tmp_path: Path, set_clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    services = make_services(tmp_path, MemoryStudio(), lease_seconds=2.0)
    services.store.wake(PROJECT)
    worker, beats = Worker(services), []

    def long_work(_: Services, project: int, check: Callable[[], None], *, trial: bool) -> None:
        set_clock(step)
        services.store.wake(project)
        assert not worker.run_once(), "its other thread takes the project from it"
        begin = time.monotonic()
        while time.monotonic() < begin + 1.2:  # two heartbeats
            check()
            time.sleep(0.05)
        beats.append(services.store.project(project).lease_expires - services.store.time())  # type: ignore[union-attr,operator]

    monkeypatch.setattr("ml_backend.worker.worker.reconcile", long_work)
    assert worker.run_once()
    assert 0 < beats[0] <= 2, "the lease is kept by the new time"
    services.store.close()


# -- trainings ---------------------------------------------------------------------------------------------------------
def test_the_pause_after_a_failed_training_is_never_longer_than_it_was_made(set_clock: Callable[[float], None]) -> None:
    retry_at = time.time() + RETRY_SECONDS
    assert is_paused(retry_at)
    for step in (-YEAR, -HOUR, HOUR, YEAR):
        set_clock(step)
        assert not is_paused(retry_at)
    assert not is_paused(None)


# -- pruning -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", [-YEAR, 30 * HOUR, YEAR])
def test_predictions_that_may_be_open_are_never_pruned_by_a_clock(
    url: str, set_own_clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    store, studio = Store(url), MemoryStudio()
    store.wake(PROJECT)
    task = studio.add_task(0)
    studio.import_predictions(PROJECT, [{"task": task, "result": [], "score": 0.5, "model_version": "nextmask-1.1"}])
    store.mark_published(PROJECT, "nextmask-1.1")
    store.mark_published(PROJECT, "nextmask-1.2")
    store.close()

    set_own_clock(step)
    store = Store(url)  # another process, which has never seen the clock as it was
    queue = PriorityQueue(studio, store, PROJECT, check=nothing)  # type: ignore[arg-type]
    assert queue.prune(retire_seconds=26 * HOUR) == []
    assert studio.predictions
    later = store.steady_time() + 26.1 * HOUR
    monkeypatch.setattr(Store, "steady_time", lambda _: later)
    assert queue.prune(retire_seconds=26 * HOUR) == ["nextmask-1.1"]
    assert not studio.predictions
    store.close()


# -- what changed in Label Studio --------------------------------------------------------------------------------------
@dataclass
class StudioWithClock(MemoryStudio):
    """Its times are those of its own clock, which can be set."""

    ahead: float = 0.0

    def _now(self) -> str:
        moment = datetime.now(timezone.utc) + timedelta(seconds=self.ahead)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def settled(self) -> str:
        moment = datetime.now(timezone.utc) + timedelta(seconds=self.ahead - 60)
        return host_time(moment.isoformat())


@pytest.mark.parametrize("step", [-YEAR, -HOUR, -90.0, HOUR, YEAR])
@pytest.mark.parametrize("restarted", [False, True], ids=["", "and our machine is started anew"])
def test_no_change_is_lost_when_the_hosts_clock_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float, restarted: bool
) -> None:
    if restarted and step == -90.0:
        pytest.skip("so short a step back during a start cannot be told from the time that the start took")
    studio = StudioWithClock(ahead=5 * YEAR)  # far from ours to begin with
    tasks = [studio.add_task(index) for index in range(4)]
    services = make_services(tmp_path, studio, train_after=1000, reconcile_seconds=0.01)
    services.store.wake(PROJECT)
    worker = Worker(services)

    def labelled() -> set[int]:
        services.store.wake(PROJECT)
        assert worker.run_once()
        return {task.task_id for task in services.store.tasks(PROJECT, status="labelled")}

    studio.label(tasks[0])
    assert labelled() == {tasks[0]}
    studio.ahead += step
    if restarted:
        monkeypatch.setattr("ml_backend.worker.sync.boot_id", lambda: "another start")
    studio.label(tasks[1])
    assert labelled() == {*tasks[:2]}, "labelled right after the clock was set"
    studio.label(tasks[2])
    assert labelled() == {*tasks[:3]}
    studio.ahead -= step
    studio.label(tasks[3])
    assert labelled() == {*tasks}, "and set back to what it was"
    services.store.close()


# -- tokens ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", STEPS)
def test_an_access_token_is_renewed_when_its_time_is_over_and_not_by_the_clock(
    set_clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    bought: list[str] = []

    def exchange(_: str) -> str:
        bought.append("opaque")
        return "opaque"

    token = PersonalToken("a.b.c", "http://localhost:8080", exchange)
    token.header()
    set_clock(step)
    token.header()
    assert len(bought) == 1
    later = time.monotonic() + 300
    monkeypatch.setattr(time, "monotonic", lambda: later)
    token.header()
    assert len(bought) == 2


def test_all_processes_agree_on_the_steady_time(url: str, set_own_clock: Callable[[float], None]) -> None:
    first = Store(url)
    first.put_tasks([task_of(1)])
    before = first.steady_time()
    set_own_clock(YEAR)
    second = Store(url)
    assert 0 <= second.steady_time() - before < 60
    first.close()
    second.close()
