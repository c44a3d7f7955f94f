"""Transactions on the database, values and counters by key, and the clocks that leases and pauses go by."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ml_backend.errors import StoreUnavailable
from ml_backend.store.database import open_database, shown_url
from ml_backend.store.postgresql import Patience, is_away, reason_of
from ml_backend.store.tables import META
from ml_backend.system.clock import boot_id, boot_seconds
from ml_backend.system.disk import naming_full_disk


class Connections:
    """An open database; the base class of all reads and writes. See `Store`.

    Args:
        url: SQLAlchemy address.
    """

    def __init__(self, url: str) -> None:
        self._patience = Patience()
        self._engine = open_database(url, self._patience)
        database = self._engine.url.database or ""
        self._started_at: float | None = None
        self._is_postgresql = self._engine.dialect.name == "postgresql"
        self._folder = Path(database).parent if self._engine.dialect.name == "sqlite" else None
        self._insert = postgresql.insert if self._is_postgresql else sqlite.insert

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def wait_for_database(self, seconds: float) -> None:
        """Let calls wait for a database that is away, until it has been away for so long; 0: they fail at once."""
        self._patience.seconds = seconds

    # -- time ---------------------------------------------------------------------------------------------------------
    def time(self) -> float:
        """Return the seconds since the epoch by the clock that leases go by: the database's, or with SQLite our own."""
        if not self._is_postgresql:
            return time.time()
        with self._read() as connection:
            return float(connection.execute(sa.select(self._now())).scalar_one())

    def _now(self) -> sa.ColumnElement[float]:
        """Return `time` as an expression of SQL: processes of several machines agree on it, whatever their clocks."""
        if not self._is_postgresql:
            return sa.literal(time.time(), sa.Float)
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)

    def steady_time(self) -> float:
        """Return the seconds since the epoch by a clock that runs on evenly when a worker's clock is set.

        It is PostgreSQL's clock. With SQLite, all processes agree until the machine is restarted: the first caller
        stores the difference between the machine's clock and the time since its start.
        """
        if self._is_postgresql:
            return self.time()
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

    def values(self, prefix: str) -> dict[str, str]:
        """Return the values of all keys that begin with `prefix`, by key."""
        here = META.c.key.startswith(prefix, autoescape=True)
        with self._read() as connection:
            rows = connection.execute(sa.select(META.c.key, META.c.value).where(here).order_by(META.c.key))
            return {row[0]: row[1] or "" for row in rows}

    def delete_values(self, keys: Sequence[str]) -> None:
        """Delete what is stored under keys."""
        if keys:
            with self._write() as connection:
                connection.execute(sa.delete(META).where(META.c.key.in_(keys)))

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
        # In one order, so that of two that write the same rows at once neither waits for the other.
        rows = sorted(rows, key=lambda row: [row[key] for key in keys])
        statement = self._insert(table)
        changes = {name: statement.excluded[name] for name in rows[0] if name not in keys}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes), list(rows))

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        """Begin a transaction in which all reads see the same state."""
        options = {"isolation_level": "REPEATABLE READ"} if self._is_postgresql else {}
        with self._naming_problems(), self._engine.connect().execution_options(**options) as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        """Begin a transaction with SQLite's write lock, since an upgrade from a read lock could not wait for it."""
        with (
            self._naming_problems(),
            self._engine.connect().execution_options(immediate=True) as connection,
            connection.begin(),
        ):
            yield connection

    def _naming_problems(self) -> AbstractContextManager[None]:
        if self._folder is not None:
            return naming_full_disk(self._folder)
        return self._naming_outages() if self._is_postgresql else nullcontext()

    @contextmanager
    def _naming_outages(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.SQLAlchemyError as error:
            if not is_away(error):
                raise
            raise StoreUnavailable(
                f"The state database {shown_url(self._engine.url)} cannot be used now: {reason_of(error)}.",
                "Work goes on by itself when it can.",
            ) from error


_Value = TypeVar("_Value")


def chunks(values: list[_Value], size: int) -> Iterator[list[_Value]]:
    """Yield parts of a list, of at most `size` values, which fit into an SQL statement."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
