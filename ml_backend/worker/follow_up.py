"""follow up: make another task of an image where more of it is asked for than its first task labelled.

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
from ml_backend.errors import LabelStudioError, TaskRefused
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.parts import parts_of
from ml_backend.store import NO_LABEL, Store, Task
from ml_backend.worker.look import Look

logger = logging.getLogger(__name__)

_BAD_REQUEST = 400
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
        tasks: all of the images that these ask for.
        asked: what the ranking asks for, by task id.
        published: the tasks that were shown with a query of this ranking.
    """
    by_image: dict[str, list[Task]] = defaultdict(list)
    by_id: dict[int, Task] = {}
    for task in tasks:
        by_image[task.image].append(task)
        by_id[task.task_id] = task
    waiting: dict[str, Pending] = {}
    for task_id, query in sorted(asked.items()):
        named = by_id.get(task_id)
        if named is None or named.status != "labelled" or task_id in published:
            continue
        same = by_image[named.image]
        if named.image not in waiting and _is_open(same, query, asked):
            unlabelled = next((task for task in same if task.status == "unlabelled"), None)
            waiting[named.image] = Pending(named, min(task.task_id for task in same), unlabelled)
    return list(waiting.values())


def _is_open(same: Sequence[Task], query: Query, asked: Mapping[int, Query]) -> bool:
    """Whether a query of an image with these tasks is neither answered, nor in vain, nor asked in another task."""
    parts = parts_of(same)
    is_whole = any(task.status == "labelled" and not task.boxes for task in same)
    if not parts or is_whole or any(task.status in NO_LABEL for task in same):
        return False
    if any(task.status == "unlabelled" and task.task_id in asked for task in same):
        return False
    labelled = (box for part in parts for box in boxes_from_text(part.boxes))
    return not overlap(query.boxes, (box for box in labelled if query.asks_for_points or not box.is_point))


def follow_up(look: Look) -> None:
    """Make tasks for what is asked of images that are labelled in part.

    Raises:
        TaskRefused: Label Studio takes none of them.
        LabelStudioError: it cannot be asked.
    """
    if look.label_map.query_control is None and look.label_map.points_control is None:
        return
    try:
        follow_ups_of(look).make(look.project.ranking_version, window=look.settings.queue_window)
    except LabelStudioError as error:
        if error.status != _BAD_REQUEST:
            raise
        raise TaskRefused(str(error)) from error


def follow_ups_of(look: Look) -> FollowUps:
    """Return the follow-up tasks of the project that is looked at."""
    return FollowUps(look.client, look.store, look.project_id, check=look.check)


class FollowUps:
    """Makes the follow-up tasks of one project.

    Args:
        check: called before every write; raises LeaseLost when another worker took over.
    """

    def __init__(self, client: LabelStudio, store: Store, project_id: int, *, check: Callable[[], None]) -> None:
        self._client, self._store, self._id, self._check = client, store, project_id, check

    def pending(self, version: str) -> list[Pending]:
        """Return the queries of the ranking of this version that wait for a follow-up task."""
        shown = self._store.shown_queries(self._id, version)
        labelled = self._store.asked_tasks(self._id, waiting=False) - shown
        if not labelled:
            return []
        images = {task.image for task in self._store.tasks_by_id(self._id, labelled).values()}
        tasks = self._store.tasks_of_images(self._id, images)
        return pending(tasks, self._store.ranked_queries(self._id), shown)

    def make(self, version: str, *, window: int) -> int:
        """Make follow-up tasks for the best of the pending queries; return how many the host was asked for.

        Args:
            version: of the ranking.
            window: most tasks in the queue: no follow-up is made for a query that comes after so many others.
        """
        wanted = self._within(window, self.pending(version))
        if not wanted:
            return 0
        existing = {query.task.task_id: query.waiting.task_id for query in wanted if query.waiting is not None}
        new = self._imported([query for query in wanted if query.waiting is None])
        moves = existing | {labelled: task.task_id for labelled, task in new.items()}
        self._check()
        self._store.move_ranking(self._id, moves, new.values())
        logger.info("project=%s version=%s follow-ups=%s", self._id, version, len(new))
        return len(new)

    def _within(self, window: int, queries: Sequence[Pending]) -> list[Pending]:
        """Return those queries that are among the best `window` of all that are asked for."""
        if not queries:
            return []
        competing = self._store.asked_tasks(self._id) | {query.task.task_id for query in queries}
        priorities = self._store.priorities(self._id, list(competing))
        best = sorted(competing, key=lambda task_id: (-priorities.get(task_id, 0.0), task_id))
        within = set(best[:window])
        return [query for query in queries if query.task.task_id in within]

    def _imported(self, wanted: Sequence[Pending]) -> dict[int, Task]:
        """Create tasks with the data of labelled ones; return the new tasks by id of the labelled ones."""
        data = self._data([query.task.task_id for query in wanted])
        rows = [(query, data[query.task.task_id]) for query in wanted if query.task.task_id in data]
        if not rows:
            return {}
        self._check()
        created = self._client.import_tasks(self._id, [{"data": {**old, DATA_KEY: query.first}} for query, old in rows])
        if len(created) != len(rows):  # the next sync reads those that there are
            logger.warning("project=%s the host made %s of %s follow-up tasks", self._id, len(created), len(rows))
            return {}
        tasks = (
            Task(self._id, task_id, query.task.image, group_key=query.task.group_key)
            for (query, _), task_id in zip(rows, created, strict=True)
        )
        return {query.task.task_id: task for (query, _), task in zip(rows, tasks, strict=True)}

    def _data(self, task_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        return {int(item["id"]): dict(item["data"]) for item in self._client.tasks(self._id, task_ids)}
