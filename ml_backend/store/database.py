"""Opens the database: configures it for several processes, and brings the schema up to date."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ml_backend.errors import StoreError
from ml_backend.store.postgresql import Patience, make_engine, reason_of, remedy_of, with_driver
from ml_backend.store.tables import META
from ml_backend.system.disk import naming_full_disk

logger = logging.getLogger(__name__)

REVISION = "0011"
"""The last revision in `migrations`."""

_BUSY_SECONDS = 20.0  # that a connection waits for the write lock
_BEFORE_REVISIONS = {"1": "0001", "2": "0002"}
_REVISION_TABLE = "alembic_version"
_ADVISORY_LOCK = 6_398_277_843  # any number that no other program uses


def open_database(url: str, patience: Patience | None = None) -> sa.Engine:
    """Open the database; make its tables when it has none, and upgrade those of an earlier release.

    Args:
        url: SQLAlchemy address; the folder of a SQLite file is made when needed.
        patience: makes the connections to PostgreSQL.

    Raises:
        StoreError: the address is invalid, it cannot be opened or upgraded, or a later release wrote it.
        DiskFull: SQLite needs a few pages of space even to read.
    """
    with naming_problems(url) as parsed:
        if parsed.drivername.startswith("sqlite") and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = engine_of(parsed, patience or Patience())
        is_file = engine.dialect.name == "sqlite" and parsed.database
        try:
            with naming_full_disk(Path(parsed.database or "").parent) if is_file else nullcontext():
                _bring_up_to_date(engine)
        except BaseException:
            engine.dispose()
            raise
    return engine


def engine_of(url: sa.URL, patience: Patience) -> sa.Engine:
    """Return an engine for an address of `parse`; nothing is opened, made or upgraded yet."""
    if url.get_backend_name() == "postgresql":
        return make_engine(url, patience)
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _configure_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def naming_problems(url: str) -> Iterator[sa.URL]:
    """Yield the parsed address, and say of a database that cannot be opened which one, why, and what to do.

    Raises:
        StoreError: in place of the errors of database and driver.
    """
    parsed = parse(url)
    try:
        yield parsed
    except (sa.exc.SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
        reason = reason_of(error)
        raise StoreError(
            f"The state database {shown_url(parsed)} cannot be opened: {reason}.", remedy_of(reason, _setting(parsed))
        ) from error


def parse(url: str) -> sa.URL:
    """Return an address, with the driver that nextmask works with where it names none.

    Raises:
        StoreError: it is none. It may hold a password, and is not shown.
    """
    try:
        return with_driver(sa.make_url(url))
    except (sa.exc.ArgumentError, ValueError):
        raise StoreError(
            "The state database cannot be opened: NEXTMASK_DATABASE_URL is no SQLAlchemy address, such as "
            "postgresql+psycopg://user:password@host:5432/name."
        ) from None


def shown_url(url: sa.URL) -> str:
    """Return an address without its password."""
    return url.render_as_string(hide_password=True)


def _setting(url: sa.URL) -> str:
    return "MODEL_DIR" if url.drivername.startswith("sqlite") else "NEXTMASK_DATABASE_URL"


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # Python's driver would begin transactions late; `_begin_sqlite` begins them instead.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin_sqlite(connection: sa.Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _bring_up_to_date(engine: sa.Engine) -> None:
    """Make or upgrade the schema in a single transaction, so that a killed upgrade changes nothing.

    Of processes that start at the same time, the first does it, and the others wait.
    """
    with engine.connect() as connection:  # usually there is nothing to do: no need for the lock and Alembic
        if revision_of(connection) == REVISION:
            return
    with engine.connect().execution_options(immediate=True) as connection, connection.begin():
        lock_for_upgrade(connection)
        revision = revision_of(connection)
        if revision == REVISION:
            return
        from ml_backend.store.migrate import upgrade

        copy = _keep_copy(engine) if revision is not None else None
        if not upgrade(connection, revision, REVISION):
            raise other_release(engine.url, revision)
        if revision is not None:
            kept = f"; what it was before is kept in {copy}" if copy else ""
            logger.info("the state database is upgraded from schema %s to %s%s", revision, REVISION, kept)


def lock_for_upgrade(connection: sa.Connection) -> None:
    """Let no other process make or upgrade tables until this transaction ends, however long that takes.

    Of SQLite, the transaction has the only lock for writing.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")


def other_release(url: sa.URL, revision: str | None) -> StoreError:
    """Return the error of a database that another release wrote, or another program."""
    away = "move MODEL_DIR away" if url.drivername.startswith("sqlite") else "name an empty database"
    return StoreError(
        f"The state database has schema {revision}, this nextmask needs {REVISION}.",
        f"Use the nextmask that wrote it, or {away}: labels stay in Label Studio and are read again.",
    )


def revision_of(connection: sa.Connection) -> str | None:
    """Return the revision of the schema; None when there are no tables.

    Databases of the first two revisions have no table for it: they keep it in `meta`.
    """
    tables = set(sa.inspect(connection).get_table_names())
    if _REVISION_TABLE in tables:
        query = f"SELECT version_num FROM {_REVISION_TABLE} ORDER BY 1"  # noqa: S608 (a constant)
        return ", ".join(str(row[0]) for row in connection.exec_driver_sql(query)) or None
    if META.name not in tables:
        return None
    schema = connection.execute(sa.select(META.c.value).where(META.c.key == "schema")).scalar()
    return None if schema is None else _BEFORE_REVISIONS.get(schema, schema)


def look_at_schema(url: str) -> str | None:
    """Return the revision of a database's schema, which is neither made nor upgraded; None when it has no tables.

    Raises:
        StoreError: it cannot be opened or written, or another release wrote it.
    """
    with naming_problems(url) as parsed:
        engine = engine_of(parsed, Patience())
        try:
            with engine.connect() as connection:
                revision = revision_of(connection)
                if revision is not None and revision != REVISION:
                    from ml_backend.store.migrate import is_known

                    if not is_known(connection, revision):
                        raise other_release(parsed, revision)
        finally:
            engine.dispose()
    return revision


def _keep_copy(engine: sa.Engine) -> Path | None:
    """Copy a SQLite file, before an upgrade, to a file beside it; None for other databases, and for those in memory.

    The transaction of the upgrade holds the write lock and has written nothing yet.
    """
    if engine.dialect.name != "sqlite" or not engine.url.database or engine.url.database == ":memory:":
        return None
    path = Path(engine.url.database)
    copy = path.with_name(f"{path.name}.before-{REVISION}")
    unfinished = copy.with_name(f"{copy.name}.part")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(unfinished)) as target:
        source.backup(target)
    unfinished.replace(copy)
    return copy
