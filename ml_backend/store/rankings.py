"""Reads and writes of the rankings of projects, and of the boxes that annotators are asked to label."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import sqlalchemy as sa

from ml_backend.annotations.boxes import Query, boxes_from_text, boxes_to_text
from ml_backend.store.tables import META, PROJECTS, PUBLISHED, QUERIES, RANKING, TASKS, Behind, QueueEntry, Task
from ml_backend.store.tasks import TASK_COLUMNS, Tasks
from ml_backend.store.transactions import chunks

PLACE: Final = sa.text("INSERT INTO ranking (project_id, task_id, priority) VALUES (:project, :task, :at)")
_HAS_BOXES: Final = sa.literal_column("ranking.boxes") != sa.literal_column("''")  # as the partial index has it


class Rankings(Tasks):
    """Rankings, and the queries of tasks."""

    def put_ranking(
        self,
        project_id: int,
        entries: Mapping[int, float],
        queries: Mapping[int, Query] | None = None,
        information: Mapping[int, float] | None = None,
        *,
        turns: Mapping[int, str] | None = None,
        outlines: Mapping[int, float] | None = None,
        points: Mapping[int, str] | None = None,
        behind: Behind | None = None,
        **fields: Any,
    ) -> None:
        """Replace the ranking of a project and set columns of the project, in a single transaction.

        Args:
            project_id: Label Studio's.
            entries: task id -> priority in (0, 1], higher = label sooner.
            queries: task id -> boxes to label; tasks without a query are asked for as a whole.
            information: task id -> value that the strategy measured; tasks that it did not score have none.
            turns: task id -> name of the class in whose turn the strategy picked it.
            outlines: task id -> length of the outlines that are expected in its image, in pixels.
            points: task id -> the points that are asked for, with why, as text.
            behind: where the entries end, if other tasks have places behind them; None: they are all.
            fields: columns of the project to set.
        """
        queries, measured, turns = queries or {}, information or {}, turns or {}
        outlines, points = outlines or {}, points or {}
        known = {*queries, *measured, *turns, *outlines, *points}
        rows = [
            _ranking_row(project_id, task, value, queries.get(task))
            | {"information": measured.get(task), "turn": turns.get(task, ""), "outlines": outlines.get(task)}
            | {"points": points.get(task, "")}
            for task, value in entries.items()
            if task in known
        ]
        places = [{"project": project_id, "task": task, "at": at} for task, at in entries.items() if task not in known]
        with self._write() as connection:
            self._next_change(connection, project_id)
            connection.execute(sa.delete(RANKING).where(RANKING.c.project_id == project_id))
            if rows:
                connection.execute(sa.insert(RANKING), rows)
            if places:  # most of a large project, with nothing but a place: the database fills in the rest
                connection.execute(PLACE, places)
            self._keep_behind(connection, project_id, behind)
            if fields:
                connection.execute(sa.update(PROJECTS).where(PROJECTS.c.id == project_id).values(**fields))

    def _keep_behind(self, connection: sa.Connection, project_id: int, behind: Behind | None) -> None:
        if behind is None:
            connection.execute(sa.delete(META).where(META.c.key == behind_key(project_id)))
            return
        row = {"key": behind_key(project_id), "value": json.dumps(asdict(behind))}
        self._upsert_in(connection, META, [row], keys=("key",))

    def ranked(
        self,
        project_id: int,
        *,
        limit: int | None = None,
        lowest: float = 0.0,
        among: Sequence[int] | None = None,
    ) -> list[tuple[Task, float]]:
        """Return the unlabelled tasks of the ranking with their priorities, the highest first.

        Args:
            project_id: Label Studio's.
            limit: at most so many.
            lowest: priority of the last ones.
            among: only these tasks, however many and whatever their priority; None: all.
        """
        places = self._best(project_id, limit, lowest=lowest) if among is None else self.priorities(project_id, among)
        tasks = self.tasks_by_id(project_id, places)
        waiting = [(task, places[task_id]) for task_id, task in tasks.items() if task.status == "unlabelled"]
        return sorted(waiting, key=lambda entry: (-entry[1], entry[0].task_id))

    def _best(self, project_id: int, limit: int | None, offset: int = 0, lowest: float = 0.0) -> dict[int, float]:
        """Return the priorities of unlabelled tasks, the highest first."""
        here = sa.and_(RANKING.c.project_id == project_id, RANKING.c.priority >= lowest)
        query = sa.select(RANKING.c.task_id, RANKING.c.priority).where(here)
        best = query.where(_status_of() == "unlabelled").order_by(RANKING.c.priority.desc(), RANKING.c.task_id)
        with self._read() as connection:
            return {row[0]: row[1] for row in connection.execute(best.limit(limit).offset(offset))}

    def count_new(self, project_id: int, *, after: int, among: Collection[int] | None = None) -> int:
        """Return how many unlabelled tasks without an error changed after a change, and have no place in the ranking,
        nor behind it.

        Args:
            project_id: Label Studio's.
            after: number of the change, see `changes`.
            among: only these tasks; None: all.
        """
        own = TASKS.c
        ranked = sa.and_(RANKING.c.project_id == own.project_id, RANKING.c.task_id == own.task_id)
        waits = sa.and_(own.project_id == project_id, own.changed > after, own.status == "unlabelled", own.error == "")
        query = sa.select(sa.func.count()).select_from(TASKS).where(waits, sa.not_(sa.exists().where(ranked)))
        with self._read() as connection:
            behind = behind_of(connection, project_id)
            if behind is not None:
                query = query.where(*(sa.not_(is_behind(behind, project_id, audit=side)) for side in (False, True)))
            if among is None:
                return int(connection.execute(query).scalar_one())
            parts = (query.where(own.task_id.in_(chunk)) for chunk in chunks(list(among), 500))
            return sum(int(connection.execute(part).scalar_one()) for part in parts)

    def has_ranked(self, project_id: int, least: int) -> bool:
        """Whether at least so many unlabelled tasks of the ranking have no error."""
        same = sa.and_(TASKS.c.project_id == RANKING.c.project_id, TASKS.c.task_id == RANKING.c.task_id)
        usable = sa.exists().where(same, TASKS.c.status == "unlabelled", TASKS.c.error == "")
        some = sa.select(RANKING.c.task_id).where(RANKING.c.project_id == project_id, usable).limit(least)
        with self._read() as connection:
            return (
                int(connection.execute(sa.select(sa.func.count()).select_from(some.subquery())).scalar_one()) >= least
            )

    def asks_for_parts(self, project_id: int) -> bool:
        """Whether the ranking asks for parts of an image."""
        query = sa.select(RANKING.c.task_id).where(RANKING.c.project_id == project_id, _HAS_BOXES)
        with self._read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def queue_page(self, project_id: int, version: str, *, offset: int, limit: int) -> list[QueueEntry]:
        """Return unlabelled tasks of the ranking, the highest priority first.

        Args:
            project_id: Label Studio's.
            version: tasks with a prediction of this version count as published.
            offset: number of tasks to leave out at the top.
            limit: at most so many tasks.
        """
        best = self._best(project_id, limit, offset)
        here = sa.and_(RANKING.c.project_id == TASKS.c.project_id, RANKING.c.task_id == TASKS.c.task_id)
        shown = sa.and_(PUBLISHED.c.project_id == TASKS.c.project_id, PUBLISHED.c.task_id == TASKS.c.task_id)
        published = sa.exists().where(shown, PUBLISHED.c.version == version)
        why = (RANKING.c.information, RANKING.c.turn, RANKING.c.outlines)
        points = RANKING.c.points.label("asked_points")  # tasks have a column of that name
        asked = (RANKING.c.priority, *why, RANKING.c.boxes.label("asked"), RANKING.c.cost, points)
        query = (
            sa.select(*TASK_COLUMNS, *asked, published.label("published"))
            .join(RANKING, here)
            .where(TASKS.c.project_id == project_id, TASKS.c.task_id.in_(best), TASKS.c.status == "unlabelled")
            .order_by(RANKING.c.priority.desc(), TASKS.c.task_id)
        )
        with self._read() as connection:
            rows = [dict(row._mapping) for row in connection.execute(query)]
        entries = []
        for rank, row in enumerate(rows, start=offset + 1):
            own = {column.name: row.pop(column.name) for column in asked} | {"published": row.pop("published")}
            entries.append(QueueEntry(Task(**row), rank, **{**own, "published": bool(own["published"])}))
        return entries

    def asked_of(self, project_id: int, task_id: int) -> tuple[str, str]:
        """Return the boxes that the ranking asks for in a task, and its points with why, both as text.

        Empty: the whole image, or nothing.
        """
        here = sa.and_(RANKING.c.project_id == project_id, RANKING.c.task_id == task_id)
        with self._read() as connection:
            row = connection.execute(sa.select(RANKING.c.boxes, RANKING.c.points).where(here)).one_or_none()
        return (row.boxes, row.points) if row else ("", "")

    def rank_of(self, project_id: int, task_id: int) -> int | None:
        """Return the place of a task among the unlabelled tasks of the ranking, from 1; None where it has none."""
        here = sa.and_(RANKING.c.project_id == TASKS.c.project_id, RANKING.c.task_id == TASKS.c.task_id)
        waits = sa.and_(TASKS.c.project_id == project_id, TASKS.c.status == "unlabelled")
        own = sa.select(RANKING.c.priority).join(TASKS, here).where(waits, TASKS.c.task_id == task_id)
        with self._read() as connection:
            priority = connection.execute(own).scalar()
            if priority is None:
                return None
            higher, same = RANKING.c.priority > priority, RANKING.c.priority == priority
            before = sa.or_(higher, sa.and_(same, RANKING.c.task_id < task_id))
            query = sa.select(sa.func.count()).select_from(RANKING).join(TASKS, here).where(waits, before)
            return int(connection.execute(query).scalar_one()) + 1

    def _count_ranked(self, project_id: int) -> int:
        here = sa.and_(RANKING.c.project_id == TASKS.c.project_id, RANKING.c.task_id == TASKS.c.task_id)
        query = sa.select(sa.func.count()).select_from(TASKS).join(RANKING, here)
        with self._read() as connection:
            waiting = query.where(TASKS.c.project_id == project_id, TASKS.c.status == "unlabelled")
            return int(connection.execute(waiting).scalar_one())

    def scored_below(self, project_id: int, values: Sequence[float]) -> tuple[int, list[int]]:
        """Return how many tasks were scored, and for each value, of how many of them the information is smaller."""
        own = RANKING.c.information
        smaller = [sa.func.sum(sa.case((own < value, 1), else_=0)) for value in values]  # a single scan for all
        query = sa.select(sa.func.count(own), *smaller).where(RANKING.c.project_id == project_id, own.is_not(None))
        with self._read() as connection:
            total, *counts = connection.execute(query).one()
        return total, [count or 0 for count in counts]

    def mean_outlines(self, project_id: int) -> float | None:
        """Return the mean length of the outlines that are expected in an image; None where that plays no part."""
        with self._read() as connection:
            mean = sa.select(sa.func.avg(RANKING.c.outlines)).where(RANKING.c.project_id == project_id)
            return connection.execute(mean).scalar()

    def priorities(self, project_id: int, task_ids: Sequence[int]) -> dict[int, float]:
        """Return the priorities of tasks by id; tasks outside the ranking are left out."""
        priorities: dict[int, float] = {}
        with self._read() as connection:
            for chunk in chunks(list(task_ids), 500):
                here = sa.and_(RANKING.c.project_id == project_id, RANKING.c.task_id.in_(chunk))
                rows = connection.execute(sa.select(RANKING.c.task_id, RANKING.c.priority).where(here))
                priorities.update({row[0]: row[1] for row in rows})
        return priorities

    def information(self, project_id: int, task_ids: Sequence[int]) -> dict[int, float]:
        """Return the information of tasks by id, in the strategy's own unit, without tasks that were not scored."""
        measured: dict[int, float] = {}
        with self._read() as connection:
            for chunk in chunks(list(task_ids), 500):
                here = sa.and_(RANKING.c.project_id == project_id, RANKING.c.task_id.in_(chunk))
                query = sa.select(RANKING.c.task_id, RANKING.c.information).where(here)
                rows = connection.execute(query.where(RANKING.c.information.is_not(None)))
                measured.update({row[0]: row[1] for row in rows})
        return measured

    def asked_tasks(self, project_id: int, *, waiting: bool = True) -> set[int]:
        """Return the tasks that the ranking asks for parts of.

        Args:
            project_id: Label Studio's.
            waiting: only unlabelled ones; otherwise only labelled ones.
        """
        wanted = _status_of() == ("unlabelled" if waiting else "labelled")
        query = sa.select(RANKING.c.task_id).where(RANKING.c.project_id == project_id, _HAS_BOXES, wanted)
        with self._read() as connection:
            return set(connection.execute(query).scalars())

    def ranked_queries(self, project_id: int, *, status: str | None = None) -> dict[int, Query]:
        """Return the queries of the ranking by task id; tasks that are asked for as a whole have none.

        Args:
            project_id: Label Studio's.
            status: only tasks of this status; None: all tasks.
        """
        table = RANKING.c
        query = sa.select(table.task_id, table.boxes, table.cost)
        if status is not None:
            query = query.where(_status_of() == status)
        with self._read() as connection:
            asked = query.where(table.project_id == project_id, _HAS_BOXES).order_by(table.task_id)
            rows = connection.execute(asked)
            return {row.task_id: Query(boxes_from_text(row.boxes), row.cost) for row in rows}

    def move_ranking(self, project_id: int, moves: Mapping[int, int], tasks: Iterable[Task]) -> None:
        """Let other tasks of the same images take the places of tasks in the ranking, in a single transaction.

        Args:
            project_id: Label Studio's.
            moves: id of a task in the ranking -> id of the task that takes its place and loses its own.
            tasks: new tasks, to be inserted.
        """
        with self._write() as connection:
            self._put_tasks_in(connection, project_id, list(tasks))
            for old, new in moves.items():
                here = RANKING.c.project_id == project_id
                connection.execute(sa.delete(RANKING).where(here, RANKING.c.task_id == new))
                connection.execute(sa.update(RANKING).where(here, RANKING.c.task_id == old).values(task_id=new))

    # -- published queries --------------------------------------------------------------------------------------------
    def put_queries(self, project_id: int, version: str, queries: Mapping[int, Query]) -> None:
        """Store what tasks of a version are published with, by task id; it stays when the version is pruned."""
        keys = {"project_id": project_id, "version": version, "asked_at": self.time()}
        rows = [
            keys | {"task_id": task, "boxes": boxes_to_text(query.boxes), "cost": query.cost}
            for task, query in queries.items()
        ]
        self._upsert(QUERIES, rows, keys=("project_id", "task_id", "version"))

    def drop_queries(self, project_id: int, version: str, task_ids: Iterable[int]) -> None:
        """Delete the queries of tasks of a version that Label Studio does not show."""
        with self._write() as connection:
            for chunk in chunks(list(task_ids), 500):
                table = QUERIES.c
                here = sa.and_(table.project_id == project_id, table.version == version, table.task_id.in_(chunk))
                connection.execute(sa.delete(QUERIES).where(here))

    def shown_queries(self, project_id: int, version: str) -> set[int]:
        """Return the tasks that were published with a query of a version."""
        here = sa.and_(QUERIES.c.project_id == project_id, QUERIES.c.version == version)
        with self._read() as connection:
            return set(connection.execute(sa.select(QUERIES.c.task_id).where(here)).scalars())

    def published_queries(self, project_id: int, task_id: int | None = None) -> dict[tuple[int, str], Query]:
        """Return published queries by task id and version, the newest last: of a task, or of all when it is None."""
        table = QUERIES.c
        here = table.project_id == project_id
        if task_id is not None:
            here = sa.and_(here, table.task_id == task_id)
        with self._read() as connection:
            rows = connection.execute(sa.select(QUERIES).where(here).order_by(table.asked_at, table.task_id))
            return {(row.task_id, row.version): Query(boxes_from_text(row.boxes), row.cost) for row in rows}


