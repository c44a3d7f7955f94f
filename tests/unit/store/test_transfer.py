"""A state is copied from SQLite to PostgreSQL and back: every row, all or nothing, and only into an empty database."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed_state import fill, rows_of
from memory_studio import MemoryStudio
from wiring import PROJECT, execute, make_services, nothing, open_installation, project_of

from ml_backend.errors import StoreError
from ml_backend.projects.services import Services
from ml_backend.store import Store
from ml_backend.store.transfer import transfer
from ml_backend.worker.reconcile import reconcile

ROOT = Path(__file__).parents[3]


@pytest.fixture
def services(tmp_path: Path, database_url: str) -> Iterator[Services]:
    """The source: SQLite or PostgreSQL."""
    with open_installation(tmp_path / "installation") as services:
        yield services


@pytest.fixture
def source(services: Services) -> str:
    return services.settings.effective_database_url


@pytest.fixture
def target(database_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of the other kind."""
    if database_url:
        return f"sqlite:///{tmp_path / 'other' / 'nextmask.sqlite3'}"
    return str(request.getfixturevalue("empty_postgresql_url"))


def test_every_row_arrives_and_work_goes_on_there(services: Services, source: str, target: str) -> None:
    fill(services)
    assert services.store.acquire("the worker", lease_seconds=1000, interval=1) is not None
    for project, takes in ((PROJECT, True), (PROJECT + 1, False)):  # one trains, one waits
        lease = services.store.take_device(project, [("a device", "cpu")], "the worker", lease_seconds=1000)
        assert (lease is not None) == takes
    before, told = rows_of(source), list[tuple[int, int]]()
    assert all(before.values())  # each table has some
    counts = transfer(source, target, progress=lambda *done: told.append(done))
    for name in ("devices", "turns"):
        assert before.pop(name)
    assert counts == {name: len(rows) for name, rows in before.items()}
    assert told[-1] == (sum(counts.values()), sum(counts.values()))
    assert len(told) > 5
    after = rows_of(target)
    assert (after.pop("devices"), after.pop("turns")) == ([], []), "nobody trains on what was copied"
    assert {name: rows for name, rows in rows_of(source).items() if name in before} == before
    for rows in (before, after):
        for row in rows["projects"]:
            row.update(lease_owner=None, lease_expires=None)
    assert after == before
    store = Store(target)
    assert store.acquire("the next worker", lease_seconds=9, interval=9) is not None
    newest = store.events(PROJECT)[0].id
    store.add_event(PROJECT, "trained", "the next")
    assert store.events(PROJECT)[0].id > newest
    assert store.set_default("webhook_secret", "another") == "kept"
    store.close()


def test_there_and_back_nothing_has_changed(services: Services, source: str, target: str, tmp_path: Path) -> None:
    fill(services, tasks=20)
    transfer(source, target, progress=nothing)
    again = f"sqlite:///{tmp_path / 'again.sqlite3'}"
    transfer(target, again, progress=nothing)
    assert rows_of(again) == rows_of(source) == rows_of(target)


def test_nothing_is_read_ranked_or_published_again(
    tmp_path: Path, database_url: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = MemoryStudio.with_images(6)
    first = make_services(tmp_path / "one", studio, queue_window=3, audit_share=0.0)
    first.store.wake(PROJECT)
    reconcile(first, PROJECT, nothing)
    predictions, project = list(studio.predictions), project_of(first)
    first.store.close()
    transfer(first.settings.effective_database_url, target, progress=nothing)
    monkeypatch.delenv("NEXTMASK_DATABASE_URL", raising=False)
    folder = first.settings.model_dir
    second = make_services(
        tmp_path / "one", studio, queue_window=3, audit_share=0.0, database_url=target, model_dir=folder
    )
    reconcile(second, PROJECT, nothing)
    assert list(studio.predictions) == predictions
    assert project_of(second).ranking_number == project.ranking_number
    second.store.close()


def test_a_target_that_is_not_empty_is_left_alone(services: Services, source: str, target: str) -> None:
    fill(services, tasks=5)
    other = Store(target)
    other.wake(3, title="another installation")
    other.close()
    before = rows_of(target)
    with pytest.raises(StoreError, match=r"is not empty: .*Name another one"):
        transfer(source, target, progress=nothing)
    assert rows_of(target) == before
    with pytest.raises(StoreError, match="is not empty"):
        transfer(source, source, progress=nothing)


def test_a_target_of_another_release_or_program_is_left_alone(services: Services, source: str, target: str) -> None:
    Store(target).close()
    execute(target, "UPDATE alembic_version SET version_num = '0999'")
    with pytest.raises(StoreError, match="is not empty"):
        transfer(source, target, progress=nothing)
    for table in rows_of(target):
        execute(target, f"DROP TABLE {table}")
    execute(target, "DROP TABLE alembic_version")
    execute(target, "CREATE TABLE tasks (task TEXT)")
    execute(target, "INSERT INTO tasks VALUES ('of another program')")
    with pytest.raises(StoreError, match="already exists"):
        transfer(source, target, progress=nothing)
    assert execute(target, "SELECT * FROM tasks") == [("of another program",)]


def test_a_source_that_is_not_there_is_not_made(tmp_path: Path, target: str) -> None:
    with pytest.raises(StoreError, match=r"no state to copy: .*nextmask\.sqlite3 does not exist"):
        transfer(f"sqlite:///{tmp_path / 'nowhere' / 'nextmask.sqlite3'}", target, progress=nothing)
    assert not (tmp_path / "nowhere").exists()


KILLED = """
import os, signal, sys
from ml_backend.store.transfer import transfer
def progress(done, total):
    if done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)
transfer(sys.argv[1], sys.argv[2], progress=progress)
"""


def test_a_copy_that_is_killed_leaves_the_target_empty(services: Services, source: str, target: str) -> None:
    fill(services)
    killed = subprocess.run([sys.executable, "-c", KILLED, source, target], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    counts = transfer(source, target, progress=nothing)
    assert rows_of(target) == rows_of(source)
    assert counts["tasks"] == 2499
