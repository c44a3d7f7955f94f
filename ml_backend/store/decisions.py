"""Reads and writes of the decisions of a stream about arriving tasks."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from ml_backend.store.tables import DECISIONS, META, TASKS, Decision
from ml_backend.store.transactions import Connections, chunks


class Decisions(Connections):
    """Decisions of the streams of projects."""

    def put_decisions(self, project_id: int, decisions: Iterable[Decision], *, state: tuple[str, str]) -> None:
        """Store decisions, and the state of the stream that made them, in one transaction.

        Args:
            decisions: of tasks of the project; each replaces an earlier one of its task.
            state: key and value; see `value`.
        """
        rows = [{"project_id": project_id, **vars(decision)} for decision in decisions]
        with self._write() as connection:
            changed = self._next_change(connection, project_id) if rows else 0  # what is kept joins the pool
            for chunk in chunks([decision["task_id"] for decision in rows], 500):
                here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.task_id.in_(chunk))
                connection.execute(sa.update(TASKS).where(here).values(changed=changed))
            self._upsert_in(connection, DECISIONS, rows, keys=("project_id", "task_id"))
            self._upsert_in(connection, META, [{"key": state[0], "value": state[1]}], keys=("key",))

    def decisions(self, project_id: int) -> dict[int, Decision]:
        """Return all decisions, by task id."""
        with self._read() as connection:
            rows = connection.execute(sa.select(DECISIONS).where(DECISIONS.c.project_id == project_id))
            fields = [{**row._mapping} for row in rows]
        for row in fields:
            del row["project_id"]
        return {row["task_id"]: Decision(**row) for row in fields}

    def count_decisions(self, project_id: int) -> tuple[int, int, int]:
        """Return the numbers of tasks that were kept, are passed over, and were returned to the queue."""
        c = DECISIONS.c
        kinds = (c.keep, sa.not_(sa.or_(c.keep, c.returned)), c.returned)
        counts = (sa.func.count().filter(kind) for kind in kinds)
        with self._read() as connection:
            row = connection.execute(sa.select(*counts).where(c.project_id == project_id)).one()
        return int(row[0]), int(row[1]), int(row[2])

    def passed_over(self, project_id: int) -> dict[int, Decision]:
        """Return the decisions to pass a task over that nobody reversed, by task id. A task may be labelled by now."""
        decisions = self.decisions(project_id)
        return {task: made for task, made in decisions.items() if not made.keep and not made.returned}

    def update_decisions(self, project_id: int, task_ids: Iterable[int], **fields: bool) -> None:
        """Set the columns `marked` or `returned` of the decisions about tasks."""
        with self._write() as connection:
            for chunk in chunks(list(task_ids), 500):
                here = sa.and_(DECISIONS.c.project_id == project_id, DECISIONS.c.task_id.in_(chunk))
                connection.execute(sa.update(DECISIONS).where(here).values(**fields))

    def set_task_status(self, project_id: int, task_ids: Iterable[int], status: str) -> None:
        """Set the status, unlabelled or passed, of those tasks that have no annotation."""
        ids = list(task_ids)
        if not ids:
            return
        with self._write() as connection:
            changed = self._next_change(connection, project_id)
            for chunk in chunks(ids, 500):
                here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.task_id.in_(chunk))
                without_annotation = sa.and_(here, TASKS.c.status.in_(("unlabelled", "passed")))
                connection.execute(sa.update(TASKS).where(without_annotation).values(status=status, changed=changed))
