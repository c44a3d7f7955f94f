"""Databases of earlier releases: upgraded with all they hold, by one process, whole or not at all."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from ml_backend.annotations.boxes import Box, Query
from ml_backend.errors import StoreError
from ml_backend.store import AnnotatorLabels, Store, Task, file_name
from ml_backend.store.database import REVISION
from ml_backend.store.migrate import configuration, upgrade
from ml_backend.store.tables import METADATA

SCHEMAS = Path(__file__).parents[2] / "schemas"
ROOT = Path(__file__).parents[3]
Rows = dict[str, list[dict[str, Any]]]


def make(folder: Path, number: int) -> Path:
    file = folder / "nextmask.sqlite3"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript((SCHEMAS / f"schema_{number}.sql").read_text())
    return file


def rows_of(file: Path) -> Rows:
    """All tables with their rows, in one order."""
    with closing(sqlite3.connect(file)) as connection:
        connection.row_factory = sqlite3.Row
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in names}
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def kept(before: Rows, after: Rows) -> Rows:
    """What is there of the tables and columns that were there."""
    columns = {name: rows[0].keys() for name, rows in before.items() if rows}
    found = {
        name: sorted(({column: row[column] for column in known} for row in after[name]), key=repr)
        for name, known in columns.items()
    }
    return {**{name: [] for name in before}, **found}


def by_keys(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a task with its files named as they are now."""
    named = {name: row[name] for name in ("mask_file", "effort_file") if row.get(name)}
    return row | {name: file_name(path, row["project_id"]) or path for name, path in named.items()}


def without_schema(rows: Rows) -> Rows:
    """What an upgrade leaves as it is, with files named as it names them."""
    meta = [row for row in rows["meta"] if row["key"] != "schema"]
    return {**rows, "meta": meta, "tasks": [by_keys(row) for row in rows["tasks"]]}


@pytest.mark.parametrize("number", [1, 2])
def test_every_row_is_kept_and_the_store_works(number: int, tmp_path: Path) -> None:
    file = make(tmp_path, number)
    before = rows_of(file)
    for _ in range(2):  # the second time there is nothing to do
        store = Store(f"sqlite:///{file}")
        store.close()
        assert kept(without_schema(before), without_schema(rows_of(file))) == without_schema(before)
    copy = tmp_path / f"nextmask.sqlite3.before-{REVISION}"
    assert rows_of(copy) == before
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(("-wal", "-shm"))) == [
        file.name,
        copy.name,
    ]

    store = Store(f"sqlite:///{file}")
    project = store.project(3)
    assert project is not None
    assert (project.title, project.published_version, project.extra_params) == (
        "Zellkerne Größe µm",
        "nextmask-2.4",
        '{"strategy": "entropy"}',
    )
    labelled = store.task(3, 11)
    assert labelled is not None
    assert (labelled.status, labelled.lead_time, labelled.agreement) == ("labelled", 41.5, 0.8125)
    assert store.priorities(3, [15, 16]) == {15: 0.75, 16: 0.5}
    assert store.ranked_queries(3) == ({16: Query((Box(0, 0, 4, 3),), 6.5)} if number == 2 else {})
    assert store.set_default("webhook_secret", "another") == "kept-across-releases"
    assert store.queue_length(3, "nextmask-2.4") == 2
    lease = store.acquire("me", lease_seconds=30, interval=60)
    assert lease is not None
    store.put_tasks([Task(3, 19, "19.png")])
    store.put_ranking(3, {19: 0.5}, information={19: 0.25})
    assert store.information(3, [19]) == {19: 0.25}
    store.add_event(3, "ranked", "One task.")
    assert [event.text for event in store.events(3)] == ["One task."]
    store.close()


def test_labels_of_the_schema_before_are_kept_and_of_unknown_annotators(tmp_path: Path) -> None:
    file = tmp_path / "nextmask.sqlite3"
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        assert upgrade(connection, None, "0005")
    engine.dispose()
    with closing(sqlite3.connect(file)) as connection, connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(tasks)")]
        assert "masked" in names
        assert not {"annotator", "unchanged"} & set(names)
        connection.execute(
            "INSERT INTO tasks (project_id, task_id, image, group_key, updated_at, status, error, annotation_id,"
            " label_digest, mask_file, held_out, regions, vertices, shown_version, agreement, masked)"
            " VALUES (3, 11, 'a.png', 'a.png', '1', 'labelled', '', 9, 'd', '/m', 0, 2, 0, 'nextmask-2.4', 1.0, 1)"
        )
    before = rows_of(file)
    store = Store(f"sqlite:///{file}")
    try:
        assert kept(before, rows_of(file))["tasks"] == before["tasks"]
        task = store.task(3, 11)
        assert task is not None
        assert (task.annotation_id, task.masked, task.annotator, task.unchanged) == (9, True, None, None)
        assert (task.points, task.guesses, task.right_guesses) == (0, 0, 0)
        assert store.labels_of_annotators(3) == [AnnotatorLabels(None, 1, 0, 0)]
        store.set_unchanged([replace(task, annotator=7, unchanged=True, status="skipped")])
        assert store.task(3, 11) == replace(task, annotator=7, unchanged=True)
    finally:
        store.close()


