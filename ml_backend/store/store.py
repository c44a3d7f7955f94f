"""All tables together; see the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ml_backend.store.decisions import Decisions
from ml_backend.store.events import Events
from ml_backend.store.projects import Projects
from ml_backend.store.publications import Publications
from ml_backend.store.rankings import Rankings
from ml_backend.store.tables import PROJECTS, TASKS
from ml_backend.store.tasks import Tasks


class Store(Projects, Tasks, Rankings, Decisions, Publications, Events):
    """The database. Safe for several processes and threads at once.

    Args:
        url: SQLAlchemy address, `sqlite:///file` or `postgresql+psycopg://…`.

    Raises:
        StoreError: it cannot be opened, or was written by another schema version.

    Every method that writes raises DiskFull where there is no room; nothing of the call is written then.
    """

    def moved(self, folder: Path) -> None:
        """Make a database that was copied here one of this installation.

        Args:
            folder: MODEL_DIR of now, where the files that tasks name are.
        """
        table, columns = TASKS.c, (TASKS.c.project_id, TASKS.c.task_id, TASKS.c.mask_file, TASKS.c.effort_file)
        has_files = sa.or_(table.mask_file != "", table.effort_file != "")
        with self._write() as connection:
            for row in connection.execute(sa.select(*columns).where(has_files)).all():
                values = {name: getattr(row, name) for name in ("mask_file", "effort_file")}
                names = {name: file_name(path, row.project_id) for name, path in values.items()}
                here = sa.and_(table.project_id == row.project_id, table.task_id == row.task_id)
                changed = {name: str(folder / found) for name, found in names.items() if found}
                if changed:
                    connection.execute(sa.update(TASKS).where(here).values(**changed))
            # Nobody works here yet, whoever did when the copy was made.
            rest: dict[str, Any] = {"lease_owner": None, "lease_expires": None, "stage": ""}
            connection.execute(sa.update(PROJECTS).values(**rest))
            working = PROJECTS.c.state.in_(("syncing", "training", "ranking", "publishing"))
            connection.execute(sa.update(PROJECTS).where(working).values(state="waiting"))


def file_name(path: str, project_id: int) -> str:
    """Return the name, relative to MODEL_DIR, of a file that a task names, wherever MODEL_DIR was then."""
    _, found, rest = path.rpartition(f"projects/{project_id}/")
    return f"{found}{rest}" if found else ""
