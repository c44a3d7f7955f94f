"""The class Store: the reads and writes of all tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ml_backend.store.behind import TasksBehind
from ml_backend.store.decisions import Decisions
from ml_backend.store.devices import Devices
from ml_backend.store.events import Events
from ml_backend.store.projects import Projects
from ml_backend.store.publications import Publications
from ml_backend.store.tables import DEVICES, PROJECTS, TASKS, TURNS


class Store(Projects, TasksBehind, Decisions, Publications, Devices, Events):
    """The state database, safe to use from several processes and threads.

    Methods that write raise DiskFull when there is no room, and then write nothing.

    Args:
        url: SQLAlchemy address, `sqlite:///file` or `postgresql+psycopg://…`.

    Raises:
        StoreError: the database cannot be opened or upgraded, or a later release wrote it.
        DiskFull: there is no room to open it.
    """

    def moved(self, folder: Path) -> None:
        """Adapt a copied database to its new MODEL_DIR: paths of files, and the state of projects.

        Args:
            folder: the new MODEL_DIR.
        """
        table, columns = TASKS.c, (TASKS.c.project_id, TASKS.c.task_id, TASKS.c.mask_file, TASKS.c.effort_file)
        has_files = sa.or_(table.mask_file != "", table.effort_file != "")
        with self._write() as connection:
            for row in connection.execute(sa.select(*columns).where(has_files)).all():
                values = {name: getattr(row, name) for name in ("mask_file", "effort_file")}
                names = {name: file_name(path, row.project_id) for name, path in values.items()}
                here = sa.and_(table.project_id == row.project_id, table.task_id == row.task_id)
                changed = {column: str(folder / name) for column, name in names.items() if name}
                if changed:
                    connection.execute(sa.update(TASKS).where(here).values(**changed))
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
    """Return a stored path relative to MODEL_DIR, wherever that was; empty when it is not in the project's folder."""
    _, folder, rest = path.rpartition(f"projects/{project_id}/")
    return f"{folder}{rest}" if folder else ""
