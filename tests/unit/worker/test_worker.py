"""The worker, for a Label Studio in memory: it takes leases, notes errors, gives way, and outlives everything."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from memory_studio import MemoryStudio
from processes import wait_for
from wiring import PROJECT, project_of

from ml_backend.errors import LabelStudioNotFound, LabelStudioUnavailable, LeaseLost, NextmaskError
from ml_backend.projects.services import Services
from ml_backend.projects.signs_of_life import note_failure, worker_failure, workers
from ml_backend.worker.worker import Worker

pytestmark = [
    pytest.mark.usefixtures("known_project"),
    pytest.mark.settings(lease_seconds=2.0, reconcile_seconds=3600.0),
]


class Studio(MemoryStudio):
    """A host that can be told what happens when a reconcile begins, and how often that was."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)
    looks = 0

    def ml_backends(self, project_id: int) -> list[dict[str, Any]]:
        self.looks += 1
        self.meanwhile()
        return super().ml_backends(project_id)


@pytest.fixture
def studio() -> Studio:
    return Studio.with_images(3)


def fail_with(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_it_reconciles_what_is_due_and_then_rests(services: Services, studio: Studio) -> None:
    worker = Worker(services)
    assert worker.run_once()
    after = project_of(services)
    assert (after.state, after.error, after.wakes_handled, after.lease_owner) == ("waiting", "", 1, None)
    assert after.published_version == "nextmask-0.1"
    assert studio.queue()
    assert not worker.run_once()
    assert worker.run_once(only=PROJECT)


def test_an_expected_error_is_noted_and_not_repeated_at_once(services: Services, studio: Studio) -> None:
    studio.meanwhile = fail_with(LabelStudioUnavailable("Label Studio did not answer"))
    worker = Worker(services)
    assert worker.run_once()
    after = project_of(services)
    assert (after.state, after.error, after.lease_owner) == ("failed", "Label Studio did not answer", None)
    assert after.error_at is not None
    assert not worker.run_once()  # the timer tries again
    studio.meanwhile = lambda: None
    services.store.wake(PROJECT)
    assert worker.run_once()
    assert (project_of(services).state, project_of(services).error) == ("waiting", "")


def test_an_unexpected_error_is_noted_without_its_words(
    services: Services, studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    studio.meanwhile = fail_with(ZeroDivisionError("with a secret in it"))
    assert Worker(services).run_once()
    assert project_of(services).error == "Unexpected ZeroDivisionError; the log has the details."
    assert "with a secret in it" in caplog.text  # with its traceback, in the log only


def test_failing_and_working_again_are_told_once_each(services: Services, studio: Studio) -> None:
    worker = Worker(services)

    def again(error: NextmaskError | None) -> None:
        studio.meanwhile = fail_with(error) if error else lambda: None
        services.store.wake(PROJECT)
        assert worker.run_once()

    for look in range(3):
        again(LabelStudioUnavailable(f"Label Studio does not answer (port 4{look}10, 0x7f{look}c)"))
        again(NextmaskError("the disk is full"))
    for _ in range(2):
        again(None)
    again(NextmaskError("the disk is full"))
    told = [(event.kind, event.level, event.text) for event in services.store.events(PROJECT)]
    assert [one for one in reversed(told) if one[0] in {"failed", "recovered"}] == [
        ("failed", "error", "Label Studio does not answer (port 4010, 0x7f0c)"),
        ("failed", "error", "the disk is full"),
        ("recovered", "info", "Work on the project has resumed."),
        ("failed", "error", "the disk is full"),
    ]


def test_asked_for_one_project_it_raises(services: Services, studio: Studio) -> None:
    studio.meanwhile = fail_with(LabelStudioUnavailable("not now"))
    with pytest.raises(LabelStudioUnavailable, match="not now"):
        Worker(services).run_once(only=PROJECT)
    assert project_of(services).lease_owner is None


def test_a_zombie_writes_nothing_before_its_heartbeat_tells_it(services: Services, studio: Studio) -> None:
    """A process that was stopped wakes up in the middle of a look, and its heartbeat is due later."""
    studio.meanwhile = lambda: services.store.update_project(PROJECT, lease_owner="another worker", title="theirs")
    with pytest.raises(LeaseLost):
        Worker(services).run_once(only=PROJECT)
    assert (project_of(services).lease_owner, project_of(services).title) == ("another worker", "theirs")
    assert (services.store.tasks(PROJECT), studio.imports) == ([], [])


def test_a_lease_that_ran_out_and_that_nobody_took_is_extended(services: Services, studio: Studio) -> None:
    studio.meanwhile = lambda: services.store.update_project(PROJECT, lease_expires=time.time() - 1)
    assert Worker(services).run_once(only=PROJECT)
    assert project_of(services).published_version == "nextmask-0.1"


def test_whoever_loses_the_lease_leaves_the_project_to_the_other(services: Services, studio: Studio) -> None:
    def stolen() -> None:
        services.store.update_project(PROJECT, lease_owner="another worker")
        time.sleep(1.5)  # the heartbeat comes four times per lease

    studio.meanwhile = stolen
    with pytest.raises(LeaseLost):
        Worker(services).run_once(only=PROJECT)
    after = project_of(services)
    assert (after.lease_owner, after.wakes_handled, after.error) == ("another worker", 0, "")
    assert studio.imports == []


def test_a_project_that_is_disconnected_meanwhile_is_left(services: Services, studio: Studio) -> None:
    def disconnected() -> None:
        services.store.update_project(PROJECT, managed=False)
        time.sleep(1.5)

    studio.meanwhile = disconnected
    assert Worker(services).run_once()
    assert studio.imports == []
    assert not project_of(services).managed


def test_a_long_reconcile_keeps_its_lease(services: Services, studio: Studio) -> None:
    taken = []

    def slowly() -> None:
        time.sleep(3.0)  # longer than the lease
        taken.append(services.store.acquire("other", lease_seconds=2.0, interval=3600.0))

    studio.meanwhile = slowly
    assert Worker(services).run_once()
    assert taken == [None]


def test_a_heartbeat_that_fails_once_ends_nothing(
    services: Services, studio: Studio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    beat, failures = services.store.heartbeat, []

    def heartbeat(*arguments: Any, **options: Any) -> None:
        if not failures:
            failures.append(1)
            raise OSError("database is locked")
        beat(*arguments, **options)

    monkeypatch.setattr(services.store, "heartbeat", heartbeat)
    studio.meanwhile = lambda: time.sleep(1.2)
    assert Worker(services).run_once()
    assert project_of(services).state == "waiting"
    assert "heartbeat failed" in caplog.text


def test_stopping_leaves_the_project_due(services: Services, studio: Studio) -> None:
    worker = Worker(services)
    studio.meanwhile = worker.stop
    assert worker.run_once()
    after = project_of(services)
    assert (after.wakes_handled, after.lease_owner, after.error) == (0, None, "")
    studio.meanwhile = lambda: None
    assert Worker(services).run_once()
    assert project_of(services).state == "waiting"


def test_a_project_that_is_gone_is_no_longer_looked_at(services: Services) -> None:
    services.store.wake(404)
    worker = Worker(services)
    while worker.run_once():
        pass
    assert not project_of(services, 404).managed
    assert "no project 404" in project_of(services, 404).error
    assert project_of(services).managed


def test_a_404_of_something_else_does_not_end_a_project(services: Services, studio: Studio) -> None:
    studio.meanwhile = fail_with(LabelStudioNotFound("no such prediction"))
    assert Worker(services).run_once()
    assert project_of(services).managed


# -- the loop --------------------------------------------------------------------------------------------------------
@pytest.fixture
def run() -> Iterator[Callable[[Worker], None]]:
    started: list[tuple[Worker, threading.Thread]] = []

    def start(worker: Worker) -> None:
        thread = threading.Thread(target=worker.run)
        thread.start()
        started.append((worker, thread))

    yield start
    for worker, thread in started:
        worker.stop()
        thread.join(60)
        assert not thread.is_alive()


def test_it_works_until_it_is_stopped(services: Services, studio: Studio, run: Callable[[Worker], None]) -> None:
    run(Worker(services))
    wait_for(lambda: project_of(services).wakes_handled == 1)
    services.store.wake(PROJECT)
    wait_for(lambda: project_of(services).wakes_handled == 2)
    assert studio.looks >= 2  # the timer may have come, too


def test_failures_of_earlier_workers_are_forgotten_once_one_has_settled(
    services: Services, run: Callable[[Worker], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_backend.worker.worker.SHOW_SECONDS", 0.01)
    note_failure(services.store, "The worker ended.")
    run(Worker(services))
    wait_for(lambda: workers(services.store))
    assert worker_failure(services.store) == "The worker ended."  # it may have the same fate
    monkeypatch.setattr("ml_backend.worker.worker.SETTLED_SECONDS", 0.0)
    wait_for(lambda: worker_failure(services.store) == "")


def test_a_worker_that_ends_is_not_missed_and_one_that_was_killed_is_until_the_next_starts(
    services: Services, run: Callable[[Worker], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    for name, silence in (("here:1", 60), ("elsewhere:1", 60), ("elsewhere:2", 90_000)):
        services.store.set_value(f"worker_seen_at {name}", str(services.store.time() - silence))
    worker = Worker(services)
    run(worker)
    wait_for(lambda: [sign.worker for sign in workers(services.store)] == [f"here:{os.getpid()}", "elsewhere:1"])
    worker.stop()
    wait_for(lambda: [sign.worker for sign in workers(services.store)] == ["elsewhere:1"])


def test_nothing_ends_the_loop(
    services: Services, studio: Studio, run: Callable[[Worker], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire, failures = services.store.acquire, []

    def broken(*arguments: Any, **options: Any) -> Any:
        if len(failures) < 3:
            failures.append(1)
            raise OSError("no space left on device")
        return acquire(*arguments, **options)

    monkeypatch.setattr(services.store, "acquire", broken)
    studio.meanwhile = fail_with(RuntimeError("a bug"))
    run(Worker(services))
    wait_for(lambda: project_of(services).state == "failed")
    studio.meanwhile = lambda: None
    services.store.wake(PROJECT)
    wait_for(lambda: project_of(services).state == "waiting")
    assert len(failures) == 3


def test_two_workers_share_the_work(services: Services, studio: Studio, run: Callable[[Worker], None]) -> None:
    studio.meanwhile = lambda: time.sleep(0.2)
    run(Worker(services))
    run(Worker(services))
    wait_for(lambda: project_of(services).wakes_handled == 1 and project_of(services).lease_owner is None)
    assert len(studio.imports) == 1


def test_an_error_is_one_of_ours(services: Services, studio: Studio) -> None:
    studio.meanwhile = fail_with(KeyError("x"))
    with pytest.raises(NextmaskError, match="Unexpected KeyError"):
        Worker(services).run_once(only=PROJECT)


def test_work_that_hangs_is_left_and_its_lease_given_back(
    services: Services, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_backend.worker.worker.STOP_SECONDS", 0.3)
    hangs, ends = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        ends.wait(60)

    studio.meanwhile = hang
    worker, ended = Worker(services), list[bool]()
    thread = threading.Thread(target=lambda: ended.append(worker.run()))
    thread.start()
    assert hangs.wait(60)
    assert project_of(services).lease_owner is not None
    wait_for(lambda: workers(services.store))
    worker.stop()
    thread.join(60)
    assert ended == [False]
    assert project_of(services).lease_owner is None
    assert project_of(services).wakes_handled == 0  # it stays due
    ends.set()
