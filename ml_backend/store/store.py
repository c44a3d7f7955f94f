"""Reads and writes of the state; see the package."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ml_backend.boxes import WHOLE_IMAGE, Query, boxes_from_text, boxes_to_text
from ml_backend.clock import boot_id, boot_seconds
from ml_backend.disk import naming_full_disk
from ml_backend.errors import LeaseLost
from ml_backend.store.database import open_database
from ml_backend.store.tables import (
    DECISIONS,
    EVENTS,
    GONE,
    META,
    PROJECTS,
    PUBLISHED,
    QUERIES,
    RANKING,
    TASKS,
    VERSIONS,
    Decision,
    Event,
    Label,
    Lease,
    Project,
    QueueEntry,
    Task,
)

logger = logging.getLogger(__name__)

KEPT_EVENTS = 2000
"""Events kept of each project."""
_EVENT_CHARACTERS = 2000
_SKEW_SECONDS = 1.0
"""How far the clocks of workers on several machines may differ."""


class Store:
    """The database. Safe for several processes and threads at once.

    Args:
        url: SQLAlchemy address, `sqlite:///file` or `postgresql+psycopg://…`.

    Raises:
        StoreError: it cannot be opened, or was written by another schema version.

    Every method that writes raises DiskFull where there is no room; nothing of the call is written then.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_database(url)
        database = self._engine.url.database or ""
        self._started_at: float | None = None
        self._folder = Path(database).parent if self._engine.dialect.name == "sqlite" else None
        self._insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    # -- projects and wake-ups ----------------------------------------------------------------------------------------
    def wake(self, project_id: int, *, train: bool = False, manage: bool = False, **fields: Any) -> None:
        """Note that a project wants to be looked at; unknown projects become known.

        Args:
            train: also train, even when too little is new.
            manage: take a project up again that was disconnected.
            fields: columns to set besides, such as `extra_params`.
        """
        now = time.time()
        if not (train or manage or fields) and self._is_waiting(project_id):
            return  # thousands of webhooks at once must not queue for the write lock to say the same
        with self._write() as connection:
            values = {"id": project_id, "wakes": 1, "dirty_since": now, "train_requested_at": now if train else None}
            changes: dict[str, Any] = {
                "wakes": PROJECTS.c.wakes + 1,
                "dirty_since": sa.func.coalesce(PROJECTS.c.dirty_since, now),
                **({"train_requested_at": now, "retry_at": None} if train else {}),
                **({"managed": True} if manage else {}),
                **fields,
            }
            statement = self._insert(PROJECTS).values(**values, **fields)
            connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changes))

    def _is_waiting(self, project_id: int) -> bool:
        """Whether a project was woken and no look has begun since: one that begins from now on sees what is there."""
        here = sa.and_(PROJECTS.c.id == project_id, PROJECTS.c.wakes > PROJECTS.c.wakes_handled)
        with self._read() as connection:
            waiting = sa.select(PROJECTS.c.id).where(here, PROJECTS.c.lease_owner.is_(None))
            return connection.execute(waiting).first() is not None

    def project(self, project_id: int) -> Project | None:
        """Return a project, or None when it is unknown."""
        return next(iter(self._projects(PROJECTS.c.id == project_id)), None)

    def projects(self) -> list[Project]:
        """Return all managed projects, by id."""
        return self._projects(PROJECTS.c.managed)

    def gone_projects(self) -> list[Project]:
        """Return the projects that were deleted in Label Studio, by id."""
        return self._projects(sa.and_(sa.not_(PROJECTS.c.managed), PROJECTS.c.state == GONE))

    def _projects(self, condition: sa.ColumnElement[bool]) -> list[Project]:
        with self._read() as connection:
            rows = connection.execute(sa.select(PROJECTS).where(condition).order_by(PROJECTS.c.id))
            return [Project(**row._mapping) for row in rows]

    def update_project(self, project_id: int, **fields: Any) -> None:
        """Set columns of a project."""
        with self._write() as connection:
            connection.execute(sa.update(PROJECTS).where(PROJECTS.c.id == project_id).values(**fields))

    def forget_project(self, project_id: int) -> None:
        """Drop everything known of a project; checkpoints and masks on disk stay."""
        with self._write() as connection:
            connection.execute(sa.delete(PROJECTS).where(PROJECTS.c.id == project_id))
            for table in (TASKS, RANKING, PUBLISHED, VERSIONS, QUERIES, DECISIONS, EVENTS):
                connection.execute(sa.delete(table).where(table.c.project_id == project_id))

    # -- leases -------------------------------------------------------------------------------------------------------
    def acquire(
        self,
        owner: str,
        *,
        lease_seconds: float,
        interval: float,
        only: int | None = None,
        busy: Collection[int] = (),
    ) -> Lease | None:
        """Take a project that was woken, or that nobody looked at for `interval` seconds; None when there is none.

        A lease that ends further ahead than any lease can was taken before the clock was set back: it counts as
        expired.

        Args:
            only: take that project whether it is due or not.
            busy: projects that the caller itself works on: their leases only look expired, where the clock was set.
        """
        with self._read() as connection:  # most looks find nothing: they must not queue for the write lock
            now = time.time()
            if connection.execute(_due(now, lease_seconds, interval, only, busy)).first() is None:
                return None
        with self._write() as connection:
            now = time.time()  # after the wait for the lock: leases that others took meanwhile lie in no future
            row = connection.execute(_due(now, lease_seconds, interval, only, busy)).first()
            if row is None:
                return None
            taken = sa.update(PROJECTS).where(PROJECTS.c.id == row.id, _free(now, lease_seconds))
            count = connection.execute(taken.values(lease_owner=owner, lease_expires=now + lease_seconds)).rowcount
        return Lease(row.id, owner, row.wakes) if count else None

    def heartbeat(self, lease: Lease, *, lease_seconds: float) -> None:
        """Extend a lease.

        Raises:
            LeaseLost: it expired and another worker took the project, or the project is gone.
        """
        held = sa.and_(PROJECTS.c.id == lease.project_id, PROJECTS.c.lease_owner == lease.owner)
        with self._write() as connection:
            extended = sa.update(PROJECTS).where(held).values(lease_expires=time.time() + lease_seconds)
            if not connection.execute(extended).rowcount:
                raise LeaseLost(f"The lease on project {lease.project_id} went to another worker.")

    def release(self, lease: Lease, *, handled: bool) -> None:
        """Give a lease back; with `handled`, wake-ups that came before it was taken are done with."""
        held = sa.and_(PROJECTS.c.id == lease.project_id, PROJECTS.c.lease_owner == lease.owner)
        values: dict[str, Any] = {"lease_owner": None, "lease_expires": None, "reconciled_at": time.time()}
        with self._write() as connection:
            if handled:
                woken_again = PROJECTS.c.wakes > lease.wakes
                values["wakes_handled"] = lease.wakes
                values["dirty_since"] = sa.case((woken_again, time.time()), else_=None)
            connection.execute(sa.update(PROJECTS).where(held).values(**values))

    # -- tasks --------------------------------------------------------------------------------------------------------
    def put_tasks(self, tasks: Iterable[Task]) -> None:
        """Insert or replace tasks."""
        rows = [vars(task) for task in tasks]
        self._upsert(TASKS, rows, keys=("project_id", "task_id"))

    def task(self, project_id: int, task_id: int) -> Task | None:
        """Return one task, or None."""
        return next(iter(self._select_tasks(project_id, TASKS.c.task_id == task_id)), None)

    def tasks(self, project_id: int, *, status: str | None = None) -> list[Task]:
        """Return a project's tasks by id, all or those of one status."""
        return self._select_tasks(project_id, sa.true() if status is None else TASKS.c.status == status)

    def tasks_in_parts(self, project_id: int) -> list[Task]:
        """Return the tasks by id that label a part of their image."""
        return self._select_tasks(project_id, sa.and_(TASKS.c.status == "labelled", TASKS.c.boxes != WHOLE_IMAGE))

    def _select_tasks(self, project_id: int, condition: sa.ColumnElement[bool]) -> list[Task]:
        query = sa.select(TASKS).where(TASKS.c.project_id == project_id, condition).order_by(TASKS.c.task_id)
        with self._read() as connection:
            return [Task(**row._mapping) for row in connection.execute(query)]

    def label_files(self, project_id: int) -> set[str]:
        """Return the names of the files that labels are kept in, of masks and of efforts."""
        here = sa.and_(TASKS.c.project_id == project_id, sa.or_(TASKS.c.mask_file != "", TASKS.c.effort_file != ""))
        with self._read() as connection:
            rows = connection.execute(sa.select(TASKS.c.mask_file, TASKS.c.effort_file).where(here))
            return {Path(file).name for row in rows for file in row if file}

    def count_tasks(self, project_id: int) -> dict[str, int]:
        """Return how many tasks a project has, by status."""
        query = sa.select(TASKS.c.status, sa.func.count()).where(TASKS.c.project_id == project_id)
        with self._read() as connection:
            return {row[0]: row[1] for row in connection.execute(query.group_by(TASKS.c.status))}

    def labels(self, project_id: int) -> list[Label]:
        """Return what is known of each label, in the order in which they were made."""
        columns = (TASKS.c.task_id, TASKS.c.lead_time, TASKS.c.agreement)
        here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.status == "labelled")
        query = sa.select(*columns).where(here).order_by(sa.func.coalesce(TASKS.c.annotation_id, 0), TASKS.c.task_id)
        with self._read() as connection:
            return [Label(*row) for row in connection.execute(query)]

    def mean_agreement(self, project_id: int) -> float | None:
        """Return the mean of the labels' agreements; None where no label has one."""
        here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.status == "labelled")
        with self._read() as connection:
            return connection.execute(sa.select(sa.func.avg(TASKS.c.agreement)).where(here)).scalar()

    def task_errors(self, project_id: int) -> dict[int, str]:
        """Return why tasks cannot be used, or not in full, by id."""
        here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.error != "")
        query = sa.select(TASKS.c.task_id, TASKS.c.error).where(here).order_by(TASKS.c.task_id)
        with self._read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def count_left_out(self, project_id: int) -> dict[str, int]:
        """Return how many tasks are left out, by reason; see `left_out`."""
        counts = [sa.func.count().filter(_LEFT_OUT[reason]).label(reason) for reason in _LEFT_OUT]
        with self._read() as connection:
            row = connection.execute(sa.select(*counts).where(TASKS.c.project_id == project_id)).one()
        return dict(row._mapping)

    def left_out(
        self, project_id: int, reason: str, *, limit: int, offset: int = 0
    ) -> list[tuple[Task, Decision | None]]:
        """Return tasks that nobody learns from, or not in full, by id, with what a stream decided about them.

        Args:
            reason: failed (an error is noted), skipped (by an annotator), passed (over by a stream), or all.
        """
        same = sa.and_(DECISIONS.c.project_id == TASKS.c.project_id, DECISIONS.c.task_id == TASKS.c.task_id)
        decided = [column.label(f"decided__{column.name}") for column in DECISIONS.c if column.name != "project_id"]
        query = sa.select(TASKS, *decided).join(DECISIONS, same, isouter=True)
        query = query.where(TASKS.c.project_id == project_id, _LEFT_OUT[reason])
        with self._read() as connection:
            rows = connection.execute(query.order_by(TASKS.c.task_id).limit(limit).offset(offset))
            return [_task_and_decision(row._mapping) for row in rows]

    def set_task_error(self, project_id: int, task_id: int, error: str) -> None:
        """Note why a task cannot be used ("" when it can again)."""
        with self._write() as connection:
            one = sa.and_(TASKS.c.project_id == project_id, TASKS.c.task_id == task_id)
            connection.execute(sa.update(TASKS).where(one).values(error=error))

    def delete_tasks(self, project_id: int, task_ids: Iterable[int]) -> None:
        """Drop tasks that Label Studio no longer has."""
        with self._write() as connection:
            for chunk in _chunks(list(task_ids), 500):
                for table in (TASKS, RANKING, PUBLISHED, QUERIES, DECISIONS):
                    here = sa.and_(table.c.project_id == project_id, table.c.task_id.in_(chunk))
                    connection.execute(sa.delete(table).where(here))

    # -- ranking ------------------------------------------------------------------------------------------------------
    def put_ranking(
        self,
        project_id: int,
        entries: Mapping[int, float],
        queries: Mapping[int, Query] | None = None,
        information: Mapping[int, float] | None = None,
        **fields: Any,
    ) -> None:
        """Replace a project's ranking and set columns of the project, in one transaction.

        Args:
            entries: task id -> priority.
            queries: task id -> what is asked for, of those tasks of which not the whole image is.
            information: task id -> what the strategy measured, of those tasks that it looked at.
        """
        told = information or {}
        rows = [
            _ranking_row(project_id, task, value, (queries or {}).get(task)) | {"information": told.get(task)}
            for task, value in entries.items()
        ]
        with self._write() as connection:
            connection.execute(sa.delete(RANKING).where(RANKING.c.project_id == project_id))
            if rows:
                connection.execute(sa.insert(RANKING), rows)
            if fields:
                connection.execute(sa.update(PROJECTS).where(PROJECTS.c.id == project_id).values(**fields))

    def ranked(self, project_id: int, *, limit: int | None = None) -> list[tuple[Task, float]]:
        """Return the unlabelled tasks of the ranking with their priorities, best first."""
        here = sa.and_(RANKING.c.project_id == TASKS.c.project_id, RANKING.c.task_id == TASKS.c.task_id)
        query = (
            sa.select(TASKS, RANKING.c.priority)
            .join(RANKING, here)
            .where(TASKS.c.project_id == project_id, TASKS.c.status == "unlabelled")
            .order_by(RANKING.c.priority.desc(), TASKS.c.task_id)
            .limit(limit)
        )
        with self._read() as connection:
            rows = [dict(row._mapping) for row in connection.execute(query)]
        return [(Task(**row), priority) for row in rows for priority in [row.pop("priority")]]

    def queue_page(self, project_id: int, version: str, *, offset: int, limit: int) -> list[QueueEntry]:
        """Return some of the ranking's unlabelled tasks, best first.

        Args:
            version: whose predictions count as published.
            offset: how many better ones to pass over.
        """
        here = sa.and_(RANKING.c.project_id == TASKS.c.project_id, RANKING.c.task_id == TASKS.c.task_id)
        shown = sa.and_(PUBLISHED.c.project_id == TASKS.c.project_id, PUBLISHED.c.task_id == TASKS.c.task_id)
        published = sa.exists().where(shown, PUBLISHED.c.version == version)
        asked = (RANKING.c.priority, RANKING.c.information, RANKING.c.boxes.label("asked"), RANKING.c.cost)
        query = (
            sa.select(TASKS, *asked, published.label("published"))
            .join(RANKING, here)
            .where(TASKS.c.project_id == project_id, TASKS.c.status == "unlabelled")
            .order_by(RANKING.c.priority.desc(), TASKS.c.task_id)
        )
        with self._read() as connection:
            rows = [dict(row._mapping) for row in connection.execute(query.offset(offset).limit(limit))]
        entries = []
        for rank, row in enumerate(rows, start=offset + 1):
            found = {name: row.pop(name) for name in ("priority", "information", "asked", "cost", "published")}
            entries.append(QueueEntry(Task(**row), rank, **{**found, "published": bool(found["published"])}))
        return entries

    def asked_of(self, project_id: int, task_id: int) -> str:
        """Return the boxes that the ranking asks for of a task, as text; empty: the whole image, or nothing."""
        here = sa.and_(RANKING.c.project_id == project_id, RANKING.c.task_id == task_id)
        with self._read() as connection:
            return connection.execute(sa.select(RANKING.c.boxes).where(here)).scalar() or ""

    def count_ranked(self, project_id: int) -> int:
        """Return how many unlabelled tasks the ranking holds."""
        here = sa.and_(RANKING.c.project_id == TASKS.c.project_id, RANKING.c.task_id == TASKS.c.task_id)
        query = sa.select(sa.func.count()).select_from(TASKS).join(RANKING, here)
        with self._read() as connection:
            waiting = query.where(TASKS.c.project_id == project_id, TASKS.c.status == "unlabelled")
            return int(connection.execute(waiting).scalar_one())

    def shares_below(self, project_id: int, values: Sequence[float]) -> list[float]:
        """Return for each value the share, in [0, 1], of the tasks that the strategy looked at with a smaller one."""
        if not values:
            return []
        own = RANKING.c.information
        smaller = [sa.func.sum(sa.case((own < value, 1), else_=0)) for value in values]  # one scan for all
        query = sa.select(sa.func.count(own), *smaller).where(RANKING.c.project_id == project_id, own.is_not(None))
        with self._read() as connection:
            total, *counts = connection.execute(query).one()
        return [count / total if total else 0.0 for count in counts]

    def priorities(self, project_id: int, task_ids: Sequence[int]) -> dict[int, float]:
        """Return the priorities of those of the tasks that the ranking holds."""
        found: dict[int, float] = {}
        with self._read() as connection:
            for chunk in _chunks(list(task_ids), 500):
                here = sa.and_(RANKING.c.project_id == project_id, RANKING.c.task_id.in_(chunk))
                rows = connection.execute(sa.select(RANKING.c.task_id, RANKING.c.priority).where(here))
                found.update({row[0]: row[1] for row in rows})
        return found

    def information(self, project_id: int, task_ids: Sequence[int]) -> dict[int, float]:
        """Return how informative the strategy found those of the tasks that it looked at; its unit is its own."""
        found: dict[int, float] = {}
        with self._read() as connection:
            for chunk in _chunks(list(task_ids), 500):
                here = sa.and_(RANKING.c.project_id == project_id, RANKING.c.task_id.in_(chunk))
                query = sa.select(RANKING.c.task_id, RANKING.c.information).where(here)
                rows = connection.execute(query.where(RANKING.c.information.is_not(None)))
                found.update({row[0]: row[1] for row in rows})
        return found

    def ranked_queries(self, project_id: int, *, status: str | None = None) -> dict[int, Query]:
        """Return what the ranking asks for, by task id, of those tasks of which not the whole image is asked for.

        Args:
            status: leave out tasks that have another one.
        """
        table = RANKING.c
        query = sa.select(table.task_id, table.boxes, table.cost)
        if status is not None:
            here = sa.and_(table.project_id == TASKS.c.project_id, table.task_id == TASKS.c.task_id)
            query = query.join(TASKS, here).where(TASKS.c.status == status)
        with self._read() as connection:
            rows = connection.execute(query.where(table.project_id == project_id, table.boxes != ""))
            return {row.task_id: Query(boxes_from_text(row.boxes), row.cost) for row in rows}

    def move_ranking(self, project_id: int, moves: Mapping[int, int], tasks: Iterable[Task]) -> None:
        """Let other tasks of the same images take the places of tasks in the ranking, in one transaction.

        Args:
            moves: task id in the ranking -> the one that takes its place; what that one had there is dropped.
            tasks: those that are new, to be inserted.
        """
        with self._write() as connection:
            self._upsert_in(connection, TASKS, [vars(task) for task in tasks], keys=("project_id", "task_id"))
            for old, new in moves.items():
                here = RANKING.c.project_id == project_id
                connection.execute(sa.delete(RANKING).where(here, RANKING.c.task_id == new))
                connection.execute(sa.update(RANKING).where(here, RANKING.c.task_id == old).values(task_id=new))

    # -- what was asked for -------------------------------------------------------------------------------------------
    def put_queries(self, project_id: int, version: str, queries: Mapping[int, Query]) -> None:
        """Keep what tasks are published with; it stays when the version is pruned."""
        keys = {"project_id": project_id, "version": version, "asked_at": time.time()}
        rows = [
            keys | {"task_id": task, "boxes": boxes_to_text(query.boxes), "cost": query.cost}
            for task, query in queries.items()
        ]
        self._upsert(QUERIES, rows, keys=("project_id", "task_id", "version"))

    def drop_queries(self, project_id: int, version: str, task_ids: Iterable[int]) -> None:
        """Take back that tasks are published with rectangles: the host would not show them."""
        with self._write() as connection:
            for chunk in _chunks(list(task_ids), 500):
                table = QUERIES.c
                here = sa.and_(table.project_id == project_id, table.version == version, table.task_id.in_(chunk))
                connection.execute(sa.delete(QUERIES).where(here))

    def published_queries(self, project_id: int, task_id: int | None = None) -> dict[tuple[int, str], Query]:
        """Return what tasks (or one) were ever published with, by task id and version, the last one last."""
        table = QUERIES.c
        here = table.project_id == project_id
        if task_id is not None:
            here = sa.and_(here, table.task_id == task_id)
        with self._read() as connection:
            rows = connection.execute(sa.select(QUERIES).where(here).order_by(table.asked_at))
            return {(row.task_id, row.version): Query(boxes_from_text(row.boxes), row.cost) for row in rows}

    # -- decisions of a stream ----------------------------------------------------------------------------------------
    def put_decisions(self, project_id: int, decisions: Iterable[Decision], *, note: tuple[str, str]) -> None:
        """Keep decisions, and the state of the stream that made them as a note (key, value), in one transaction."""
        rows = [{"project_id": project_id, **vars(decision)} for decision in decisions]
        with self._write() as connection:
            self._upsert_in(connection, DECISIONS, rows, keys=("project_id", "task_id"))
            self._upsert_in(connection, META, [{"key": note[0], "value": note[1]}], keys=("key",))

    def decisions(self, project_id: int) -> dict[int, Decision]:
        """Return what was decided, by task id."""
        with self._read() as connection:
            rows = connection.execute(sa.select(DECISIONS).where(DECISIONS.c.project_id == project_id))
            fields = [{**row._mapping} for row in rows]
        for one in fields:
            del one["project_id"]
        return {one["task_id"]: Decision(**one) for one in fields}

    def count_decisions(self, project_id: int) -> tuple[int, int, int]:
        """Return how many tasks were kept, are passed over, and were returned."""
        c = DECISIONS.c
        counts = (sa.func.count().filter(one) for one in (c.keep, sa.not_(sa.or_(c.keep, c.returned)), c.returned))
        with self._read() as connection:
            row = connection.execute(sa.select(*counts).where(c.project_id == project_id)).one()
        return int(row[0]), int(row[1]), int(row[2])

    def passed_over(self, project_id: int) -> dict[int, Decision]:
        """Return the decisions to pass a task over that nobody took back; it may have been labelled since."""
        decisions = self.decisions(project_id)
        return {task: one for task, one in decisions.items() if not one.keep and not one.returned}

    def update_decisions(self, project_id: int, task_ids: Iterable[int], **fields: bool) -> None:
        """Set columns (marked, returned) of decisions."""
        with self._write() as connection:
            for chunk in _chunks(list(task_ids), 500):
                here = sa.and_(DECISIONS.c.project_id == project_id, DECISIONS.c.task_id.in_(chunk))
                connection.execute(sa.update(DECISIONS).where(here).values(**fields))

    def set_task_status(self, project_id: int, task_ids: Iterable[int], status: str) -> None:
        """Set the status of tasks that have no annotation: unlabelled or passed."""
        with self._write() as connection:
            for chunk in _chunks(list(task_ids), 500):
                here = sa.and_(TASKS.c.project_id == project_id, TASKS.c.task_id.in_(chunk))
                open_ones = sa.and_(here, TASKS.c.status.in_(("unlabelled", "passed")))
                connection.execute(sa.update(TASKS).where(open_ones).values(status=status))

    # -- what was published -------------------------------------------------------------------------------------------
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

    # -- events -------------------------------------------------------------------------------------------------------
    def add_event(self, project_id: int, kind: str, text: str, *, level: str = "info") -> None:
        """Keep what happened to a project; of each, the newest ones only.

        An event that cannot be kept (disk full, database locked) is logged: the work that it tells of goes on.
        """
        row = {"project_id": project_id, "at": time.time(), "kind": kind, "level": level, "text": _storable(text)}
        newest = sa.select(EVENTS.c.id).where(EVENTS.c.project_id == project_id).order_by(EVENTS.c.id.desc())
        first_old = newest.offset(KEPT_EVENTS).limit(1).scalar_subquery()
        old = sa.and_(EVENTS.c.project_id == project_id, EVENTS.c.id <= first_old)
        try:
            with self._write() as connection:
                connection.execute(sa.insert(EVENTS).values(**row))
                connection.execute(sa.delete(EVENTS).where(old))
        except sa.exc.SQLAlchemyError as error:
            reason = str(error).splitlines()[0]
            logger.warning("project=%s event=%s cannot be kept: %s", project_id, kind, reason)

    def events(
        self,
        project_id: int | None,
        *,
        limit: int = 100,
        before: int | None = None,
        levels: Collection[str] | None = None,
    ) -> list[Event]:
        """Return events, newest first.

        Args:
            project_id: None: those of all projects.
            limit: at most so many.
            before: only those older than the event of this id.
            levels: only those of these levels; None: all.
        """
        query = sa.select(EVENTS).order_by(EVENTS.c.id.desc()).limit(limit)
        if project_id is not None:
            query = query.where(EVENTS.c.project_id == project_id)
        if before is not None:
            query = query.where(EVENTS.c.id < before)
        if levels is not None:
            query = query.where(EVENTS.c.level.in_(levels))
        with self._read() as connection:
            return [Event(**row._mapping) for row in connection.execute(query)]

    # -- time ---------------------------------------------------------------------------------------------------------
    def steady_time(self) -> float:
        """Return the seconds since the epoch by a clock that goes on evenly when the machine's is set.

        All processes agree on it until the machine is started anew: the first one to ask keeps the difference between
        the machine's clock and the time since its start.
        """
        if self._started_at is None:
            now = time.time() - boot_seconds()
            self._started_at = float(self.secret(f"clock_{boot_id()}", repr(now)))
        return self._started_at + boot_seconds()

    # -- plumbing -----------------------------------------------------------------------------------------------------
    def secret(self, key: str, make: str) -> str:
        """Return the value kept under a key; `make` is kept when there is none yet."""
        with self._write() as connection:
            connection.execute(self._insert(META).values(key=key, value=make).on_conflict_do_nothing())
            return str(connection.execute(sa.select(META.c.value).where(META.c.key == key)).scalar_one())

    def note(self, key: str) -> str | None:
        """Return a note of an earlier run, or None."""
        with self._read() as connection:
            return connection.execute(sa.select(META.c.value).where(META.c.key == key)).scalar()

    def set_note(self, key: str, value: str) -> None:
        """Keep a note for later runs."""
        self._upsert(META, [{"key": key, "value": value}], keys=("key",))

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

    def count(self, key: str) -> None:
        """Count one more under a key, for good."""
        more = sa.cast(sa.cast(META.c.value, sa.BigInteger) + 1, sa.Text)
        statement = self._insert(META).values(key=f"count_{key}", value="1")
        with self._write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": more}))

    def counted(self, key: str) -> int:
        """Return what was counted under a key."""
        return int(self.note(f"count_{key}") or 0)

    def _upsert(self, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, keys: Sequence[str]) -> None:
        if rows:
            with self._write() as connection:
                self._upsert_in(connection, table, rows, keys=keys)

    def _upsert_in(
        self, connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, keys: Sequence[str]
    ) -> None:
        if not rows:
            return
        statement = self._insert(table)
        changes = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes), list(rows))

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with self._naming_full_disk(), self._engine.connect() as connection:
            yield connection

    def _naming_full_disk(self) -> AbstractContextManager[None]:
        return nullcontext() if self._folder is None else naming_full_disk(self._folder)

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        """A transaction that takes SQLite's write lock at once: an upgrade from a read lock could not wait for it."""
        with (
            self._naming_full_disk(),
            self._engine.connect().execution_options(immediate=True) as connection,
            connection.begin(),
        ):
            yield connection


