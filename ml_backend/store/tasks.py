"""Reads and writes of tasks: their labels, and why some are left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from ml_backend.annotations.boxes import WHOLE_IMAGE
from ml_backend.store.tables import (
    DECISIONS,
    META,
    PUBLISHED,
    QUERIES,
    RANKING,
    TASKS,
    AnnotatorLabels,
    Decision,
    Label,
    Side,
    Task,
    TrainingLabel,
)
from ml_backend.store.transactions import Connections, chunks
from ml_backend.system.chance import draw

_LEFT_OUT: Final[Mapping[str, sa.ColumnElement[bool]]] = {
    "all": sa.or_(TASKS.c.status.in_(("broken", "unavailable", "skipped", "passed")), TASKS.c.error != ""),
    "failed": sa.or_(TASKS.c.status.in_(("broken", "unavailable")), TASKS.c.error != ""),
    "skipped": TASKS.c.status == "skipped",
    "passed": TASKS.c.status == "passed",
}

TASK_COLUMNS: Final = tuple(TASKS.c[field.name] for field in fields(Task))
"""What a `Task` is made of, in its order; the other columns are the store's own."""
DONE: Final = TASKS.c.status.in_(("labelled", "skipped", "broken", "unavailable", "passed"))
"""Every status but unlabelled."""
HAS_ERROR: Final = sa.literal_column("tasks.error") != sa.literal_column("''")  # as the partial index has it

_Counted = TypeVar("_Counted")


