"""Reads and writes of published predictions, by version."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from ml_backend.store.tables import PROJECTS, PUBLISHED, TASKS, VERSIONS
from ml_backend.store.transactions import Connections


class Publications(Connections):
    """Published predictions, and the versions that they belong to."""

    def put_published(self, project_id: int, version: str, rows: Iterable[tuple[int, float, bytes | None]]) -> None:
        """Store the predictions that annotators are shown.

        Args:
            project_id: Label Studio's.
            version: name of their version.
            rows: task id, score in [0, 1], and the mask as a PNG of class indices (None: no mask).
        """
        now = self.time()
        keys = {"project_id": project_id, "version": version, "published_at": now}
        values = [keys | {"task_id": task, "score": score, "mask": mask} for task, score, mask in rows]
        if not values:
            return
        self._upsert(PUBLISHED, values, keys=("project_id", "version", "task_id"))
        with self._write() as connection:
            # Stored before the version is served: after a crash that prevents this, it must still be pruned.
            connection.execute(self._insert(VERSIONS).values(**keys).on_conflict_do_nothing())

    def published_mask(self, project_id: int, version: str, task_id: int) -> bytes | None:
        """Return the mask of a task's prediction as a PNG of class indices; None when it had none."""
        table = PUBLISHED.c
        here = sa.and_(table.project_id == project_id, table.version == version, table.task_id == task_id)
        with self._read() as connection:
            return connection.execute(sa.select(table.mask).where(here)).scalar()

    def queue_length(self, project_id: int, version: str) -> int:
        """Return the number of unlabelled tasks with a prediction of a version."""
        here = sa.and_(PUBLISHED.c.project_id == TASKS.c.project_id, PUBLISHED.c.task_id == TASKS.c.task_id)
        query = sa.select(sa.func.count()).select_from(TASKS).join(PUBLISHED, here)
        query = query.where(TASKS.c.project_id == project_id, TASKS.c.status == "unlabelled")
        with self._read() as connection:
            return int(connection.execute(query.where(PUBLISHED.c.version == version)).scalar_one())

    def mark_published(self, project_id: int, version: str) -> None:
        """Make `version` the version that is shown; the version before begins to retire."""
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
        """Return the versions that were retired before a time of `steady_time`, the oldest first."""
        here = sa.and_(VERSIONS.c.project_id == project_id, VERSIONS.c.retired_at < before)
        query = sa.select(VERSIONS.c.version).where(here).order_by(VERSIONS.c.retired_at, VERSIONS.c.version)
        with self._read() as connection:
            return list(connection.execute(query).scalars())

    def versions(self, project_id: int) -> list[str]:
        """Return the published versions that are not pruned, the newest first."""
        here = VERSIONS.c.project_id == project_id
        query = sa.select(VERSIONS.c.version).where(here).order_by(VERSIONS.c.published_at.desc())
        with self._read() as connection:
            return list(connection.execute(query).scalars())

    def forget_version(self, project_id: int, version: str) -> None:
        """Delete a pruned version and its predictions; labels that began with them stay."""
        mine = sa.and_(TASKS.c.project_id == project_id, TASKS.c.shown_version == version)
        # Masks that labels began with stay: the labels are read again when the configuration changes.
        in_use = PUBLISHED.c.task_id.in_(sa.select(TASKS.c.task_id).where(mine))
        with self._write() as connection:
            for table, more in ((VERSIONS, sa.true()), (PUBLISHED, sa.not_(in_use))):
                here = sa.and_(table.c.project_id == project_id, table.c.version == version, more)
                connection.execute(sa.delete(table).where(here))
