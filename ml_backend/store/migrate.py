"""Runs the migrations. Only this module imports Alembic, which takes a while."""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

logging.getLogger("alembic").setLevel(logging.WARNING)  # `database` logs a sentence instead


def upgrade(connection: sa.Connection, current: str | None, target: str) -> bool:
    """Run the migrations from one revision to another, in the transaction of the connection.

    Args:
        connection: with a transaction begun.
        current: revision of the database, which need not be stored in it; None: it has no tables.
        target: revision to upgrade to.

    Returns:
        Whether `current` is a known revision; otherwise nothing is done.
    """
    config = configuration(connection)
    try:
        if current is not None:
            ScriptDirectory.from_config(config).get_revision(current)
            if not MigrationContext.configure(connection).get_current_heads():
                command.stamp(config, current)
    except CommandError:
        return False
    command.upgrade(config, target)
    return True


def is_known(connection: sa.Connection, revision: str) -> bool:
    """Whether a revision is one of this release's."""
    try:
        ScriptDirectory.from_config(configuration(connection)).get_revision(revision)
    except CommandError:
        return False
    return True


def configuration(connection: sa.Connection) -> Config:
    """Return Alembic's configuration for commands on an open connection."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
