"""PostgreSQL databases of earlier releases: upgraded with all they hold, by one process, whole or not at all."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from wiring import execute

from ml_backend.errors import StoreError
from ml_backend.store import Store, file_name
from ml_backend.store.database import REVISION, look_at_schema
from ml_backend.store.migrate import upgrade
from ml_backend.store.tables import METADATA

SCHEMAS = Path(__file__).parents[2] / "schemas"
ROOT = Path(__file__).parents[3]
Rows = dict[str, list[dict[str, Any]]]


def recorded(number: int) -> Rows:
    """What an earlier release kept, by table."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript((SCHEMAS / f"schema_{number}.sql").read_text())
        connection.row_factory = sqlite3.Row
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in names}


def make(url: str, number: int) -> None:
    """Fill a database as the release of schema 1 or 2 did, which noted a number in `meta`."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        assert upgrade(connection, None, f"000{number}")
        connection.exec_driver_sql("DROP TABLE alembic_version")
        for name, rows in recorded(number).items():
            table = sa.Table(name, sa.MetaData(), autoload_with=connection)
            truths = [column.name for column in table.c if isinstance(column.type, sa.Boolean)]
            for row in rows:
                fields = {key: bool(value) if key in truths else value for key, value in row.items()}
                connection.execute(sa.insert(table).values(**fields))
    engine.dispose()


def dumped(url: str) -> Rows:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        names = sa.inspect(connection).get_table_names()
        rows = {
            name: [dict(row) for row in connection.exec_driver_sql(f'SELECT * FROM "{name}"').mappings()]
            for name in names
        }
    engine.dispose()
    return {name: sorted(found, key=repr) for name, found in rows.items()}


def kept(before: Rows, after: Rows) -> Rows:
    """What is there of the tables and columns that were there; the number of the schema may change."""
    found = {
        name: sorted(({key: row[key] for key in rows[0]} for row in after[name]), key=repr) if rows else after[name]
        for name, rows in before.items()
    }
    return without_schema(found)


def by_keys(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a task with its files named as they are now."""
    named = {name: row[name] for name in ("mask_file", "effort_file") if row.get(name)}
    return row | {name: file_name(path, row["project_id"]) or path for name, path in named.items()}


def without_schema(rows: Rows) -> Rows:
    """What an upgrade leaves as it is, with files named as it names them."""
    meta = [row for row in rows["meta"] if row["key"] != "schema"]
    return {**rows, "meta": meta, "tasks": [by_keys(row) for row in rows["tasks"]]}


@pytest.mark.parametrize("number", [1, 2])
def test_every_row_is_kept_and_the_store_works(number: int, empty_postgresql_url: str) -> None:
    url = empty_postgresql_url
    make(url, number)
    before = dumped(url)
    assert look_at_schema(url) == f"000{number}"
    for _ in range(2):  # the second time there is nothing to do
        Store(url).close()
        assert kept(before, dumped(url)) == without_schema(before)
    assert look_at_schema(url) == REVISION
    store = Store(url)
    project = store.project(3)
    assert project is not None
    assert (project.title, project.published_version) == ("Zellkerne Größe µm", "nextmask-2.4")
    assert store.priorities(3, [15, 16]) == {15: 0.75, 16: 0.5}
    assert store.set_default("webhook_secret", "another") == "kept-across-releases"
    assert store.queue_length(3, "nextmask-2.4") == 2
    store.add_event(3, "ranked", "One task.")
    store.wake(99_999_999_999)  # more than 32 bits
    assert [known.id for known in store.projects()] == [3, 99_999_999_999]
    store.close()


@pytest.mark.parametrize("first", [None, "0001", "0002", "0005", "0007"])
def test_the_steps_make_the_tables_that_the_code_knows(first: str | None, empty_postgresql_url: str) -> None:
    engine = sa.create_engine(empty_postgresql_url)
    if first is not None:
        with engine.begin() as connection:
            assert upgrade(connection, None, first)
    Store(empty_postgresql_url).close()
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True, "target_metadata": METADATA}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, METADATA) == []
        assert context.get_current_heads() == (REVISION,)
    engine.dispose()


def test_processes_that_start_at_once_upgrade_once(empty_postgresql_url: str) -> None:
    make(empty_postgresql_url, 1)
    before = dumped(empty_postgresql_url)
    code = "import sys; from ml_backend.store import Store; Store(sys.argv[1]).close()"
    command = [sys.executable, "-c", code, empty_postgresql_url]
    started = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [(process.communicate()[1], process.returncode) for process in started] == [("", 0)] * 4
    assert kept(before, dumped(empty_postgresql_url)) == without_schema(before)


KILLED = """
import os, signal, sys
import sqlalchemy as sa
from ml_backend.store import Store, file_name
changes = 0
@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def kill(connection, cursor, statement, *_):
    global changes
    if statement.lstrip().split()[0].upper() in {"CREATE", "ALTER", "INSERT", "UPDATE", "DELETE"}:
        changes += 1
        if changes == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
Store(sys.argv[1]).close()
"""


@pytest.mark.parametrize("change", [2, 15, 30])
def test_an_upgrade_that_is_killed_leaves_what_was_there(change: int, empty_postgresql_url: str) -> None:
    make(empty_postgresql_url, 1)
    before = dumped(empty_postgresql_url)
    killed = subprocess.run([sys.executable, "-c", KILLED, empty_postgresql_url, str(change)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert dumped(empty_postgresql_url) == before
    Store(empty_postgresql_url).close()
    assert kept(before, dumped(empty_postgresql_url)) == without_schema(before)


@pytest.mark.parametrize("noted", [["0999"], ["0001", "0003"]])
def test_a_later_release_is_refused_and_left_alone(noted: list[str], postgresql_url: str) -> None:
    execute(postgresql_url, "DELETE FROM alembic_version")
    for one in noted:
        execute(postgresql_url, f"INSERT INTO alembic_version VALUES ('{one}')")
    before = dumped(postgresql_url)
    for use in (Store, look_at_schema):
        with pytest.raises(StoreError, match=rf"schema {', '.join(noted)}, this nextmask needs {REVISION}\. .*empty"):
            use(postgresql_url)
    assert dumped(postgresql_url) == before
