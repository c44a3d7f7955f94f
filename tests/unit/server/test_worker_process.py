"""WorkerProcess with real processes: one runs, a dead one is replaced, none is left behind."""

from __future__ import annotations

import html
import logging
import os
import signal
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from processes import exists, wait_for
from wiring import PROJECT, make_settings

from ml_backend.doctor import examine
from ml_backend.projects.services import Services
from ml_backend.projects.signs_of_life import worker_failure
from ml_backend.projects.status import project_status
from ml_backend.server import worker_process as supervisor
from ml_backend.server.app import create_app
from ml_backend.server.worker_process import WorkerProcess


def running(worker: WorkerProcess) -> int:
    assert worker.pid is not None
    return worker.pid


def test_a_worker_that_dies_is_replaced_after_a_pause(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), WorkerProcess(make_settings(tmp_path)) as worker:
        seen = [running(worker)]
        for _ in range(2):
            os.kill(seen[-1], signal.SIGKILL)
            wait_for(lambda: worker.pid is None)
            wait_for(lambda: worker.pid is not None)
            seen.append(running(worker))
    assert len(set(seen)) == 3
    assert not any(exists(pid) for pid in seen)
    assert [record.getMessage() for record in caplog.records] == [
        "worker was ended by SIGKILL; the next one starts in 0.5 s",
        "worker was ended by SIGKILL; the next one starts in 1.0 s",
    ]


def test_a_worker_that_ran_well_for_long_is_replaced_soon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SETTLED_SECONDS", -1.0)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with caplog.at_level(logging.ERROR), WorkerProcess(make_settings(tmp_path)):
        wait_for(lambda: len(caplog.records) > 2)
    assert {record.getMessage().rpartition("starts in ")[2] for record in caplog.records} == {"0.5 s"}


def test_why_no_worker_starts_is_told_by_status_dashboard_and_doctor(
    tmp_path: Path, services: Services, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "first on the path" / "ml_backend"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import no_such_module\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.01)
    services.store.wake(PROJECT)
    cause = "ModuleNotFoundError: No module named 'no_such_module'"
    application = create_app(services.settings, worker=WorkerProcess(services.settings))
    with caplog.at_level(logging.ERROR), TestClient(application) as client:
        told = wait_for(lambda: worker_failure(services.store))
        assert cause in told
        assert " times in a row, each time soon after its start." in told
        assert all(cause in record.getMessage() for record in caplog.records)
        assert project_status(services.settings, services.store, PROJECT).errors["worker"]
        shown = html.escape(cause, quote=True).replace("&#x27;", "&#39;")
        assert shown in client.get("/").text
        assert shown in client.get(f"/projects/{PROJECT}").text
        assert cause not in client.get("/ready").json()["reasons"]["worker"]  # which anybody may read
        report = examine(services.settings, (), seconds=30.0)
        (finding,) = [found for part in report.sections for found in part.findings if found.check == "worker"]
        assert (finding.level, cause in finding.message) == ("problem", True)


def test_a_worker_that_is_killed_once_is_no_failure(tmp_path: Path, services: Services) -> None:
    with WorkerProcess(services.settings) as worker:
        os.kill(running(worker), signal.SIGKILL)
        wait_for(lambda: worker.pid is None)
        wait_for(lambda: worker.pid is not None)
    assert worker_failure(services.store) == ""


def test_pauses_do_not_grow_beyond_a_bound(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.3)
    monkeypatch.setattr("sys.executable", "/bin/false")  # ends at once
    with caplog.at_level(logging.ERROR), WorkerProcess(make_settings(tmp_path)):
        wait_for(lambda: len(caplog.records) >= 4)
    pauses = [float(record.getMessage().split()[-2]) for record in caplog.records]
    assert pauses[:4] == [0.1, 0.2, 0.3, 0.3]


def test_a_system_that_starts_no_process_is_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", str(tmp_path / "nothing"))
        with caplog.at_level(logging.ERROR), WorkerProcess(make_settings(tmp_path)) as worker:
            wait_for(lambda: len(caplog.records) >= 2)
            assert worker.pid is None
            patch.undo()
            wait_for(lambda: worker.pid is not None)
    assert "worker could not be started" in caplog.records[0].getMessage()


def test_a_worker_in_its_pause_is_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 3600.0)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with caplog.at_level(logging.ERROR), WorkerProcess(make_settings(tmp_path)):
        wait_for(lambda: len(caplog.records) == 1)


def test_a_worker_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.2)
    with WorkerProcess(make_settings(tmp_path)) as worker:
        pid = running(worker)
        os.kill(pid, signal.SIGSTOP)  # hears no SIGTERM
    assert not exists(pid)


def test_stopping_right_after_starting_leaves_nothing(tmp_path: Path) -> None:
    for _ in range(5):
        with WorkerProcess(make_settings(tmp_path)) as worker:
            pid = running(worker)
        assert not exists(pid)


def test_the_worker_gets_the_settings_through_its_environment(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, label_studio_api_key="5ec2e7" * 6 + "abcd", train_after=17)
    with WorkerProcess(settings) as worker:
        process = Path(f"/proc/{running(worker)}")
        wait_for(lambda: (process / "environ").read_bytes() != b"")  # it is, for a moment, while a program is loaded
        variables = (process / "environ").read_bytes().split(b"\0")
        command = (process / "cmdline").read_bytes()
    assert b"NEXTMASK_TRAIN_AFTER=17" in variables
    assert b"LABEL_STUDIO_API_KEY=" + b"5ec2e7" * 6 + b"abcd" in variables
    assert b"5ec2e7" not in command  # which anybody on the machine can read
    assert str(os.getpid()).encode() in command