def _status_of() -> sa.ScalarSelect[str]:
    """Return the status of the task of a row of the ranking.

    Asked row by row: a database that joins may begin with the unlabelled tasks, which are nearly all, and sort them.
    """
    same = sa.and_(TASKS.c.project_id == RANKING.c.project_id, TASKS.c.task_id == RANKING.c.task_id)
    return sa.select(TASKS.c.status).where(same).correlate(RANKING).scalar_subquery()


def _ranking_row(project_id: int, task_id: int, priority: float, query: Query | None) -> dict[str, Any]:
    asked = {"boxes": boxes_to_text(query.boxes), "cost": query.cost} if query else {"boxes": "", "cost": None}
    return {"project_id": project_id, "task_id": task_id, "priority": priority} | asked


# -- behind the rows -------------------------------------------------------------------------------------------------
def behind_key(project_id: int) -> str:
    """Return the key under which the end of a project's rows is kept."""
    return f"behind_{project_id}"


def behind_of(connection: sa.Connection, project_id: int) -> Behind | None:
    """Return where the rows of a project's ranking end; None: they are all."""
    kept = connection.execute(sa.select(META.c.value).where(META.c.key == behind_key(project_id))).scalar()
    return None if kept is None else Behind(**json.loads(kept))


def is_behind(behind: Behind, project_id: int, *, audit: bool) -> sa.ColumnElement[bool]:
    """Return the condition of tasks that wait behind an end, with an error or a row or without.

    Args:
        behind: the end.
        project_id: Label Studio's.
        audit: those of the audit set, or the others.
    """
    own = TASKS.c
    later = own.turn > behind.turn if audit else sa.and_(own.turn == 0, own.draw > behind.draw)
    side = own.audit == (sa.true() if audit else sa.false())
    here = sa.and_(own.project_id == project_id, own.status == "unlabelled", side)
    return sa.and_(here, later, own.task_id <= behind.newest)
