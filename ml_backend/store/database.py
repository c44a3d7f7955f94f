"""Opens the database: SQLite as several processes need it, and the schema's version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ml_backend.errors import StoreError
from ml_backend.store.tables import META, METADATA

SCHEMA_VERSION = 2
_ADDITIVE = frozenset({"1"})
"""Earlier schemas that lack tables and columns and differ in nothing else."""
BUSY_SECONDS = 20.0


def open_database(url: str) -> sa.Engine:
    """Open the database and make its tables where there are none.

    Raises:
        StoreError: the address is invalid, it cannot be opened, or another schema version wrote it.
    """
    parsed = _parse(url)
    try:
        if parsed.drivername.startswith("sqlite") and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(parsed)
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", _configure_sqlite)
            sa.event.listen(engine, "begin", _begin_sqlite)
        try:
            _create_schema(engine)
        except BaseException:
            engine.dispose()
            raise
    except (sa.exc.SQLAlchemyError, OSError, ImportError) as error:
        reason = str(error).splitlines()[0]  # the rest is a link
        shown = parsed.render_as_string(hide_password=True)
        raise StoreError(f"The state database {shown} cannot be opened: {reason}. Check {_setting(parsed)}.") from error
    return engine


def _parse(url: str) -> sa.URL:
    try:
        return sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        # The address may hold a password: it is not shown.
        raise StoreError(
            "The state database cannot be opened: NEXTMASK_DATABASE_URL is no SQLAlchemy address, such as "
            "postgresql+psycopg://user:password@host:5432/name."
        ) from None


def _setting(url: sa.URL) -> str:
    return "MODEL_DIR" if url.drivername.startswith("sqlite") else "NEXTMASK_DATABASE_URL"


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # Python's driver would begin transactions by itself, and late; we begin them (see _begin_sqlite).
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin_sqlite(connection: sa.Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _create_schema(engine: sa.Engine) -> None:
    with engine.connect().execution_options(immediate=True) as connection, connection.begin():
        METADATA.create_all(connection)
        found = connection.execute(sa.select(META.c.value).where(META.c.key == "schema")).scalar()
        if found is None:
            connection.execute(sa.insert(META).values(key="schema", value=str(SCHEMA_VERSION)))
        elif found in _ADDITIVE:
            _add_columns(connection)
            schema = sa.update(META).where(META.c.key == "schema")
            connection.execute(schema.values(value=str(SCHEMA_VERSION)))
        elif found != str(SCHEMA_VERSION):
            raise StoreError(
                f"The state database has schema {found}, this nextmask needs {SCHEMA_VERSION}. Use the nextmask that"
                " wrote it, or move MODEL_DIR away: labels stay in Label Studio and are read again."
            )


def _add_columns(connection: sa.Connection) -> None:
    """Add the columns that tables of an earlier schema lack; their rows get what the database fills in."""
    known = sa.inspect(connection)
    for table in METADATA.sorted_tables:
        there = {column["name"] for column in known.get_columns(table.name)}
        for column in (column for column in table.columns if column.name not in there):
            definition = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {definition}")
