"""/health and /ready: alive at once whatever hangs; ready only when the work can be done, with the reasons when not."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from wiring import PROJECT, change_database, make_services

from ml_backend.projects.services import Services
from ml_backend.projects.signs_of_life import SILENT_SECONDS, give_sign, note_failure
from ml_backend.server import health
from ml_backend.store import Store

pytestmark = pytest.mark.settings(minimum_free_bytes=1)


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call looks anew."""
    monkeypatch.setattr(health, "REMEMBERED_SECONDS", 0.0)


class Worker:
    runs = True

    def pid(self) -> int | None:
        return os.getpid() if self.runs else None


def client(services: Services, worker: Worker | None = None) -> TestClient:
    app = FastAPI()
    health.add_health(app, services.settings, services.store, worker_pid=worker.pid if worker else None)
    return TestClient(app)


def reasons(client: TestClient) -> dict[str, Any]:
    answer = client.get("/ready")
    body = answer.json()
    assert (answer.status_code, body["status"]) in {(200, "READY"), (503, "NOT READY")}
    assert (answer.status_code == 200) == (body["reasons"] == {})
    found: dict[str, Any] = body["reasons"]
    return found


def test_ready_when_everything_is_there(services: Services) -> None:
    assert reasons(client(services)) == {}
    give_sign(services.store)
    assert reasons(client(services, Worker())) == {}


def test_a_worker_that_starts_is_stuck_or_dead(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    asked = client(services, worker)
    assert reasons(asked) == {"worker": "The worker is starting."}
    give_sign(services.store)
    assert reasons(asked) == {}
    now = time.time()
    for jump in (SILENT_SECONDS + 5, -SILENT_SECONDS - 5):  # stuck; and a clock that was set back
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda jump=jump: now + jump)
            assert "gave no sign of life for 3" in reasons(asked)["worker"]
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "elsewhere")
        assert reasons(asked) == {"worker": "The worker is starting."}  # the sign is of another machine's worker
    note_failure(services.store, "The worker ended.")
    assert "ends soon after each start; nextmask status says why" in reasons(asked)["worker"]
    worker.runs = False
    assert "does not run" in reasons(asked)["worker"]


def test_a_disk_without_room(services: Services, tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    full = make_services(tmp_path, minimum_free_bytes=2 * free)
    assert f"NEXTMASK_MINIMUM_FREE_BYTES = {2 * free:,}" in reasons(client(full))["disk"]
    full.store.close()


def test_a_folder_that_is_gone(services: Services) -> None:
    asked = client(services)
    shutil.rmtree(services.settings.model_dir)
    found = reasons(asked)
    assert found["disk"] == (
        "MODEL_DIR cannot be written (No such file or directory): is the disk full, or is it read-only?"
    )
    assert str(services.settings.model_dir) not in str(found)


def test_a_database_that_cannot_be_written(services: Services) -> None:
    asked = client(services)
    change_database(services, "CREATE TRIGGER full BEFORE INSERT ON meta BEGIN SELECT RAISE(FAIL, 'full'); END")
    assert reasons(asked)["store"].startswith("The state database cannot be written (full)")


def test_a_model_that_cannot_be_read(services: Services) -> None:
    asked = client(services)
    services.store.wake(PROJECT, published_version="nextmask-0.3")
    assert reasons(asked) == {}  # a queue without a model is a state of its own
    services.store.update_project(PROJECT, published_version="nextmask-4.2")
    assert reasons(asked)["models"].startswith(f"project {PROJECT}: Version 4 cannot be used: there is no such version")


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    services = make_services(tmp_path, device="cuda:63", minimum_free_bytes=1)
    assert "cuda:63" in reasons(client(services))["models"]
    services.store.close()


def test_a_database_that_hangs_is_not_waited_for_and_leaves_health_alone(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, ends = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        hangs.set()
        ends.wait(60)

    monkeypatch.setattr(Store, "set_value", hang)
    monkeypatch.setattr(health, "ANSWER_SECONDS", 0.2)
    with client(services) as asked:
        for _ in range(4):  # more than there are threads
            assert "did not answer" in reasons(asked)["store"]
        assert hangs.is_set()
        assert asked.get("/health").json()["status"] == "UP"
        ends.set()


def test_a_look_is_remembered_for_a_moment(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "REMEMBERED_SECONDS", 60.0)
    asked = client(services)
    assert reasons(asked) == {}
    asked_at = services.store.value("ready_asked_at")
    assert asked_at
    assert reasons(asked) == {}
    assert services.store.value("ready_asked_at") == asked_at
