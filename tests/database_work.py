"""How much a store asks of its database: rows that it fetches and writes, and steps that SQLite takes for that."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from ml_backend.store import Store

STEPS = 100
"""SQLite tells after so many instructions of its virtual machine."""


@dataclass
class DatabaseWork:
    """Rows that were fetched, and hundreds of instructions that were carried out."""

    rows: int = 0
    steps: int = 0
    connections: list[sqlite3.Connection] = field(default_factory=list)

    def of(self, work: Callable[[], object]) -> tuple[int, int]:
        """Return the rows and steps that something takes."""
        before = self.rows, self.steps
        work()
        return self.rows - before[0], self.steps - before[1]

    def written_by(self, work: Callable[[], object]) -> int:
        """Return the rows that something writes."""
        before = self._written()
        work()
        return self._written() - before

    def _written(self) -> int:
        return sum(connection.total_changes for connection in self.connections)

    def _fetch(self, _cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[Any, ...]:
        self.rows += 1
        return row

    def _step(self) -> int:
        self.steps += 1
        return 0  # go on

    def watch(self, connection: Any, _record: object) -> None:
        """Count what a connection does from now on."""
        self.connections.append(connection)
        connection.row_factory = self._fetch
        connection.set_progress_handler(self._step, STEPS)


@contextmanager
def watched(store: Store) -> Iterator[DatabaseWork]:
    """Count what a store asks of its database."""
    work, engine = DatabaseWork(), store._engine  # there is no other way to see what is fetched
    engine.dispose()  # connections that are open already would not be watched
    sa.event.listen(engine, "connect", work.watch)
    try:
        yield work
    finally:
        sa.event.remove(engine, "connect", work.watch)
        engine.dispose()
