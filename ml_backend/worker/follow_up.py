"""Follow-up tasks: more of an image is asked for than the task labelled of which it was shown with.

Label Studio serves a task once. Where the ranking asks for further boxes of an image that is labelled in part, a task
with the same data takes the labelled one's place in the ranking. What is missing is derived anew each time: a run that
is killed after the host has made the tasks finds them, unlabelled and of the same image, and makes no others.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ml_backend.annotations.boxes import Query, boxes_from_text
from ml_backend.annotations.query_regions import overlap
from ml_backend.label_studio import LabelStudio
from ml_backend.projects import candidates as pool
from ml_backend.store import Store, Task

logger = logging.getLogger(__name__)

DATA_KEY: Final = "nextmask_follow_up"
"""In the data of a follow-up task: the first task of the same image."""


@dataclass(frozen=True)
class Pending:
    """A query that no open task can show.

    Attributes:
        task: the labelled task in whose name the ranking asks.
        first: id of the first task of the image.
        waiting: an unlabelled task of the image that the ranking asks nothing of; None where one has to be made.
    """

    task: Task
    first: int
    waiting: Task | None


def pending(tasks: Iterable[Task], asked: Mapping[int, Query], published: Collection[int]) -> list[Pending]:
    """Return the queries that wait for a follow-up task, by id of the task that the ranking names.

    A query is not among them when it is answered (its boxes overlap labelled ones, or it was published in the name of
    this task and that came back), when all of the image is labelled, or when a person put a task of the image aside.

    Args:
        tasks: all of the project.
        asked: what the ranking asks for, by task id.
        published: the tasks that were shown with a query of this ranking.
    """
    by_image: dict[str, list[Task]] = defaultdict(list)
    known = {}
    for task in tasks:
        by_image[task.image].append(task)
        known[task.task_id] = task
    found: dict[str, Pending] = {}
    for task_id, query in sorted(asked.items()):
        named = known.get(task_id)
        if named is None or named.status != "labelled" or task_id in published:
            continue
        same = by_image[named.image]
        if named.image not in found and _is_open(same, query, asked):
            waiting = next((task for task in same if task.status == "unlabelled"), None)
            found[named.image] = Pending(named, min(task.task_id for task in same), waiting)
    return list(found.values())


def _is_open(same: Sequence[Task], query: Query, asked: Mapping[int, Query]) -> bool:
    """Whether a query of an image, whose tasks these are, is neither answered nor in vain nor asked elsewhere."""
    parts = pool.partial(same)
    is_whole = any(task.status == "labelled" and not task.boxes for task in same)
    if not parts or is_whole or any(task.status in ("skipped", "broken") for task in same):
        return False
    if any(task.status == "unlabelled" and task.task_id in asked for task in same):
        return False
    return not overlap(query.boxes, (box for part in parts for box in boxes_from_text(part.boxes)))


class FollowUps:
    """Makes the follow-up tasks of one project.

    Args:
        check: called before every write; raises LeaseLost when another worker took over.
    """

    def __init__(self, client: LabelStudio, store: Store, project_id: int, *, check: Callable[[], None]) -> None:
        self._client, self._store, self._id, self._check = client, store, project_id, check

    def pending(self, tasks: Iterable[Task], version: str) -> list[Pending]:
        """Return the queries of the ranking, whose version that is, that wait for a follow-up task."""
        asked = self._store.ranked_queries(self._id)
        if not asked:
            return []
        shown = {task for task, name in self._store.published_queries(self._id) if name == version}
        return pending(tasks, asked, shown)

    def make(self, version: str, *, window: int) -> int:
        """Make follow-up tasks for the best of the pending queries; return how many the host was asked for.

        Args:
            version: of the ranking.
            window: most tasks in the queue: no follow-up is made for a query that comes after so many others.
        """
        tasks = self._store.tasks(self._id)
        wanted = self._within(window, self.pending(tasks, version), tasks)
        if not wanted:
            return 0
        existing = {one.task.task_id: one.waiting.task_id for one in wanted if one.waiting is not None}
        new = self._imported([one for one in wanted if one.waiting is None])
        moves = existing | {old: task.task_id for old, task in new.items()}
        self._check()
        self._store.move_ranking(self._id, moves, new.values())
        logger.info("project=%s version=%s follow-ups=%s", self._id, version, len(new))
        return len(new)

    def _within(self, window: int, found: Sequence[Pending], tasks: Iterable[Task]) -> list[Pending]:
        asked = self._store.ranked_queries(self._id)
        open_ones = {task.task_id for task in tasks if task.status == "unlabelled" and task.task_id in asked}
        competing = open_ones | {one.task.task_id for one in found}
        priorities = self._store.priorities(self._id, list(competing))
        best = sorted(competing, key=lambda task_id: (-priorities.get(task_id, 0.0), task_id))
        within = set(best[:window])
        return [one for one in found if one.task.task_id in within]

    def _imported(self, wanted: Sequence[Pending]) -> dict[int, Task]:
        """Create tasks with the data of others; return ours of them by id of those."""
        data = self._data([one.task.task_id for one in wanted])
        rows = [(one, data[one.task.task_id]) for one in wanted if one.task.task_id in data]
        if not rows:
            return {}
        self._check()
        created = self._client.import_tasks(self._id, [{"data": {**old, DATA_KEY: one.first}} for one, old in rows])
        if len(created) != len(rows):  # the next sync reads those that there are
            logger.warning("project=%s the host made %s of %s follow-up tasks", self._id, len(created), len(rows))
            return {}
        tasks = (
            Task(self._id, task_id, one.task.image, group_key=one.task.group_key)
            for (one, _), task_id in zip(rows, created, strict=True)
        )
        return {one.task.task_id: task for (one, _), task in zip(rows, tasks, strict=True)}

    def _data(self, task_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        return {int(item["id"]): dict(item["data"]) for item in self._client.tasks(self._id, task_ids)}
