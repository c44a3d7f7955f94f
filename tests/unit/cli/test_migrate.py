"""nextmask migrate, and what commands say of a PostgreSQL that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Command
from installed_state import fill, rows_of
from postgresql import PASSWORD, Cluster
from wiring import PROJECT, make_services, make_settings, open_installation

from ml_backend.demo.label_studio import free_port
from ml_backend.projects.signs_of_life import give_sign, take_back_sign
from ml_backend.store import Store


@pytest.fixture(autouse=True)
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installation with SQLite; returns the address of its database."""
    for name, value in make_settings(tmp_path / "state").environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NEXTMASK_DATABASE_URL", raising=False)
    with open_installation(tmp_path / "state") as services:
        fill(services, tasks=30)
        return services.settings.effective_database_url


def test_to_postgresql_and_back(
    nextmask: Command, installation: str, empty_postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows_of(installation)
    ended = nextmask("migrate", "--to", empty_postgresql_url)
    assert ended.code == 0, ended.err
    assert "rows of 1 projects and 29 tasks" in ended.out
    assert "Set NEXTMASK_DATABASE_URL to it" in ended.out
    assert PASSWORD not in ended.out + ended.err
    assert rows_of(empty_postgresql_url) == rows_of(installation) == before

    again = nextmask("migrate", "--to", empty_postgresql_url)
    assert (again.code, "is not empty" in again.message) == (1, True)

    monkeypatch.setenv("NEXTMASK_DATABASE_URL", empty_postgresql_url)
    assert "Zellkerne" in nextmask("status").out
    (tmp_path / "state" / "nextmask.sqlite3").rename(tmp_path / "old.sqlite3")
    back = nextmask("migrate", "--to", installation)
    assert back.code == 0, back.err
    assert "Unset NEXTMASK_DATABASE_URL" in back.out
    assert rows_of(installation) == before


def test_while_nextmask_runs_nothing_is_copied(nextmask: Command, installation: str, empty_postgresql_url: str) -> None:
    store = Store(installation)
    give_sign(store)
    refused = nextmask("migrate", "--to", empty_postgresql_url)
    assert "A worker runs, or ran a moment ago" in refused.message
    assert "Stop nextmask on all machines first" in refused.message
    take_back_sign(store)
    store.close()
    assert nextmask("migrate", "--to", empty_postgresql_url).code == 0


def test_without_a_state_none_is_made(nextmask: Command, tmp_path: Path, empty_postgresql_url: str) -> None:
    (tmp_path / "state" / "nextmask.sqlite3").unlink()
    assert "no state to copy" in nextmask("migrate", "--to", empty_postgresql_url).message
    assert not (tmp_path / "state" / "nextmask.sqlite3").exists()


@pytest.mark.parametrize("to", ["nonsense", "postgresql+psycopg://a:pa55word@host:port/name"])
def test_an_address_that_is_none(nextmask: Command, to: str) -> None:
    refused = nextmask("migrate", "--to", to)
    assert "no SQLAlchemy address" in refused.message
    assert "pa55word" not in refused.err


@pytest.mark.parametrize(
    ("arguments", "code"), [(("status",), 1), (("serve", "--port", "0"), 1), (("backup", "state.tar.zst"), 1)]
)
@pytest.mark.parametrize("problem", ["away", "password", "database"])
def test_commands_say_in_a_sentence_what_is_wrong(
    nextmask: Command,
    monkeypatch: pytest.MonkeyPatch,
    shared_postgresql: Cluster,
    arguments: tuple[str, ...],
    code: int,
    problem: str,
) -> None:
    url, says = {
        "away": (shared_postgresql.url("postgres", port=free_port()), "Start the database, or mend"),
        "password": (shared_postgresql.url("postgres", password="hush"), "password is wrong: mend"),
        "database": (shared_postgresql.url("labels"), "createdb --owner USER NAME"),
    }[problem]
    monkeypatch.setenv("NEXTMASK_DATABASE_URL", url)
    ended = nextmask(*arguments)
    assert ended.code == code
    assert (says if arguments[0] != "backup" else "pg_dump --format=custom") in ended.message
    assert "hush" not in ended.err
    assert PASSWORD not in ended.err


def test_a_project_of_postgresql_is_shown(
    nextmask: Command, monkeypatch: pytest.MonkeyPatch, postgresql_url: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("NEXTMASK_DATABASE_URL", postgresql_url)
    services = make_services(tmp_path / "state")
    services.store.wake(PROJECT, title="of PostgreSQL")
    services.store.close()
    assert "of PostgreSQL" in nextmask("status").out
