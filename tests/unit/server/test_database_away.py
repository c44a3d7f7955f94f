"""PostgreSQL goes away while the server and a worker run: webhooks are told when to come again, and nothing is lost."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from memory_studio import MemoryStudio
from postgresql import Cluster
from processes import wait_for
from servers import serving
from wiring import PROJECT, open_installation, project_of

from ml_backend.projects.services import Services
from ml_backend.server.app import create_app
from ml_backend.worker.worker import Worker

EVENT = {"action": "ANNOTATION_CREATED", "project": {"id": PROJECT}}


@pytest.fixture
def services(own_postgresql: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    studio = MemoryStudio.with_images(3)
    with own_postgresql.database() as url:
        folder = tmp_path_factory.mktemp("installation")
        options = {"database_url": url, "audit_share": 0.0, "lease_seconds": 2.0, "reconcile_seconds": 1.0}
        with open_installation(folder, studio, webhook_secret="s", minimum_free_bytes=0, **options) as services:
            yield services
            if own_postgresql.is_stopped:
                own_postgresql.start()


@pytest.fixture
def address(services: Services) -> Iterator[str]:
    with serving(create_app(services.settings)) as url:
        yield url


def post(address: str) -> requests.Response:
    return requests.post(f"{address}/webhook", json=EVENT, timeout=60)


def test_webhooks_during_a_restart_wait_and_are_noted(
    address: str, services: Services, own_postgresql: Cluster
) -> None:
    assert post(address).status_code == 201
    ended, answers = threading.Event(), list[requests.Response]()

    def storm() -> None:
        while not ended.is_set():
            answers.append(post(address))

    threads = [threading.Thread(target=storm) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            time.sleep(0.5)
            own_postgresql.restart()
        reached = len(answers)
        wait_for(lambda: len(answers) > reached + 3, name="answers after the restart")
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    # A statement that was under way when the server ended is refused; all others waited.
    assert {answer.status_code for answer in answers} <= {201, 503}
    assert all(answer.headers.get("Retry-After") == "5" for answer in answers if answer.status_code == 503)
    assert sum(answer.status_code == 503 for answer in answers) <= 6
    assert project_of(services).wakes >= 1


def test_while_it_stays_away_webhooks_are_refused_at_once_with_the_reason(
    address: str, services: Services, own_postgresql: Cluster
) -> None:
    assert post(address).status_code == 201
    own_postgresql.stop()
    assert post(address).status_code == 503  # it has waited
    began = time.monotonic()
    for _ in range(20):
        answer = post(address)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert "cannot be used now" in answer.json()["detail"]
        assert "database-password" not in answer.text
    assert time.monotonic() - began < 10
    ready = requests.get(f"{address}/ready", timeout=30)
    assert ready.status_code == 503
    assert "store" in ready.json()["reasons"]
    assert requests.get(f"{address}/health", timeout=5).status_code == 200
    assert "nextmask_store_up 0.0" in requests.get(f"{address}/metrics", timeout=30).text
    own_postgresql.start()
    wait_for(lambda: post(address).status_code == 201, name="webhooks")
    wait_for(lambda: requests.get(f"{address}/ready", timeout=30).status_code == 200, name="readiness")


def test_long_work_goes_on_through_a_restart(
    services: Services, own_postgresql: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than the lease, which runs out meanwhile, and which nobody could take."""
    services.store.wake(PROJECT)
    under_way, stopped, checks = threading.Event(), threading.Event(), list[float]()

    def train(_: Services, __: int, check: Callable[[], None], *, trial: bool) -> None:
        check()
        under_way.set()
        assert stopped.wait(60)
        check()
        checks.append(time.monotonic())

    monkeypatch.setattr("ml_backend.worker.worker.reconcile", train)
    with ThreadPoolExecutor(1) as pool:
        worked = pool.submit(Worker(services).run_once, only=PROJECT)
        assert under_way.wait(60)
        own_postgresql.stop(signal.SIGQUIT)
        stopped.set()
        time.sleep(3.0)  # longer than the lease
        assert not checks
        own_postgresql.start()
        assert worked.result(60)
    assert checks
    after = project_of(services)
    assert (after.wakes_handled, after.lease_owner, after.error) == (after.wakes, None, "")


def test_the_timer_heals_what_was_refused(services: Services, own_postgresql: Cluster) -> None:
    worker = Worker(services)
    thread = threading.Thread(target=worker.run)
    services.store.wake(PROJECT)
    thread.start()
    try:
        wait_for(lambda: project_of(services).published_version, name="a queue")
        own_postgresql.stop()
        new = services.client.add_task(7)  # type: ignore[attr-defined]  # its webhook finds no database
        time.sleep(3.0)  # longer than the worker's lease
        own_postgresql.start()
        wait_for(lambda: services.store.task(PROJECT, new), name="the new task")
        assert thread.is_alive()
    finally:
        worker.stop()
        thread.join(60)
    assert not project_of(services).error
