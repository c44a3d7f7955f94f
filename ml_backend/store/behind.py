"""Tasks behind the rows of a ranking: nobody scored them, and their place follows from chance and from the audit set.

In a large project they are nearly all. Each has a number by chance (`draw`), audit images the number of their turn, and
the ranking keeps where its rows end in both orders. So to rank costs what is scored, and a place is worked out where it
is asked for. As the queue moves on, those that are next get rows.

    rows                       behind
    s s s a s s s … r r r a r | r r r r r a r r r r r r r a …      scored, at random, audit images at their pace
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from ml_backend.store.rankings import PLACE, Rankings, behind_key, behind_of, is_behind
from ml_backend.store.tables import META, PUBLISHED, RANKING, TASKS, Behind, QueueEntry, Task
from ml_backend.store.tasks import DONE, HAS_ERROR, TASK_COLUMNS, seed_key
from ml_backend.store.transactions import chunks
from ml_backend.system.chance import draw

_FEW: Final = TASK_COLUMNS[: 1 + TASK_COLUMNS.index(TASKS.c.error)]
"""The columns of a task without a label."""
_HAS_ROW: Final = sa.exists().where(RANKING.c.project_id == TASKS.c.project_id, RANKING.c.task_id == TASKS.c.task_id)
_PLACELESS: Final = sa.and_(TASKS.c.error == "", sa.not_(_HAS_ROW))


@dataclass(frozen=True)
class Mixture:
    """The order of the tasks behind the rows: audit images at a steady pace between the others, while both last.

    Attributes:
        first: place of the first audit image, from 1; period: that of each later one comes so many places later.
            A period of 0: audit images follow behind the others.
        audits, others: numbers of tasks.
    """

    first: int
    period: int
    audits: int
    others: int

    @property
    def total(self) -> int:
        """Number of all tasks."""
        return self.audits + self.others

    def audits_before(self, place: int) -> int:
        """Return how many of the first `place` tasks are audit images.

        >>> [Mixture(2, 3, audits=9, others=4).audits_before(place) for place in range(9)]
        [0, 0, 1, 1, 1, 2, 2, 3, 4]
        """
        paced = max(0, -(-(place - self.first + 1) // self.period)) if self.period else 0
        return max(min(self.audits, paced), min(self.audits, place - self.others))

    def place_of_other(self, index: int) -> int:
        """Return the place, from 0, of one of the others."""
        gap = self.period - 1
        paced = (index - self.first + 1) // gap + 1 if self.period and index >= self.first - 1 else 0
        return index + min(self.audits, paced)

    def place_of_audit(self, index: int) -> int:
        """Return the place, from 0, of an audit image."""
        behind = self.others + index
        return min(behind, self.first - 1 + index * self.period) if self.period else behind


class TasksBehind(Rankings):
    """Tasks in the order of chance, and those of them that have no row in the ranking."""

    # -- the order of chance ------------------------------------------------------------------------------------------
    def draw_tasks(self, project_id: int, seed: int) -> None:
        """Give each task of a project its number by chance, where it has none, or one of another seed."""
        key = seed_key(project_id)
        kept = self.value(key)
        if kept == str(seed):
            return
        with self._write() as connection:
            # Those that arrive before the first ranking have the numbers of seed 0.
            missing = TASKS.c.draw.is_(None) if kept is None and seed == 0 else sa.true()
            ids = connection.execute(sa.select(TASKS.c.task_id).where(TASKS.c.project_id == project_id, missing))
            rows = [{"project": project_id, "task": task, "number": draw(seed, task)} for task in ids.scalars()]
            if rows:
                statement = "UPDATE tasks SET draw = :number WHERE project_id = :project AND task_id = :task"
                connection.execute(sa.text(statement), rows)
            self._upsert_in(connection, META, [{"key": key, "value": str(seed)}], keys=("key",))

    def drawn_tasks(self, project_id: int, *, newest: int, at_once: int = 100) -> Iterator[Task]:
        """Yield the unlabelled tasks that are not of the audit set, in the order of their numbers; read as needed.

        Args:
            project_id: Label Studio's.
            newest: highest id of a task.
            at_once: tasks that are read at once.
        """
        after = -1
        while True:
            here = is_behind(Behind(after, -1, newest), project_id, audit=False)
            query = sa.select(*_FEW, TASKS.c.draw).where(here).order_by(TASKS.c.draw, TASKS.c.task_id)
            with self._read() as connection:
                rows = connection.execute(query.limit(at_once)).all()
            for row in rows:
                yield Task(*row[:-1])
            if len(rows) < at_once:
                return
            after = rows[-1][-1]

    def tasks_done(self, project_id: int) -> list[Task]:
        """Return the tasks, by id, that are not unlabelled; and the unlabelled ones of images labelled in part."""
        done = self._select_tasks(project_id, DONE)
        in_part = {task.image for task in done if task.status == "labelled" and task.boxes}
        more = self.tasks_of_images(project_id, in_part) if in_part else []
        known = {task.task_id for task in done}
        return sorted([*done, *(task for task in more if task.task_id not in known)], key=lambda task: task.task_id)

    # -- audit images -------------------------------------------------------------------------------------------------
    def audit_tasks(self, project_id: int) -> list[tuple[int, str, str, int]]:
        """Return id, group, image and the number of the turn of all audit images, of any status."""
        own = TASKS.c
        query = sa.select(own.task_id, own.group_key, own.image, own.turn).where(own.project_id == project_id)
        with self._read() as connection:
            rows = connection.execute(query.where(own.audit == sa.true()).order_by(own.task_id))
            return [(row[0], row[1], row[2], row[3]) for row in rows]

    def set_turns(self, project_id: int, turns: Mapping[int, int]) -> None:
        """Set the numbers of turns of audit images, by task id; it changes nothing else about them."""
        rows = [{"project": project_id, "task": task, "number": turn} for task, turn in sorted(turns.items())]
        if rows:
            with self._write() as connection:
                statement = "UPDATE tasks SET turn = :number WHERE project_id = :project AND task_id = :task"
                connection.execute(sa.text(statement), rows)

    def audits_in_turn(self, project_id: int, *, newest: int, limit: int | None = None) -> dict[int, int]:
        """Return the numbers of turns, in their order, of audit images that wait and have no error."""
        here = is_behind(Behind(-1, -1, newest), project_id, audit=True)
        query = sa.select(TASKS.c.task_id, TASKS.c.turn).where(here, TASKS.c.error == "")
        with self._read() as connection:
            rows = connection.execute(query.order_by(TASKS.c.turn, TASKS.c.draw, TASKS.c.task_id).limit(limit))
            return {row[0]: row[1] for row in rows}

    # -- behind the rows ----------------------------------------------------------------------------------------------
    def count_behind(self, project_id: int, behind: Behind, *, audit: bool, placed: Collection[int]) -> int:
        """Return the number of tasks behind the rows of a ranking that is about to be kept.

        Args:
            project_id: Label Studio's.
            behind: where the rows end.
            audit: count those of the audit set, or the others.
            placed: the tasks that have rows.
        """
        with self._read() as connection:
            return self._count(connection, project_id, behind, placed, sides=(audit,))[0]

    def extend_ranking(self, project_id: int, *, least: int, more: int) -> int:
        """Give rows to the tasks that are next behind those of the ranking, once few of these wait.

        Args:
            project_id: Label Studio's.
            least: with so many that wait and have no error nothing is done.
            more: how many tasks get rows.

        Returns:
            How many got one.
        """
        if self.value(behind_key(project_id)) is None or self.has_ranked(project_id, least):
            return 0
        with self._write() as connection:
            behind = behind_of(connection, project_id)
            if behind is None:
                return 0
            mixture = self._mixture(connection, project_id, behind)
            total, lowest = mixture.total, _lowest(connection, project_id)
            tasks = self._slice(connection, project_id, behind, mixture, 0, min(more, total))
            rows = [
                {"project": project_id, "task": task.task_id, "at": _priority(lowest, place, total)}
                for place, (task, *_) in enumerate(tasks)
            ]
            if rows:
                self._next_change(connection, project_id)
                connection.execute(PLACE, rows)
            self._keep_behind(connection, project_id, _moved(behind, mixture, tasks))
        return len(rows)

    def count_ranked(self, project_id: int) -> int:
        """Return the number of unlabelled tasks in the ranking, and behind its rows."""
        return sum(self._until_changed("ranked", project_id, self._count_places))

    def _count_places(self, project_id: int) -> tuple[int, int]:
        rows = self._count_ranked(project_id)
        with self._read() as connection:
            behind = behind_of(connection, project_id)
            return rows, 0 if behind is None else sum(self._count(connection, project_id, behind))

    def queue_page(self, project_id: int, version: str, *, offset: int, limit: int) -> list[QueueEntry]:
        """Return what `Rankings.queue_page` does, and behind its rows the tasks that have none."""
        entries = super().queue_page(project_id, version, offset=offset, limit=limit)
        if len(entries) == limit:
            return entries
        rows, _ = self._until_changed("ranked", project_id, self._count_places)
        with self._read() as connection:
            behind = behind_of(connection, project_id)
            if behind is None:
                return entries
            mixture, lowest = self._mixture(connection, project_id, behind), _lowest(connection, project_id)
            total, start = mixture.total, max(0, offset - rows)
            stop = min(total, start + limit - len(entries))
            tasks = [task for task, *_ in self._slice(connection, project_id, behind, mixture, start, stop)]
            shown = self._shown(connection, project_id, version, [task.task_id for task in tasks])
        return entries + [
            QueueEntry(task, rows + place + 1, _priority(lowest, place, total), None, "", None, task.task_id in shown)
            for place, task in enumerate(tasks, start=start)
        ]

    def rank_of(self, project_id: int, task_id: int) -> int | None:
        """Return the place of a task in the queue, from 1; None where it has none."""
        rank = super().rank_of(project_id, task_id)
        if rank is not None:
            return rank
        place = self._places_behind(project_id, [task_id]).get(task_id)
        return None if place is None else self._until_changed("ranked", project_id, self._count_places)[0] + place + 1

    def priorities_of_all(self, project_id: int, task_ids: Sequence[int]) -> dict[int, float]:
        """Return the priorities of tasks by id, of those behind the rows, too; each of these takes its while."""
        known = self.priorities(project_id, task_ids)
        places = self._places_behind(project_id, [task for task in task_ids if task not in known])
        if not places:
            return known
        total = sum(self._until_changed("ranked", project_id, self._count_places)[1:])
        with self._read() as connection:
            lowest = _lowest(connection, project_id)
        return known | {task: _priority(lowest, place, total) for task, place in places.items()}

    # -- how that is worked out ---------------------------------------------------------------------------------------
    def _places_behind(self, project_id: int, task_ids: Sequence[int]) -> dict[int, int]:
        """Return the places behind the rows, from 0, of those of the tasks that are there."""
        with self._read() as connection:
            behind = behind_of(connection, project_id) if task_ids else None
            if behind is None:
                return {}
            mixture: Mixture | None = None
            places: dict[int, int] = {}
            for audit in (False, True):
                here = sa.and_(is_behind(behind, project_id, audit=audit), _PLACELESS, TASKS.c.task_id.in_(task_ids))
                for row in connection.execute(sa.select(TASKS.c.task_id, TASKS.c.draw, TASKS.c.turn).where(here)):
                    mixture = mixture or self._mixture(connection, project_id, behind)
                    number, own = (TASKS.c.turn, row.turn) if audit else (TASKS.c.draw, row.draw)
                    before = _number(connection, is_behind(behind, project_id, audit=audit), _PLACELESS, number < own)
                    place = mixture.place_of_audit(before) if audit else mixture.place_of_other(before)
                    places[row.task_id] = place
        return places

    def _mixture(self, connection: sa.Connection, project_id: int, behind: Behind) -> Mixture:
        audits, others = self._count(connection, project_id, behind)
        return Mixture(behind.first, behind.period, audits, others)

    def _count(
        self,
        connection: sa.Connection,
        project_id: int,
        behind: Behind,
        placed: Collection[int] | None = None,
        sides: Sequence[bool] = (True, False),
    ) -> list[int]:
        """Count audit images and others by the index alone, and take off the few that have an error or a row.

        Args:
            placed: tasks with rows; None: those of the ranking.
            sides: whether to count those of the audit set, and the others, in this order.
        """
        here = TASKS.c.project_id == project_id
        off = set(connection.execute(sa.select(TASKS.c.task_id).where(here, HAS_ERROR)).scalars())
        rows = sa.select(RANKING.c.task_id).where(RANKING.c.project_id == project_id)
        off.update(connection.execute(rows).scalars() if placed is None else placed)
        taken = {True: 0, False: 0}
        own = (TASKS.c.status, TASKS.c.audit, TASKS.c.turn, TASKS.c.draw, TASKS.c.task_id)
        for chunk in chunks(sorted(off), 500):
            # The conditions are Python's: with them, SQLite would go through the whole order for each chunk.
            for row in connection.execute(sa.select(*own).where(here, TASKS.c.task_id.in_(chunk))):
                number, end = (row.turn, behind.turn) if row.audit else (row.draw or -1, behind.draw)
                waits = row.status == "unlabelled" and number > end and row.task_id <= behind.newest
                taken[bool(row.audit)] += waits
        return [_number(connection, is_behind(behind, project_id, audit=side)) - taken[side] for side in sides]

    def _slice(
        self, connection: sa.Connection, project_id: int, behind: Behind, mixture: Mixture, start: int, stop: int
    ) -> list[tuple[Task, bool, int]]:
        """Return the tasks at places behind the rows, each with whether it is an audit image, and its number."""
        first, last = mixture.audits_before(start), mixture.audits_before(stop)
        spans = {True: (first, last), False: (start - first, stop - last)}
        parts: dict[bool, list[tuple[Task, bool, int]]] = {}
        for audit, (begin, end) in spans.items():
            number = TASKS.c.turn if audit else TASKS.c.draw
            query = sa.select(*_FEW, number).where(is_behind(behind, project_id, audit=audit), _PLACELESS)
            query = query.order_by(TASKS.c.turn, TASKS.c.draw, TASKS.c.task_id).offset(begin).limit(end - begin)
            rows = connection.execute(query).all() if end > begin else []
            parts[audit] = [(Task(*row[:-1]), audit, row[-1]) for row in reversed(rows)]
        steps = (mixture.audits_before(place + 1) > mixture.audits_before(place) for place in range(start, stop))
        return [parts[audit].pop() for audit in steps if parts[audit]]

    def _shown(self, connection: sa.Connection, project_id: int, version: str, task_ids: list[int]) -> set[int]:
        here = sa.and_(PUBLISHED.c.project_id == project_id, PUBLISHED.c.version == version)
        query = sa.select(PUBLISHED.c.task_id).where(here, PUBLISHED.c.task_id.in_(task_ids))
        return set(connection.execute(query).scalars()) if task_ids else set()


def _number(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> int:
    query = sa.select(sa.func.count()).select_from(TASKS).where(*conditions)
    return int(connection.execute(query).scalar_one())


def _lowest(connection: sa.Connection, project_id: int) -> float:
    """Return the lowest priority of the rows."""
    query = sa.select(sa.func.min(RANKING.c.priority)).where(RANKING.c.project_id == project_id)
    return float(connection.execute(query).scalar() or 1.0)


def _priority(lowest: float, place: int, total: int) -> float:
    """Return the priority at a place behind the rows: evenly spread, as those of tasks without a score are.

    >>> [_priority(0.5, place, 4) for place in range(4)]
    [0.4, 0.3, 0.2, 0.1]
    """
    return lowest * ((total - place) / (total + 1))


def _moved(behind: Behind, mixture: Mixture, tasks: Sequence[tuple[Task, bool, int]]) -> Behind | None:
    """Return where the rows end once the next tasks have some; None where none is left behind."""
    if len(tasks) >= mixture.total:
        return None
    draws = [number for _, audit, number in tasks if not audit]
    turns = [number for _, audit, number in tasks if audit]
    first = behind.first + len(turns) * behind.period - len(tasks) if behind.period else 0
    return Behind(max([behind.draw, *draws]), max([behind.turn, *turns]), behind.newest, max(1, first), behind.period)