def test_tasks_that_the_last_ranking_did_not_know_stay_new_to_it(tmp_path: Path) -> None:
    file = tmp_path / "nextmask.sqlite3"
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        assert upgrade(connection, None, "0007")
    engine.dispose()
    with closing(sqlite3.connect(file)) as connection, connection:
        for number, status in ((11, "unlabelled"), (12, "unlabelled"), (13, "labelled")):
            connection.execute(
                "INSERT INTO tasks (project_id, task_id, image, group_key, updated_at, status, error, label_digest,"
                f" mask_file, held_out, regions, vertices, shown_version) VALUES (3, {number}, 'a.png', 'a.png', '1',"
                f" '{status}', '', '', '', 0, 0, 0, '')"
            )
        connection.execute("INSERT INTO ranking (project_id, task_id, priority) VALUES (3, 11, 0.5)")
    before = rows_of(file)
    store = Store(f"sqlite:///{file}")
    try:
        assert kept(before, rows_of(file))["tasks"] == before["tasks"]
        assert store.count_new(3, after=0) == 1
        assert store.count_tasks(3) == {"unlabelled": 2, "labelled": 1}
        assert store.changes(3) == 0
        store.put_tasks([Task(3, 14, "b.png")])
        assert store.count_new(3, after=0) == 2
    finally:
        store.close()


def test_the_steps_make_the_tables_that_the_code_knows(tmp_path: Path) -> None:
    made = [make(tmp_path, number).rename(tmp_path / f"{number}.sqlite3") for number in (1, 2)]
    for file in (*made, tmp_path / "new.sqlite3"):
        Store(f"sqlite:///{file}").close()
        with sa.create_engine(f"sqlite:///{file}").connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": METADATA}
            )
            assert compare_metadata(context, METADATA) == [], file.name
            assert ScriptDirectory.from_config(configuration(connection)).get_heads() == [REVISION]
            assert context.get_current_heads() == (REVISION,)
        connection.engine.dispose()


def test_an_earlier_release_keeps_away_from_an_upgraded_database(tmp_path: Path) -> None:
    """It looks for its own number in `meta` and refuses any other; without the row it would write its own."""
    Store(f"sqlite:///{tmp_path / 'new.sqlite3'}").close()
    assert {"key": "schema", "value": "3"} in rows_of(tmp_path / "new.sqlite3")["meta"]


@pytest.mark.parametrize("noted", [["0999"], ["0001", "0003"]])
def test_a_later_release_is_refused_and_left_alone(noted: list[str], tmp_path: Path) -> None:
    file = tmp_path / "nextmask.sqlite3"
    Store(f"sqlite:///{file}").close()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DELETE FROM alembic_version")
        connection.executemany("INSERT INTO alembic_version VALUES (?)", [(one,) for one in noted])
    before = rows_of(file)
    with pytest.raises(StoreError, match=rf"schema {', '.join(noted)}, this nextmask needs {REVISION}\. .*MODEL_DIR"):
        Store(f"sqlite:///{file}")
    assert rows_of(file) == before


def test_a_database_that_is_up_to_date_opens_without_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'nextmask.sqlite3'}"
    Store(url).close()
    code = "import sys; from ml_backend.store import Store; Store(sys.argv[1]).close(); print('alembic' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code, url], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


KILLED = """
import json, os, signal, sys
import sqlalchemy as sa
import ml_backend.store.migrate  # imported once, not by every child
from ml_backend.store import Store, file_name

url, script = sys.argv[1:]
ended = {}
for count in range(1, 200):
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(url.removeprefix("sqlite:///") + suffix):
            os.remove(url.removeprefix("sqlite:///") + suffix)
    import sqlite3
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    connection.executescript(open(script).read())
    connection.close()
    child = os.fork()
    if child == 0:
        changes = 0
        @sa.event.listens_for(sa.Engine, "before_cursor_execute")
        def kill(connection, cursor, statement, *_):
            global changes
            if statement.lstrip().split()[0].upper() in {"CREATE", "ALTER", "INSERT", "UPDATE", "DELETE"}:
                changes += 1
                if changes == count:
                    os.kill(os.getpid(), signal.SIGKILL)
        Store(url).close()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status):
        break  # there are fewer changes than that
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    ended[count] = list(connection.iterdump())
    connection.close()
    child = os.fork()
    if child == 0:
        store = Store(url)
        os._exit(0 if store.project(3).title and store.events(3) == [] else 1)
    assert os.waitpid(child, 0)[1] == 0, count
print(json.dumps(ended))
"""
"""Upgrades one database after the other, and is killed before the first, second, … change; then it is opened again."""


def test_an_upgrade_that_is_killed_anywhere_leaves_what_was_there(tmp_path: Path) -> None:
    url, script = f"sqlite:///{tmp_path / 'nextmask.sqlite3'}", SCHEMAS / "schema_1.sql"
    command = [sys.executable, "-c", KILLED, url, str(script)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    ended = json.loads(run.stdout)
    (tmp_path / "again").mkdir()
    with closing(sqlite3.connect(make(tmp_path / "again", 1))) as connection:
        as_it_was = list(connection.iterdump())
    assert len(ended) > 15  # of which each is a kill at another change
    assert all(dump == as_it_was for dump in ended.values())


def test_processes_that_start_at_once_upgrade_once(tmp_path: Path) -> None:
    file = make(tmp_path, 1)
    before = rows_of(file)
    code = "import sys; from ml_backend.store import Store; Store(sys.argv[1]).close()"
    command = [sys.executable, "-c", code, f"sqlite:///{file}"]
    started = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [(process.communicate()[1], process.returncode) for process in started] == [("", 0)] * 4
    assert kept(without_schema(before), without_schema(rows_of(file))) == without_schema(before)
    assert rows_of(tmp_path / f"nextmask.sqlite3.before-{REVISION}") == before


def test_an_upgrade_without_room_for_a_copy_changes_nothing(tmp_path: Path) -> None:
    file = make(tmp_path, 2)
    before = rows_of(file)
    (tmp_path / f"nextmask.sqlite3.before-{REVISION}.part").mkdir()  # no file can be written there
    with pytest.raises(StoreError, match=r"cannot be opened: .*Check MODEL_DIR"):
        Store(f"sqlite:///{file}")
    assert rows_of(file) == before
