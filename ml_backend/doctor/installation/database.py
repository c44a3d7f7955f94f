"""Whether the state database can be used. It is not created, upgraded or written to."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from ml_backend.doctor.findings import Finding, note, ok, problem, warning
from ml_backend.doctor.running import Missing
from ml_backend.errors import StoreError
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.store.database import REVISION, look_at_schema, parse, shown_url

_LOCK_SECONDS = 3.0
_CLOCK_SECONDS = 30.0


def check_database(settings: Settings) -> Iterator[Finding]:
    """Say whether the state database can be used; it is not created, upgraded or written to."""
    path = _database_file(settings)
    if path is None:
        yield _check_server(settings.effective_database_url)
    elif not path.exists():
        yield note("database", f"{path} is not there yet; it is created at the first start")
    else:
        yield from _check_sqlite(path)


def open_store(settings: Settings) -> Store:
    """Open the state as it is.

    Raises:
        Missing: there is none yet, or it cannot be used as it is.
    """
    path = _database_file(settings)
    if path is not None and not path.exists():
        raise Missing("nothing was connected from here yet")
    if path is None and look_at_schema(settings.effective_database_url) != REVISION:
        raise Missing("the state database has no tables yet, or is to be upgraded first")
    if path is not None and (bad := next((finding for finding in _check_sqlite(path) if finding.level != "ok"), None)):
        raise Missing("the state database cannot be used" if bad.level == "problem" else "it is to be upgraded first")
    return Store(settings.effective_database_url)


def _check_server(url: str) -> Finding:
    shown, revision = shown_url(parse(url)), look_at_schema(url)
    if revision is None:
        return note("database", f"{shown} has no tables yet; they are made at the first start")
    if revision != REVISION:
        remedy = "Take a pg_dump before: it is upgraded at the next start"
        return note("database", f"{shown} is of an earlier release (schema {revision})", remedy=remedy)
    with closing(Store(url)) as store:
        ahead = store.time() - time.time()
    if abs(ahead) > _CLOCK_SECONDS:
        which = "ahead of" if ahead > 0 else "behind"
        message = f"The clock of {shown} is {abs(ahead):,.0f} s {which} this machine's"
        why = "Leases go by the database's clock, so no work is lost; times in logs and on pages differ."
        return warning("database", message, why, "Let both machines take their time from the network (NTP)")
    return ok("database", shown)


def _database_file(settings: Settings) -> Path | None:
    try:
        url = sa.make_url(settings.effective_database_url)
    except sa.exc.ArgumentError:
        return None  # Store says so, without the password that it may hold
    return Path(url.database) if url.drivername.startswith("sqlite") and url.database else None


def _check_sqlite(path: Path) -> Iterator[Finding]:
    away = f"Stop nextmask, and restore a backup, or move {path} away: labels stay in Label Studio and are read again"
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=_LOCK_SECONDS)) as connection:
            connection.isolation_level = None
            damage = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            if damage != "ok":
                yield problem("database", f"{path} is damaged: {damage}", "Nothing is trained or ranked.", away)
                return
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            yield _check_schema(path, connection)
    except sqlite3.Error as error:
        if "locked" in str(error):
            message = f"{path} has been locked by another program for more than {_LOCK_SECONDS:g} s"
            remedy = f"Find it with: fuser {path}. A backup program or a file manager must not hold it"
            yield problem("database", message, "Neither labels nor rankings can be saved.", remedy)
        else:
            yield problem("database", f"{path} cannot be used: {error}", "Nothing is trained or ranked.", away)


def _check_schema(path: Path, connection: sqlite3.Connection) -> Finding:
    """Let the store open a copy of the tables, without what is in them but the schema's version."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        with closing(sqlite3.connect(copy)) as target:
            for (statement,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"):
                target.execute(statement)
            for table, rows in _schema_rows(connection).items():
                for row in rows:
                    target.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
            target.commit()
        before = schema_at(copy)
        try:
            Store(f"sqlite:///{copy}").close()
        except StoreError as error:
            remedy = "Install the release of nextmask that wrote it, or a later one; or set MODEL_DIR to another folder"
            return problem("database", str(error).replace(str(copy), str(path)), "No command works with it.", remedy)
        if schema_at(copy) != before:
            return note("database", f"{path} is of an earlier release; it is upgraded at the next start")
    return ok("database", str(path))


def schema_at(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return the rows of an SQLite file that tell its schema's version: table -> rows."""
    with closing(sqlite3.connect(path)) as connection:
        return _schema_rows(connection)


def _schema_rows(connection: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """Return the rows that tell the schema's version, and no others: those may hold secrets."""
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    wanted = {"meta": " WHERE key = 'schema'", "alembic_version": ""}
    return {
        table: sorted(connection.execute(f"SELECT * FROM {table}{which}"))  # noqa: S608 (names of ours)
        for table, which in wanted.items()
        if table in there
    }
