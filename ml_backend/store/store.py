"""The class Store: the reads and writes of all tables."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ml_backend.store.behind import TasksBehind
from ml_backend.store.decisions import Decisions
from ml_backend.store.devices import Devices
from ml_backend.store.events import Events
from ml_backend.store.projects import Projects
from ml_backend.store.publications import Publications
from ml_backend.store.tables import DEVICES, PROJECTS, TURNS


class Store(Projects, TasksBehind, Decisions, Publications, Devices, Events):
    """The state database, safe to use from several processes and threads.

    Methods that write raise DiskFull when there is no room, and then write nothing.

    Args:
        url: SQLAlchemy address, `sqlite:///file` or `postgresql+psycopg://…`.

    Raises:
        StoreError: the database cannot be opened or upgraded, or a later release wrote it.
        DiskFull: there is no room to open it.
    """

    def forget_leases(self) -> None:
        """Let no worker hold a lease in a copied database, whatever the copy says."""
        with self._write() as connection:
            forget_leases(connection)


def forget_leases(connection: sa.Connection) -> None:
    """Let no worker hold a lease in a copied database, whatever the copy says."""
    rest: dict[str, Any] = {"lease_owner": None, "lease_expires": None, "stage": ""}
    connection.execute(sa.update(PROJECTS).values(**rest))
    for table in (DEVICES, TURNS):
        connection.execute(sa.delete(table))
    working = PROJECTS.c.state.in_(("syncing", "training", "ranking", "publishing"))
    connection.execute(sa.update(PROJECTS).where(working).values(state="waiting"))


def file_name(path: str, project_id: int) -> str:
    """Return the key of a file that a database of 0.1 may name by its path; empty outside the project's folder."""
    _, folder, rest = path.rpartition(f"projects/{project_id}/")
    return f"{folder}{rest}" if folder else ""