class Tasks(Connections):
    """Tasks of projects.

    What is counted is kept until a task of the project changes.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._kept: dict[tuple[str, int], tuple[int, Any]] = {}

    # -- changes ------------------------------------------------------------------------------------------------------
    def changes(self, project_id: int) -> int:
        """Return how often tasks of a project, or their ranking, were changed so far, whatever the change.

        Tasks carry the number of their last change: what is derived from all of them is derived again only when this
        number moved, and what is derived from each of them only for those that changed since.
        """
        return self.counted(f"changes_{project_id}")

    def pool_changes(self, project_id: int) -> int:
        """Return how often tasks were added or removed, or got another group."""
        return self.counted(f"pool_changes_{project_id}")

    def put_tasks(self, tasks: Iterable[Task]) -> None:
        """Insert or replace tasks."""
        by_project: dict[int, list[Task]] = defaultdict(list)
        for task in tasks:
            by_project[task.project_id].append(task)
        for project_id, own in by_project.items():
            with self._write() as connection:
                self._put_tasks_in(connection, project_id, own)

    def _put_tasks_in(self, connection: sa.Connection, project_id: int, tasks: Sequence[Task]) -> None:
        changed = self._next_change(connection, project_id)
        groups: dict[int, str] = {}
        for chunk in chunks([task.task_id for task in tasks], 500):
            known = sa.select(TASKS.c.task_id, TASKS.c.group_key).where(
                TASKS.c.project_id == project_id, TASKS.c.task_id.in_(chunk)
            )
            groups.update({row[0]: row[1] for row in connection.execute(known)})
        if any(groups.get(task.task_id) != task.group_key for task in tasks):
            self._count_in(connection, f"pool_changes_{project_id}")
        seed = int(connection.execute(sa.select(META.c.value).where(META.c.key == seed_key(project_id))).scalar() or 0)
        own = ({"changed": changed, "draw": draw(seed, task.task_id)} for task in tasks)
        rows = [{**vars(task), **more} for task, more in zip(tasks, own, strict=True)]
        self._upsert_in(connection, TASKS, rows, keys=("project_id", "task_id"))

    # -- reads --------------------------------------------------------------------------------------------------------

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
        query = sa.select(*TASK_COLUMNS).where(TASKS.c.project_id == project_id, condition).order_by(TASKS.c.task_id)
        with self._read() as connection:
            return [Task(*row) for row in connection.execute(query)]

    def tasks_by_id(self, project_id: int, task_ids: Iterable[int]) -> dict[int, Task]:
        """Return those of the tasks that are known, by id."""
        found: dict[int, Task] = {}
        for chunk in chunks(list(task_ids), 500):
            found |= {task.task_id: task for task in self._select_tasks(project_id, TASKS.c.task_id.in_(chunk))}
        return found

    def task_ids(self, project_id: int) -> set[int]:
        """Return the ids of all tasks of a project."""
        with self._read() as connection:
            query = sa.select(TASKS.c.task_id).where(TASKS.c.project_id == project_id)
            return set(connection.execute(query).scalars())

    def newest_task(self, project_id: int) -> int:
        """Return the highest id of a task; 0 where there is none."""
        with self._read() as connection:
            query = sa.select(sa.func.max(TASKS.c.task_id)).where(TASKS.c.project_id == project_id)
            return int(connection.execute(query).scalar() or 0)

    def update_times(self, project_id: int, task_ids: Iterable[int]) -> dict[int, str]:
        """Return `updated_at` of those of the tasks that are known, by id."""
        times: dict[int, str] = {}
        with self._read() as connection:
            for chunk in chunks(list(task_ids), 500):
                here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.task_id.in_(chunk))
                query = sa.select(TASKS.c.task_id, TASKS.c.updated_at).where(here)
                times.update({row[0]: row[1] for row in connection.execute(query)})
        return times

    def tasks_without_image(self, project_id: int) -> list[Task]:
        """Return the tasks, by id, whose image could not be had when it was asked for, labelled or not."""
        unavailable = self._select_tasks(project_id, TASKS.c.status == "unavailable")
        # Written so that SQLite begins with the few that have an error, and not with the many that are unlabelled.
        failed = self._select_tasks(project_id, sa.and_(HAS_ERROR, TASKS.c.status.concat("") == "unlabelled"))
        return sorted([*unavailable, *failed], key=lambda task: task.task_id)

    def has_parts(self, project_id: int) -> bool:
        """Whether only a part is labelled of any image."""
        here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.boxes != WHOLE_IMAGE)
        with self._read() as connection:
            return connection.execute(sa.select(TASKS.c.task_id).where(here).limit(1)).first() is not None

    def answers(self, project_id: int) -> list[tuple[int, str, str]]:
        """Return id, status and digest of the label of all tasks that are not unlabelled, by id."""
        columns = (TASKS.c.task_id, TASKS.c.status, TASKS.c.label_digest)
        query = sa.select(*columns).where(TASKS.c.project_id == project_id, DONE).order_by(TASKS.c.task_id)
        with self._read() as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(query)]

    def a_label(self, project_id: int) -> Task | None:
        """Return a label without an error, one that trains rather than one that measures; None where there is none."""
        here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.status == "labelled", TASKS.c.error == "")
        query = sa.select(*TASK_COLUMNS).where(here).order_by(TASKS.c.held_out, TASKS.c.task_id).limit(1)
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Task(**row._mapping)

    def training_labels(self, project_id: int, *, status: str = "labelled") -> list[TrainingLabel]:
        """Return what decides whether there is reason to train, of all labels by id."""
        columns = [TASKS.c[field.name] for field in fields(TrainingLabel)]
        here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.status == status)
        with self._read() as connection:
            rows = connection.execute(sa.select(*columns).where(here).order_by(TASKS.c.task_id))
            return [TrainingLabel(*row) for row in rows]

    # -- labels that train, and labels that measure -------------------------------------------------------------------
    def tasks_of_images(self, project_id: int, images: Iterable[str]) -> list[Task]:
        """Return the tasks of images, by id."""
        tasks: list[Task] = []
        for chunk in chunks(list(images), 500):
            tasks += self._select_tasks(project_id, TASKS.c.image.in_(chunk))
        return sorted(tasks, key=lambda task: task.task_id)

    def sides(self, project_id: int, *, after: int | None = None) -> list[Side]:
        """Return what decides whether labels train or measure, of tasks by id.

        Args:
            project_id: Label Studio's.
            after: only those that changed after this change; None: all.
        """
        columns = [TASKS.c[field.name] for field in fields(Side)]
        recent = sa.true() if after is None else TASKS.c.changed > after
        query = sa.select(*columns).where(TASKS.c.project_id == project_id, recent).order_by(TASKS.c.task_id)
        with self._read() as connection:
            return [Side(*row) for row in connection.execute(query)]

    def set_held_out(self, project_id: int, task_ids: Iterable[int], *, held_out: bool) -> None:
        """Let labels measure, or train; it counts as a change of the project's tasks, and of none of them."""
        self._set(project_id, task_ids, held_out=held_out)

    def set_audit(self, project_id: int, task_ids: Iterable[int], *, audit: bool) -> None:
        """Keep that the images of tasks are of the audit set, or are not; otherwise as `set_held_out`."""
        self._set(project_id, task_ids, audit=audit, turn=0)

    def _set(self, project_id: int, task_ids: Iterable[int], **values: Any) -> None:
        """Set columns of tasks."""
        ids = list(task_ids)
        if not ids:
            return
        with self._write() as connection:
            self._next_change(connection, project_id)
            for chunk in chunks(ids, 500):
                here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.task_id.in_(chunk))
                connection.execute(sa.update(TASKS).where(here).values(**values))

    # -- numbers ------------------------------------------------------------------------------------------------------

    def label_files(self, project_id: int) -> set[str]:
        """Return the names of the files of all labels: masks and efforts."""
        has_files = sa.or_(TASKS.c.mask_file != "", TASKS.c.effort_file != "")
        here = sa.and_(TASKS.c.project_id == project_id, DONE, has_files)
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
        counts = Counter[str]()
        for (status, _), number in self.count_sides(project_id).items():
            counts[status] += number
        return dict(counts)

    def count_sides(self, project_id: int) -> Mapping[tuple[str, bool], int]:
        """Return the numbers of tasks by their status, and by whether their image is of the audit set."""
        return self._until_changed("sides", project_id, self._count_sides)

    def _count_sides(self, project_id: int) -> Mapping[tuple[str, bool], int]:
        status, in_audit = TASKS.c.status, sa.func.count().filter(TASKS.c.audit)
        query = sa.select(status, sa.func.count(), in_audit).where(TASKS.c.project_id == project_id).group_by(status)
        counts: dict[tuple[str, bool], int] = {}
        with self._read() as connection:
            for name, tasks, audits in connection.execute(query):
                counts |= {(name, True): int(audits), (name, False): int(tasks - audits)}
        return counts

    def _until_changed(self, what: str, project_id: int, count: Callable[[int], _Counted]) -> _Counted:
        """Return what was counted since the last change of the project's tasks or ranking, or count it."""
        changes = self.changes(project_id)  # first: what is counted may be newer than its number, but not older
        kept = self._kept.get((what, project_id))
        if kept is None or kept[0] != changes:
            kept = self._kept[what, project_id] = changes, count(project_id)
        counted: _Counted = kept[1]
        return counted

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
        query = sa.select(*TASK_COLUMNS).where(labels, theirs).order_by(TASKS.c.annotation_id.desc(), TASKS.c.task_id)
        with self._read() as connection:
            return [Task(**row._mapping) for row in connection.execute(query.limit(limit).offset(offset))]

    def set_unchanged(self, tasks: Iterable[Task]) -> None:
        """Set who made labels, and whether they were submitted as what was shown; all else stays as it is."""
        with self._write() as connection:
            for task in tasks:
                here = sa.and_(TASKS.c.project_id == task.project_id, TASKS.c.task_id == task.task_id)
                same = sa.and_(here, TASKS.c.annotation_id == task.annotation_id)
                changed = self._next_change(connection, task.project_id)
                values = {"annotator": task.annotator, "unchanged": task.unchanged, "changed": changed}
                connection.execute(sa.update(TASKS).where(same).values(**values))

    def task_errors(self, project_id: int) -> dict[int, str]:
        """Return by task id why tasks cannot be used, or not in full."""
        here = sa.and_(TASKS.c.project_id == project_id, HAS_ERROR)
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
        query = sa.select(*TASK_COLUMNS, *decided).join(DECISIONS, same, isouter=True)
        query = query.where(TASKS.c.project_id == project_id, _LEFT_OUT[reason])
        with self._read() as connection:
            rows = connection.execute(query.order_by(TASKS.c.task_id).limit(limit).offset(offset))
            return [_task_and_decision(row._mapping) for row in rows]

    def set_task_error(self, project_id: int, task_id: int, error: str) -> None:
        """Set the reason why a task cannot be used; "" when it can."""
        with self._write() as connection:
            here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.task_id == task_id)
            changed = self._next_change(connection, project_id)
            connection.execute(sa.update(TASKS).where(here).values(error=error, changed=changed))

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
                    changed = self._next_change(connection, task.project_id)
                    values = {"status": "unavailable", "error": errors[task.task_id], "changed": changed}
                    connection.execute(sa.update(TASKS).where(same).values(**values))

    def delete_tasks(self, project_id: int, task_ids: Iterable[int]) -> None:
        """Delete tasks that Label Studio no longer has, with all that belongs to them."""
        ids = list(task_ids)
        if not ids:
            return
        with self._write() as connection:
            self._next_change(connection, project_id)
            self._count_in(connection, f"pool_changes_{project_id}")
            for chunk in chunks(ids, 500):
                for table in (TASKS, RANKING, PUBLISHED, QUERIES, DECISIONS):
                    here = sa.and_(table.c.project_id == project_id, table.c.task_id.in_(chunk))
                    connection.execute(sa.delete(table).where(here))


def seed_key(project_id: int) -> str:
    """Return the key under which the seed of the numbers of a project's tasks is kept."""
    return f"drawn_by_{project_id}"


def _task_and_decision(row: Mapping[Any, Any]) -> tuple[Task, Decision | None]:
    prefix = "decided__"
    decided = {name[len(prefix) :]: value for name, value in row.items() if name.startswith(prefix)}
    task = Task(**{name: value for name, value in row.items() if not name.startswith(prefix)})
    return task, None if decided["task_id"] is None else Decision(**decided)
