"""What annotators are shown, and were: predictions by version."""

from __future__ import annotations

import time
from collections.abc import Iterable

import sqlalchemy as sa

from ml_backend.store.tables import PROJECTS, PUBLISHED, TASKS, VERSIONS
from ml_backend.store.transactions import Connections


class Publications(Connections):
    """Reads and writes of published predictions and versions."""

    def put_published(self, project_id: int, version: str, rows: Iterable[tuple[int, float, bytes | None]]) -> None:
        """Keep what annotators are shown: (task id, score, PNG of the predicted mask or None)."""
        now = time.time()
        keys = {"project_id": project_id, "version": version, "published_at": now}
        values = [keys | {"task_id": task, "score": score, "mask": mask} for task, score, mask in rows]
        if not values:
            return
        self._upsert(PUBLISHED, values, keys=("project_id", "version", "task_id"))
        with self._write() as connection:
            # Noted before it is served: where a crash keeps it from ever being, it must be pruned all the same.
            connection.execute(self._insert(VERSIONS).values(**keys).on_conflict_do_nothing())

    def published_mask(self, project_id: int, version: str, task_id: int) -> bytes | None:
        """Return the PNG of the mask that was shown with this version, or None."""
        table = PUBLISHED.c
        here = sa.and_(table.project_id == project_id, table.version == version, table.task_id == task_id)
        with self._read() as connection:
            return connection.execute(sa.select(table.mask).where(here)).scalar()

    def queue_length(self, project_id: int, version: str) -> int:
        """Return how many unlabelled tasks carry that version's prediction."""
        here = sa.and_(PUBLISHED.c.project_id == TASKS.c.project_id, PUBLISHED.c.task_id == TASKS.c.task_id)
        query = sa.select(sa.func.count()).select_from(TASKS).join(PUBLISHED, here)
        query = query.where(TASKS.c.project_id == project_id, TASKS.c.status == "unlabelled")
        with self._read() as connection:
            return int(connection.execute(query.where(PUBLISHED.c.version == version)).scalar_one())

    def mark_published(self, project_id: int, version: str) -> None:
        """Make `version` the one that is shown; the one before starts to retire."""
        now = self.steady_time()
        here = VERSIONS.c.project_id == project_id
        others = sa.and_(here, VERSIONS.c.version != version, VERSIONS.c.retired_at.is_(None))
        row = {"project_id": project_id, "version": version, "published_at": now, "retired_at": None}
        with self._write() as connection:
            connection.execute(sa.update(VERSIONS).where(others).values(retired_at=now))
            statement = self._insert(VERSIONS).values(**row)
            keys = ["project_id", "version"]
            connection.execute(statement.on_conflict_do_update(index_elements=keys, set_={"retired_at": None}))
            mine = PROJECTS.c.id == project_id
            connection.execute(sa.update(PROJECTS).where(mine).values(published_version=version))

    def retired_versions(self, project_id: int, *, before: float) -> list[str]:
        """Return versions that were retired before that time (as `steady_time` has it), longest ago first."""
        here = sa.and_(VERSIONS.c.project_id == project_id, VERSIONS.c.retired_at < before)
        query = sa.select(VERSIONS.c.version).where(here).order_by(VERSIONS.c.retired_at, VERSIONS.c.version)
        with self._read() as connection:
            return list(connection.execute(query).scalars())

    def versions(self, project_id: int) -> list[str]:
        """Return the published versions whose predictions the host still holds, newest first."""
        here = VERSIONS.c.project_id == project_id
        query = sa.select(VERSIONS.c.version).where(here).order_by(VERSIONS.c.published_at.desc())
        with self._read() as connection:
            return list(connection.execute(query).scalars())

    def forget_version(self, project_id: int, version: str) -> None:
        """Drop what is kept of a pruned version; what annotators made of it stays with the tasks."""
        mine = sa.and_(TASKS.c.project_id == project_id, TASKS.c.shown_version == version)
        # Labels that began with a mask of this version are read again when the configuration changes.
        in_use = PUBLISHED.c.task_id.in_(sa.select(TASKS.c.task_id).where(mine))
        with self._write() as connection:
            for table, more in ((VERSIONS, sa.true()), (PUBLISHED, sa.not_(in_use))):
                here = sa.and_(table.c.project_id == project_id, table.c.version == version, more)
                connection.execute(sa.delete(table).where(here))