_LEFT_OUT: Final[Mapping[str, sa.ColumnElement[bool]]] = {
    "all": sa.or_(TASKS.c.status.in_(("broken", "skipped", "passed")), TASKS.c.error != ""),
    "failed": sa.or_(TASKS.c.status == "broken", TASKS.c.error != ""),
    "skipped": TASKS.c.status == "skipped",
    "passed": TASKS.c.status == "passed",
}


def _task_and_decision(row: Mapping[Any, Any]) -> tuple[Task, Decision | None]:
    prefix = "decided__"
    decided = {name[len(prefix) :]: value for name, value in row.items() if name.startswith(prefix)}
    task = Task(**{name: value for name, value in row.items() if not name.startswith(prefix)})
    return task, None if decided["task_id"] is None else Decision(**decided)


def file_name(path: str, project_id: int) -> str:
    """Return the name, relative to MODEL_DIR, of a file that a task names, wherever MODEL_DIR was then."""
    _, found, rest = path.rpartition(f"projects/{project_id}/")
    return f"{found}{rest}" if found else ""


def _free(now: float, lease_seconds: float) -> sa.ColumnElement[bool]:
    expires = PROJECTS.c.lease_expires
    return sa.or_(expires.is_(None), expires <= now, expires > now + lease_seconds + _SKEW_SECONDS)


