"""Transactions on the database, values and counters by key, and a clock that changes of the machine's do not move."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ml_backend.store.database import open_database
from ml_backend.store.tables import META
from ml_backend.system.clock import boot_id, boot_seconds
from ml_backend.system.disk import naming_full_disk


class Connections:
    """An open database; the base class of all reads and writes. See `Store`.

    Args:
        url: SQLAlchemy address.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_database(url)
        database = self._engine.url.database or ""
        self._started_at: float | None = None
        self._folder = Path(database).parent if self._engine.dialect.name == "sqlite" else None
        self._insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # -- time ---------------------------------------------------------------------------------------------------------
    def steady_time(self) -> float:
        """Return the seconds since the epoch by a clock that runs on evenly when the machine's clock is set.

        All processes agree on it until the machine is restarted: the first caller stores the difference between the
        machine's clock and the time since its start.
        """
        if self._started_at is None:
            now = time.time() - boot_seconds()
            self._started_at = float(self.set_default(f"clock_{boot_id()}", repr(now)))
        return self._started_at + boot_seconds()

    # -- values by key ------------------------------------------------------------------------------------------------
    def set_default(self, key: str, value: str) -> str:
        """Return the value stored under a key, after storing `value` there when the key has none."""
        with self._write() as connection:
            connection.execute(self._insert(META).values(key=key, value=value).on_conflict_do_nothing())
            return str(connection.execute(sa.select(META.c.value).where(META.c.key == key)).scalar_one())

    def value(self, key: str) -> str | None:
        """Return the value stored under a key; None when the key has none."""
        with self._read() as connection:
            return connection.execute(sa.select(META.c.value).where(META.c.key == key)).scalar()

    def set_value(self, key: str, value: str) -> None:
        """Store a value under a key; it replaces an earlier value."""
        self._upsert(META, [{"key": key, "value": value}], keys=("key",))

    def count(self, key: str) -> None:
        """Add 1 to the counter of a key. Counters are never reset."""
        with self._write() as connection:
            self._count_in(connection, key)

    def counted(self, key: str) -> int:
        """Return the counter of a key; 0 when nothing was counted."""
        return int(self.value(f"count_{key}") or 0)

    def _count_in(self, connection: sa.Connection, key: str) -> int:
        """Add 1 to the counter of a key in a transaction that is open, and return the counter."""
        more = sa.cast(sa.cast(META.c.value, sa.BigInteger) + 1, sa.Text)
        statement = self._insert(META).values(key=f"count_{key}", value="1")
        connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": more}))
        counter = sa.select(META.c.value).where(META.c.key == f"count_{key}")
        return int(connection.execute(counter).scalar_one() or 0)

    def _next_change(self, connection: sa.Connection, project_id: int) -> int:
        """Return the number of a change of a project's tasks, which every row that it writes carries.

        Other writers of the project's tasks wait until the transaction ends: numbers are seen in their order.
        """
        return self._count_in(connection, f"changes_{project_id}")

    def _upsert(self, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, keys: Sequence[str]) -> None:
        if rows:
            with self._write() as connection:
                self._upsert_in(connection, table, rows, keys=keys)

    def _upsert_in(
        self, connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, keys: Sequence[str]
    ) -> None:
        """Insert rows, all with the same columns, or change these columns where they are."""
        if not rows:
            return
        statement = self._insert(table)
        changes = {name: statement.excluded[name] for name in rows[0] if name not in keys}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes), list(rows))

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with self._naming_full_disk(), self._engine.connect() as connection:
            yield connection

    def _naming_full_disk(self) -> AbstractContextManager[None]:
        return nullcontext() if self._folder is None else naming_full_disk(self._folder)

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        """Begin a transaction with SQLite's write lock, since an upgrade from a read lock could not wait for it."""
        with (
            self._naming_full_disk(),
            self._engine.connect().execution_options(immediate=True) as connection,
            connection.begin(),
        ):
            yield connection


_Value = TypeVar("_Value")


def chunks(values: list[_Value], size: int) -> Iterator[list[_Value]]:
    """Yield parts of a list, of at most `size` values, which fit into an SQL statement."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
