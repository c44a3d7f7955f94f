"""What lies in the folder in which a command is started is not run, whatever its name."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny_datasets
from processes import wait_for
from small_training import ROOT, small_job
from wiring import make_settings

from ml_backend.demo.label_studio import LabelStudioHost
from ml_backend.learning.training import process as training_process
from ml_backend.projects.signs_of_life import workers
from ml_backend.settings import Settings
from ml_backend.store import Store

NEXTMASK = (str(Path(sys.executable).with_name("nextmask")),)
IN_A_CLONE = (sys.executable, "-m", "ml_backend")
PACKAGES = ("ml_backend", "strategies", "torch", "numpy", "learning")
MODULES = ("json", "multiprocessing", "struct", "queue", "models", "requests", "pydantic")


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder with packages and modules of names that ours and Python's have; each leaves a trace when it is run."""
    folder = tmp_path / "mine"
    for name in PACKAGES:
        (folder / name).mkdir(parents=True)
    for file in (*(folder / name / "__init__.py" for name in PACKAGES), *(folder / f"{name}.py" for name in MODULES)):
        file.write_text("import pathlib\npathlib.Path(__file__).with_suffix('.run').touch()\n")
    return folder


def were_run(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*.run"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def variables(settings: Settings, **more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **settings.environment(), **more}


@contextmanager
def serving(command: tuple[str, ...], folder: Path, settings: Settings, **more: str) -> Iterator[None]:
    log = settings.model_dir / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "serve"], cwd=folder, env=variables(settings, **more), stdout=output, stderr=output
        )
    try:
        wait_for(lambda: has_lived(settings, server, log), name="the worker's sign of life")
        yield
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def has_lived(settings: Settings, server: subprocess.Popen[bytes], log: Path) -> bool:
    assert server.poll() is None, log.read_text()
    if not (settings.model_dir / "nextmask.sqlite3").exists():
        return False
    store = Store(settings.effective_database_url)
    try:
        return bool(workers(store))
    finally:
        store.close()


def test_a_server_and_its_worker_run_in_it(beside: Path, tmp_path: Path) -> None:
    with serving(NEXTMASK, beside, make_settings(tmp_path, port=free_port())):
        assert were_run(beside) == []


def test_a_simulation_runs_in_it(beside: Path, tmp_path: Path) -> None:
    cells = tiny_datasets.own(tmp_path / "cells", splits={"train": 4, "test": 2})
    short = (
        "--preset",
        "quick",
        "--device",
        "cpu",
        "--iterations",
        "2",
        "--rounds",
        "1",
        "--input-size",
        "64",
        "--step",
        "50%",
    )
    given = (str(cells), "--out", str(tmp_path / "out"), *short, "--strategy", "random", "--seeds", "2", "--jobs", "2")
    command = [*NEXTMASK, "simulate", *given, "--no-report"]
    done = subprocess.run(
        command, cwd=beside, env=variables(make_settings(tmp_path)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert were_run(beside) == []


def test_a_training_runs_in_it(beside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = small_job(tmp_path)
    monkeypatch.chdir(beside)
    assert training_process.run(job, progress=lambda _: None, heartbeat=lambda: None) == 1
    assert were_run(beside) == []


def test_doctor_runs_in_it(beside: Path, tmp_path: Path) -> None:
    command = [*NEXTMASK, "doctor", "--timeout", "100"]
    done = subprocess.run(
        command, cwd=beside, env=variables(make_settings(tmp_path)), capture_output=True, text=True, check=False
    )
    assert "✓ packages: Python" in done.stdout
    assert were_run(beside) == []


def test_the_label_studio_of_the_demo_imports_nothing_from_it(beside: Path) -> None:
    host = LabelStudioHost(Path("label-studio"), beside, 8080, beside, username="a@b.c", password="x", token="0" * 40)
    command = [sys.executable, "-c", "import json, queue, requests"]
    subprocess.run(command, cwd=beside, env=host.environment(), check=True)
    assert were_run(beside) == []


def test_a_clone_that_is_not_installed_runs(tmp_path: Path) -> None:
    """Where only the working directory has nextmask, its worker still finds it, and modules that PYTHONPATH names."""
    clone, own = tmp_path / "clone", tmp_path / "own"
    clone.mkdir()
    for package in ("ml_backend", "strategies"):
        (clone / package).symlink_to(ROOT / package)
    own.mkdir()
    (own / "sitecustomize.py").write_text(
        "import pathlib, sys\n"
        f"clone = {str(clone)!r}\n"
        "sys.path[:] = [part for part in sys.path if part == clone or not pathlib.Path(part, 'ml_backend').is_dir()]\n"
        "sys.meta_path[:] = [finder for finder in sys.meta_path if 'editable' not in repr(finder)]\n"
        "pathlib.Path(__file__).with_name(' '.join(sys.orig_argv[1:5]).replace('/', '_')).touch()\n"
    )
    path = os.pathsep.join([str(own), *(part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part)])
    with serving(IN_A_CLONE, clone, make_settings(tmp_path, port=free_port()), PYTHONPATH=path):
        starts = {file.name for file in own.iterdir()}
    assert "-m ml_backend serve" in starts
    assert "-m ml_backend worker --parent" in starts
