"""Reads and writes of tasks: their labels, and why some are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from ml_backend.annotations.boxes import WHOLE_IMAGE
from ml_backend.store.tables import (
    DECISIONS,
    PUBLISHED,
    QUERIES,
    RANKING,
    TASKS,
    AnnotatorLabels,
    Decision,
    Label,
    Side,
    Task,
)
from ml_backend.store.transactions import Connections, chunks

_LEFT_OUT: Final[Mapping[str, sa.ColumnElement[bool]]] = {
    "all": sa.or_(TASKS.c.status.in_(("broken", "unavailable", "skipped", "passed")), TASKS.c.error != ""),
    "failed": sa.or_(TASKS.c.status.in_(("broken", "unavailable")), TASKS.c.error != ""),
    "skipped": TASKS.c.status == "skipped",
    "passed": TASKS.c.status == "passed",
}


class Tasks(Connections):
    """Tasks of projects."""

    def put_tasks(self, tasks: Iterable[Task]) -> None:
        """Insert or replace tasks."""
        rows = [vars(task) for task in tasks]
        self._upsert(TASKS, rows, keys=("project_id", "task_id"))

    def task(self, project_id: int, task_id: int) -> Task | None:
        """Return a task; None when it is unknown."""
        return next(iter(self._select_tasks(project_id, TASKS.c.task_id == task_id)), None)

    def tasks(self, project_id: int, *, status: str | None = None) -> list[Task]:
        """Return the tasks of a project by id; only those of a status when it is given."""
        return self._select_tasks(project_id, sa.true() if status is None else TASKS.c.status == status)

    def tasks_in_parts(self, project_id: int) -> list[Task]:
        """Return the tasks, by id, of which only a part of the image is labelled."""
        return self._select_tasks(project_id, sa.and_(TASKS.c.status == "labelled", TASKS.c.boxes != WHOLE_IMAGE))

    def _select_tasks(self, project_id: int, condition: sa.ColumnElement[bool]) -> list[Task]:
        query = sa.select(TASKS).where(TASKS.c.project_id == project_id, condition).order_by(TASKS.c.task_id)
        with self._read() as connection:
            return [Task(**row._mapping) for row in connection.execute(query)]

    def tasks_by_id(self, project_id: int, task_ids: Iterable[int]) -> dict[int, Task]:
        """Return those of the tasks that are known, by id."""
        found: dict[int, Task] = {}
        for chunk in chunks(list(task_ids), 500):
            found |= {task.task_id: task for task in self._select_tasks(project_id, TASKS.c.task_id.in_(chunk))}
        return found

    def sides(self, project_id: int) -> list[Side]:
        """Return what decides whether labels train or measure, of all tasks by id."""
        columns = (TASKS.c.task_id, TASKS.c.group_key, TASKS.c.status, TASKS.c.masked, TASKS.c.held_out)
        query = sa.select(*columns).where(TASKS.c.project_id == project_id).order_by(TASKS.c.task_id)
        with self._read() as connection:
            return [Side(*row) for row in connection.execute(query)]

    def set_held_out(self, project_id: int, task_ids: Iterable[int], *, held_out: bool) -> None:
        """Let labels measure, or train."""
        with self._write() as connection:
            for chunk in chunks(list(task_ids), 500):
                here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.task_id.in_(chunk))
                connection.execute(sa.update(TASKS).where(here).values(held_out=held_out))

    def label_files(self, project_id: int) -> set[str]:
        """Return the names of the files of all labels: masks and efforts."""
        here = sa.and_(TASKS.c.project_id == project_id, sa.or_(TASKS.c.mask_file != "", TASKS.c.effort_file != ""))
        with self._read() as connection:
            rows = connection.execute(sa.select(TASKS.c.mask_file, TASKS.c.effort_file).where(here))
            return {Path(file).name for row in rows for file in row if file}

    def count_held_out(self, project_id: int) -> int:
        """Return the number of labels that are held out for measuring."""
        labels = sa.select(sa.func.count()).select_from(TASKS).where(TASKS.c.project_id == project_id)
        held_out = labels.where(TASKS.c.status == "labelled", TASKS.c.held_out)
        with self._read() as connection:
            return int(connection.execute(held_out).scalar_one())

    def count_tasks(self, project_id: int) -> dict[str, int]:
        """Return the numbers of tasks by status."""
        query = sa.select(TASKS.c.status, sa.func.count()).where(TASKS.c.project_id == project_id)
        with self._read() as connection:
            return {row[0]: row[1] for row in connection.execute(query.group_by(TASKS.c.status))}

    def labels(self, project_id: int) -> list[Label]:
        """Return the labels of a project in the order in which they were made."""
        own = TASKS.c
        answers = (own.shown_version, own.points, own.guesses, own.right_guesses)
        columns = (own.task_id, own.lead_time, own.agreement, own.boxes == "", own.effort, *answers)
        here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.status == "labelled")
        query = sa.select(*columns).where(here).order_by(sa.func.coalesce(TASKS.c.annotation_id, 0), TASKS.c.task_id)
        with self._read() as connection:
            return [Label(*row) for row in connection.execute(query)]

    def mean_agreement(self, project_id: int) -> float | None:
        """Return the mean agreement of the labels, in [0, 1]; None when no label has an agreement."""
        here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.status == "labelled")
        with self._read() as connection:
            return connection.execute(sa.select(sa.func.avg(TASKS.c.agreement)).where(here)).scalar()

    def labels_of_annotators(self, project_id: int) -> list[AnnotatorLabels]:
        """Return how many labels each annotator made, by id; those of unknown annotators last."""
        shown = sa.func.count(TASKS.c.unchanged)
        unchanged = sa.func.count().filter(TASKS.c.unchanged)
        guesses = (sa.func.sum(TASKS.c.guesses), sa.func.sum(TASKS.c.right_guesses))
        query = sa.select(TASKS.c.annotator, sa.func.count(), shown, unchanged, *guesses).group_by(TASKS.c.annotator)
        here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.status == "labelled")
        with self._read() as connection:
            rows = connection.execute(query.where(here)).all()
        return sorted((AnnotatorLabels(*row) for row in rows), key=lambda one: (one.annotator is None, one.annotator))

    def unchanged_labels(
        self, project_id: int, *, annotator: int | None = None, limit: int, offset: int = 0
    ) -> list[Task]:
        """Return labels that were submitted as the mask that was shown, the newest first.

        Args:
            project_id: Label Studio's.
            annotator: whose; None: all.
            limit: at most so many.
            offset: number of labels to leave out at the beginning.
        """
        labels = sa.and_(TASKS.c.project_id == project_id, TASKS.c.status == "labelled", TASKS.c.unchanged)
        theirs = sa.true() if annotator is None else TASKS.c.annotator == annotator
        query = sa.select(TASKS).where(labels, theirs).order_by(TASKS.c.annotation_id.desc(), TASKS.c.task_id)
        with self._read() as connection:
            return [Task(**row._mapping) for row in connection.execute(query.limit(limit).offset(offset))]

    def set_unchanged(self, tasks: Iterable[Task]) -> None:
        """Set who made labels, and whether they were submitted as what was shown; all else stays as it is."""
        with self._write() as connection:
            for task in tasks:
                here = sa.and_(TASKS.c.project_id == task.project_id, TASKS.c.task_id == task.task_id)
                same = sa.and_(here, TASKS.c.annotation_id == task.annotation_id)
                values = {"annotator": task.annotator, "unchanged": task.unchanged}
                connection.execute(sa.update(TASKS).where(same).values(**values))

    def task_errors(self, project_id: int) -> dict[int, str]:
        """Return by task id why tasks cannot be used, or not in full."""
        here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.error != "")
        query = sa.select(TASKS.c.task_id, TASKS.c.error).where(here).order_by(TASKS.c.task_id)
        with self._read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def count_left_out(self, project_id: int) -> dict[str, int]:
        """Return the numbers of tasks that are left out, by reason; see `left_out`."""
        counts = [sa.func.count().filter(_LEFT_OUT[reason]).label(reason) for reason in _LEFT_OUT]
        with self._read() as connection:
            row = connection.execute(sa.select(*counts).where(TASKS.c.project_id == project_id)).one()
        return dict(row._mapping)

    def left_out(
        self, project_id: int, reason: str, *, limit: int, offset: int = 0
    ) -> list[tuple[Task, Decision | None]]:
        """Return tasks that are not learned from, or not in full, by id, with the decision of the stream about them.

        Args:
            project_id: Label Studio's.
            reason: failed (they have an error), skipped (by an annotator), passed (over by a stream), or all.
            limit: at most so many tasks.
            offset: number of tasks to leave out at the beginning.
        """
        same = sa.and_(DECISIONS.c.project_id == TASKS.c.project_id, DECISIONS.c.task_id == TASKS.c.task_id)
        decided = [column.label(f"decided__{column.name}") for column in DECISIONS.c if column.name != "project_id"]
        query = sa.select(TASKS, *decided).join(DECISIONS, same, isouter=True)
        query = query.where(TASKS.c.project_id == project_id, _LEFT_OUT[reason])
        with self._read() as connection:
            rows = connection.execute(query.order_by(TASKS.c.task_id).limit(limit).offset(offset))
            return [_task_and_decision(row._mapping) for row in rows]

    def set_task_error(self, project_id: int, task_id: int, error: str) -> None:
        """Set the reason why a task cannot be used; "" when it can."""
        with self._write() as connection:
            here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.task_id == task_id)
            connection.execute(sa.update(TASKS).where(here).values(error=error))

    def leave_out(self, tasks: Iterable[Task], errors: Mapping[int, str]) -> None:
        """Count labels no longer, because their images or masks cannot be read.

        Args:
            tasks: as they were read; where the label was replaced since, its task stays as it is.
            errors: by task id, why; tasks without one stay as they are.
        """
        with self._write() as connection:
            for task in tasks:
                if task.task_id in errors:
                    here = sa.and_(TASKS.c.project_id == task.project_id, TASKS.c.task_id == task.task_id)
                    same = sa.and_(here, TASKS.c.status == "labelled", TASKS.c.label_digest == task.label_digest)
                    values = {"status": "unavailable", "error": errors[task.task_id]}
                    connection.execute(sa.update(TASKS).where(same).values(**values))

    def delete_tasks(self, project_id: int, task_ids: Iterable[int]) -> None:
        """Delete tasks that Label Studio no longer has, with all that belongs to them."""
        with self._write() as connection:
            for chunk in chunks(list(task_ids), 500):
                for table in (TASKS, RANKING, PUBLISHED, QUERIES, DECISIONS):
                    here = sa.and_(table.c.project_id == project_id, table.c.task_id.in_(chunk))
                    connection.execute(sa.delete(table).where(here))


def _task_and_decision(row: Mapping[Any, Any]) -> tuple[Task, Decision | None]:
    prefix = "decided__"
    decided = {name[len(prefix) :]: value for name, value in row.items() if name.startswith(prefix)}
    task = Task(**{name: value for name, value in row.items() if not name.startswith(prefix)})
    return task, None if decided["task_id"] is None else Decision(**decided)