def _due(
    now: float, lease_seconds: float, interval: float, only: int | None, busy: Collection[int]
) -> sa.Select[tuple[int, int]]:
    """Select the project whose turn it is (id, wakes)."""
    looked_at = PROJECTS.c.reconciled_at
    due = sa.or_(
        PROJECTS.c.wakes > PROJECTS.c.wakes_handled,
        looked_at.is_(None),
        looked_at <= now - interval,
        looked_at > now + _SKEW_SECONDS,  # before the clock was set back
    )
    wanted = PROJECTS.c.id == only if only is not None else sa.and_(PROJECTS.c.managed, due)
    mine = PROJECTS.c.id.not_in(busy)
    oldest = sa.func.coalesce(PROJECTS.c.dirty_since, looked_at, 0.0)
    columns = sa.select(PROJECTS.c.id, PROJECTS.c.wakes)
    return columns.where(_free(now, lease_seconds), wanted, mine).order_by(oldest).limit(1)


def _chunks(values: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _storable(text: str) -> str:
    """Bound a text that came from elsewhere, and replace what no database takes."""
    text = text.encode("utf-8", "replace").decode().replace("\0", "")
    return text if len(text) <= _EVENT_CHARACTERS else f"{text[: _EVENT_CHARACTERS - 1]}…"


def _ranking_row(project_id: int, task_id: int, priority: float, query: Query | None) -> dict[str, Any]:
    asked = {"boxes": boxes_to_text(query.boxes), "cost": query.cost} if query else {"boxes": "", "cost": None}
    return {"project_id": project_id, "task_id": task_id, "priority": priority} | asked
