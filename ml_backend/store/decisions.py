"""Reads and writes of the decisions of a stream about arriving tasks."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from ml_backend.store.tables import DECISIONS, META, RANKING, TASKS, Decision
from ml_backend.store.transactions import Connections, chunks

_PASSED = sa.not_(sa.or_(DECISIONS.c.keep, DECISIONS.c.returned))


def _is_decided(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether there is a decision about a task, one of some kind."""
    same = sa.and_(DECISIONS.c.project_id == TASKS.c.project_id, DECISIONS.c.task_id == TASKS.c.task_id)
    return sa.exists().where(same, *conditions)


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
        """Return all decisions by task id, in the order of ids."""
        query = sa.select(DECISIONS).where(DECISIONS.c.project_id == project_id).order_by(DECISIONS.c.task_id)
        with self._read() as connection:
            rows = connection.execute(query)
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

    def count_marked(self, project_id: int) -> int:
        """Return how many tasks are passed over and shown as that in Label Studio."""
        here = sa.and_(DECISIONS.c.project_id == project_id, _PASSED, DECISIONS.c.marked)
        with self._read() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(DECISIONS).where(here)).scalar_one())

    def unmarked(self, project_id: int) -> list[int]:
        """Return the tasks, by id, that are passed over and not shown as that in Label Studio."""
        return self._ids(project_id, TASKS.c.status == "passed", _is_decided(_PASSED, sa.not_(DECISIONS.c.marked)))

    def wrong_statuses(self, project_id: int) -> tuple[list[int], list[int]]:
        """Return the tasks that a decision passed over and whose status does not say so, and those of the reverse."""
        leaving = self._ids(project_id, TASKS.c.status == "unlabelled", _is_decided(_PASSED))
        return leaving, self._ids(project_id, TASKS.c.status == "passed", sa.not_(_is_decided(_PASSED)))

    def passed_audits(self, project_id: int) -> list[int]:
        """Return the tasks of audit images, by id, that are passed over."""
        return self._ids(project_id, TASKS.c.status == "passed", TASKS.c.audit, _is_decided(_PASSED))

    def ranks_passed_over(self, project_id: int) -> bool:
        """Whether the ranking holds a task that is passed over."""
        same = sa.and_(RANKING.c.project_id == TASKS.c.project_id, RANKING.c.task_id == TASKS.c.task_id)
        waits = TASKS.c.status.in_(("unlabelled", "passed"))
        return bool(self._ids(project_id, waits, _is_decided(_PASSED), sa.exists().where(same), limit=1))

    def arrivals(self, project_id: int, *, after: int) -> list[int]:
        """Return the unlabelled tasks without an error and without a decision, by id, from the id after one."""
        waits = (TASKS.c.status == "unlabelled", TASKS.c.error == "", TASKS.c.task_id > after)
        return self._ids(project_id, *waits, sa.not_(_is_decided()))

    def _ids(self, project_id: int, *conditions: sa.ColumnElement[bool], limit: int | None = None) -> list[int]:
        query = sa.select(TASKS.c.task_id).where(TASKS.c.project_id == project_id, *conditions)
        with self._read() as connection:
            return list(connection.execute(query.order_by(TASKS.c.task_id).limit(limit)).scalars())

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
