"""Copies the state from one database to another: from SQLite to PostgreSQL, and back.

All is written in one transaction, which ends when the target has as many rows of each table as the source: a copy that
is killed leaves the target as it was. Only the database is copied; the files in MODEL_DIR stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from ml_backend.errors import StoreError
from ml_backend.store.database import (
    REVISION,
    engine_of,
    lock_for_upgrade,
    naming_problems,
    parse,
    revision_of,
    shown_url,
)
from ml_backend.store.postgresql import Patience
from ml_backend.store.store import Store, forget_leases
from ml_backend.store.tables import DEVICES, EVENTS, META, METADATA, TURNS
from ml_backend.system.disk import naming_full_disk

_ROWS_AT_ONCE: Final = 1000
_TABLES: Final = [table for table in METADATA.sorted_tables if table not in (DEVICES, TURNS)]
"""Who trains where, and who waits for it, belongs to processes, too."""
_OF_PROCESSES: Final = ("clock_", "ready_asked_at", "schema", "server", "worker_failure", "worker_seen_at")
"""Beginnings of keys that belong to processes, machines or the schema; the target has its own."""

Progress = Callable[[int, int], None]
"""Called with the number of rows copied, and of all rows."""


def transfer(source: str, target: str, *, progress: Progress) -> dict[str, int]:
    """Copy the state into an empty database. Nothing may write to the source meanwhile: stop nextmask before.

    Args:
        source: SQLAlchemy address; its schema is upgraded where it is of an earlier release.
        target: SQLAlchemy address; its tables are made.
        progress: called during the work.

    Returns:
        Numbers of copied rows by table.

    Raises:
        StoreError: the source is not there, the target is not empty, one of them cannot be used, or counts differ.
        DiskFull: a SQLite target has no room.
    """
    refuse_missing(source)
    Store(source).close()  # it can be used, and is of this release
    with (
        _connection(source) as reading,
        _connection(target, immediate=True) as writing,
        reading.begin(),
        writing.begin(),
    ):
        _make_tables(writing)
        expected = {table.name: _count(reading, table) for table in _TABLES}
        done, total = 0, sum(expected.values())
        for table in _TABLES:
            for rows in reading.execute(_rows(table)).mappings().partitions(_ROWS_AT_ONCE):
                writing.execute(sa.insert(table), [dict(row) for row in rows])
                done += len(rows)
                progress(done, total)
        _finish(writing)
        _compare(expected, {table.name: _count(writing, table) for table in _TABLES})
    return expected


def refuse_missing(source: str) -> None:
    """Refuse a SQLite file that is not there, which opening it would make.

    Raises:
        StoreError: it is not.
    """
    file = _file_of(source)
    if file is not None and not file.exists():
        raise StoreError(f"There is no state to copy: {file} does not exist.", "Check MODEL_DIR.")


@contextmanager
def _connection(url: str, *, immediate: bool = False) -> Iterator[sa.Connection]:
    """Open a database as it is; of PostgreSQL's, all reads see one moment, and nothing takes too long."""
    with naming_problems(url) as parsed:
        file = _file_of(url)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        engine = engine_of(parsed, Patience())
        options: dict[str, Any] = {"immediate": immediate}
        if engine.dialect.name == "postgresql" and not immediate:
            options["isolation_level"] = "REPEATABLE READ"
        try:
            with engine.connect().execution_options(**options) as connection:
                if file is None:
                    yield connection
                else:
                    with naming_full_disk(file.parent):
                        yield connection
        finally:
            engine.dispose()


def _file_of(url: str) -> Path | None:
    parsed = parse(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _make_tables(connection: sa.Connection) -> None:
    """Make the tables of the target.

    Raises:
        StoreError: it has some with rows, or of another release.
    """
    from ml_backend.store.migrate import upgrade

    lock_for_upgrade(connection)
    revision = revision_of(connection)
    if revision is None:
        upgrade(connection, None, REVISION)
    elif revision != REVISION or any(_count(connection, table) for table in METADATA.sorted_tables):
        raise StoreError(
            f"{shown_url(connection.engine.url)} is not empty: a state is copied into an empty database.",
            "Name another one; or move it away, if it is of an earlier attempt.",
        )


def _rows(table: sa.Table) -> sa.Select[Any]:
    query = sa.select(table).order_by(*table.primary_key.columns).execution_options(yield_per=_ROWS_AT_ONCE)
    return query.where(_is_copied()) if table is META else query


def _count(connection: sa.Connection, table: sa.Table) -> int:
    query = sa.select(sa.func.count()).select_from(table)
    return int(connection.execute(query.where(_is_copied()) if table is META else query).scalar_one())


def _is_copied() -> sa.ColumnElement[bool]:
    return sa.not_(sa.or_(*(META.c.key.startswith(name, autoescape=True) for name in _OF_PROCESSES)))


def _finish(connection: sa.Connection) -> None:
    forget_leases(connection)
    if connection.dialect.name == "postgresql":  # the next event comes after those that were copied
        last = sa.select(sa.func.coalesce(sa.func.max(EVENTS.c.id), 0) + 1).scalar_subquery()
        connection.execute(sa.select(sa.func.setval(sa.func.pg_get_serial_sequence(EVENTS.name, "id"), last, False)))


def _compare(expected: Mapping[str, int], found: Mapping[str, int]) -> None:
    different = [f"{name}: {found[name]:,} of {count:,}" for name, count in expected.items() if found[name] != count]
    if different:
        raise StoreError(
            f"Rows were lost on the way ({'; '.join(different)}), so nothing was copied.",
            "Stop nextmask and try again.",
        )
