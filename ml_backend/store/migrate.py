"""Takes the steps in `migrations`; the only module that imports Alembic, which takes a while."""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

logging.getLogger("alembic").setLevel(logging.WARNING)  # what it did is told in a sentence of our own


def upgrade(connection: sa.Connection, found: str | None, wanted: str) -> bool:
    """Take the steps from one revision to another, in the transaction that the connection is in.

    Args:
        found: the revision that the database has, noted in it or not; None: it has no tables.

    Returns:
        Whether `found` is known; nothing was done where it is not.
    """
    config = configuration(connection)
    try:
        if found is not None:
            ScriptDirectory.from_config(config).get_revision(found)
            if not MigrationContext.configure(connection).get_current_heads():
                command.stamp(config, found)
    except CommandError:
        return False
    command.upgrade(config, wanted)
    return True


def configuration(connection: sa.Connection) -> Config:
    """Return what Alembic's commands need to work on an open connection."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
