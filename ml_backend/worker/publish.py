"""publish: keep the queue in Label Studio filled: the best-ranked tasks, as predictions with masks.

Only a window is published; it is filled up before annotators reach its end.
Everything is derived from what the host holds now, so publishing again after a crash adds what is missing and nothing
twice. A task can carry two predictions of a version all the same: Label Studio asked for a second one when the task was
opened, or an import went on that nobody waited for any more. The newer ones are renamed then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ml_backend.annotations.boxes import Query
from ml_backend.errors import LabelStudioNotFound
from ml_backend.label_studio import LabelStudio
from ml_backend.label_studio.predictions import DUPLICATE, import_for_present, model_number, score_of
from ml_backend.projects.audit import audit_set
from ml_backend.projects.shown_masks import MaskRenderer, Rendered
from ml_backend.store import Store, Task
from ml_backend.worker.look import Look

logger = logging.getLogger(__name__)

REQUEST_BYTES = 32_000_000
"""Largest import request; the host accepts 250 MB, smaller ones keep its memory and our retries small."""
REFILL = 0.5
"""Share of the window that is left when it is filled up again."""


@dataclass(frozen=True)
class Published:
    """What a publish did: rows imported, and unlabelled tasks of the window that now carry the version."""

    created: int
    in_queue: int


Render = Callable[[Sequence[Task]], Iterable[Rendered]]
Ranked = Callable[[Collection[int]], Sequence[tuple[Task, float]]]
"""Returns unlabelled tasks with priorities, best first, given those that carry the version: these, and as many others
as a window takes."""


def publish(look: Look) -> None:
    """Keep a window of the best-ranked tasks in Label Studio, with the masks of the model that they were ranked by."""
    project = look.project
    if not project.ranking_version:
        return
    window = look.settings.queue_window
    look.store.extend_ranking(look.project_id, least=3 * window, more=10 * window)
    ranked: Ranked = partial(_to_publish, look)
    if not _is_asked_for(look):
        if project.published_version in ("", project.ranking_version) or not _labelled_task(look):
            return
        ranked = partial(_labelled_task, look)
    number = model_number(project.ranking_version)
    if number:
        look.checkpoints.get(number)  # raises where the version is damaged, before anything is shown
    renderer = MaskRenderer(
        look.settings,
        look.store,
        look.project_id,
        look.label_map,
        images=look.images,
        predictor=partial(look.services.predictor, look.project_id, number, look.device) if number else None,
        audit=audit_set(look.settings, look.store, look.project_id),
        check=look.check,
    )
    look.stage("publishing")
    published = _queue_of(look).publish(
        project.ranking_version,
        ranked,
        renderer.render,
        window=look.settings.queue_window,
        refill=REFILL,
        progress=partial(look.stage, "publishing"),
    )
    if published.created:
        logger.info("project=%s queue=%s added=%s", look.project_id, published.in_queue, published.created)
        text = f"{published.created} tasks were added to the queue of {project.ranking_version}"
        look.tell("queue_filled", f"{text}, which now holds {published.in_queue}.")


def prune(look: Look) -> bool:
    """Delete predictions of versions that nobody can have open any more; return whether there were any."""
    pruned = _queue_of(look).prune(retire_seconds=look.settings.retire_hours * 3600)
    if pruned:
        look.tell("pruned", f"Predictions of {', '.join(pruned)}, which nobody can have open any more, were deleted.")
    return bool(pruned)


def _is_asked_for(look: Look) -> bool:
    """Whether there is anything to publish."""
    store, project_id = look.store, look.project_id
    return bool(
        store.asked_tasks(project_id) if store.asks_for_parts(project_id) else store.ranked(project_id, limit=1)
    )


def _to_publish(look: Look, present: Collection[int] = ()) -> list[tuple[Task, float]]:
    """Return the ranked tasks, best first; where regions are asked for, those, and the audit images between.

    Not all of a large project: so many that a window of them is left without those in `present`, and all of these.
    """
    store, project_id, most = look.store, look.project_id, look.settings.queue_window + len(present)
    if not store.asks_for_parts(project_id):
        best = store.ranked(project_id, limit=most)
        read = {task.task_id for task, _ in best}
        return best + store.ranked(project_id, among=[task for task in present if task not in read])
    asked, audit = store.asked_tasks(project_id), audit_set(look.settings, store, project_id)
    lowest = min(store.priorities(project_id, list(asked)).values(), default=1.0)
    ranked = store.ranked(project_id, lowest=lowest)
    shown = [entry for entry in ranked if entry[0].task_id in asked or audit.opens_empty(entry[0])]
    while shown and shown[-1][0].task_id not in asked:
        shown.pop()  # all that is asked for comes before: those after it wait for what the next ranking asks for
    return shown


def _labelled_task(look: Look, _present: Collection[int] = ()) -> list[tuple[Task, float]]:
    """Return a labelled task: the host serves no version that no prediction carries, and no task that is done."""
    label = look.store.a_label(look.project_id)
    return [] if label is None else [(label, 0.0)]


def _queue_of(look: Look) -> PriorityQueue:
    return PriorityQueue(look.client, look.store, look.project_id, check=look.check)


class PriorityQueue:
    """Publishes one project's ranking.

    Args:
        check: called before every write to the host; raises LeaseLost when another worker took over.
    """

    def __init__(self, client: LabelStudio, store: Store, project_id: int, *, check: Callable[[], None]) -> None:
        self._client, self._store, self._project_id, self._check = client, store, project_id, check

    def publish(
        self,
        version: str,
        ranked: Ranked,
        render: Render,
        *,
        window: int,
        refill: float,
        progress: Callable[[int, int], None],
    ) -> Published:
        """Make the window of this version complete, then make the version the one that is served.

        Args:
            ranked: what there is to publish.
            refill: share of the window under which it is filled up.
        """
        present = self._client.tasks_with_prediction(self._project_id, version)
        self._part(version, present)
        best = ranked(present)
        waiting = sum(1 for task, _ in best if task.task_id in present)
        target = min(window, len(best))
        created = 0
        if waiting < target and (waiting < refill * window or self._store_version() != version):
            missing = [entry for entry in best if entry[0].task_id not in present][: target - waiting]
            created = self._import(version, missing, render, progress)
        if created or present:
            self._switch_to(version)
        return Published(created, waiting + created)

    def _part(self, version: str, present: Collection[int]) -> None:
        """Let tasks carry one prediction of a version: the host lists each version of a task once, but counts all."""
        surplus = self._client.model_versions(self._project_id).get(version, 0) - len(present) if present else 0
        for task_id in sorted(present):
            if surplus <= 0:
                return
            self._check()
            renamed = self._client.rename_predictions(task_id, version, version + DUPLICATE, keep=1)
            surplus -= renamed
            if renamed:
                logger.warning("project=%s task=%s version=%s doubled", self._project_id, task_id, version)

    def _store_version(self) -> str:
        project = self._store.project(self._project_id)
        return project.published_version if project else ""

    def _import(
        self,
        version: str,
        missing: Sequence[tuple[Task, float]],
        render: Render,
        progress: Callable[[int, int], None],
    ) -> int:
        scores = {task.task_id: score_of(priority) for task, priority in missing}
        created = 0
        for rows, kept, asked in _requests(render([task for task, _ in missing]), scores, version):
            self._check()
            # Kept first: a prediction that is shown but not kept could not be compared with what is submitted.
            self._store.put_queries(self._project_id, version, asked)
            self._store.put_published(self._project_id, version, kept)
            created += self._import_rows(version, rows)
            progress(created, len(missing))
        return created

    def _import_rows(self, version: str, rows: list[dict[str, Any]]) -> int:
        created, rows = import_for_present(self._client, self._project_id, rows)
        if created == len(rows):
            return created
        # The host drops predictions that it finds invalid and says nothing: find them, and publish their rank alone.
        present = self._client.tasks_with_prediction(self._project_id, version)
        dropped = [row for row in rows if row["task"] not in present]
        logger.warning("project=%s version=%s predictions refused=%s", self._project_id, version, len(dropped))
        for row in dropped:
            message = "Label Studio refused the predicted mask; the task is queued without one."
            self._store.set_task_error(self._project_id, row["task"], message)
        self._store.drop_queries(self._project_id, version, [row["task"] for row in dropped])
        retried = [row | {"result": []} for row in dropped]
        return created + (self._client.import_predictions(self._project_id, retried) if retried else 0)

    def _switch_to(self, version: str) -> None:
        self._check()
        if self._client.project(self._project_id).get("model_version") != version:
            self._client.update_project(self._project_id, model_version=version)
        if self._store_version() != version:
            self._store.mark_published(self._project_id, version)
            logger.info("project=%s version=%s published", self._project_id, version)

    def prune(self, *, retire_seconds: float) -> list[str]:
        """Delete predictions of versions that were replaced longer ago than any task can be open in an editor.

        Sooner would make Submit and Skip fail in editors that show them.
        """
        pruned = list[str]()
        retired = self._store.retired_versions(self._project_id, before=self._store.steady_time() - retire_seconds)
        known = self._client.model_versions(self._project_id) if retired else {}
        for version in retired:
            self._check()
            for name in (version, version + DUPLICATE):
                self._delete(name, known)
            self._store.forget_version(self._project_id, version)
            pruned.append(version)
        return pruned

    def _delete(self, version: str, known: Container[str]) -> None:
        try:
            if version in known:
                self._client.delete_model_version(self._project_id, version)
        except LabelStudioNotFound:
            logger.info("project=%s version=%s was pruned already", self._project_id, version)


def _requests(
    rendered: Iterable[Rendered], scores: Mapping[int, float], version: str
) -> Iterator[tuple[list[dict[str, Any]], list[tuple[int, float, bytes | None]], dict[int, Query]]]:
    """Group rows into requests bounded by bytes, each with what is to be kept of it: masks, and what is asked for."""
    rows: list[dict[str, Any]] = []
    kept: list[tuple[int, float, bytes | None]] = []
    asked: dict[int, Query] = {}
    size = 0
    for item in rendered:
        task_id = item.task.task_id
        row = {"task": task_id, "result": list(item.regions), "score": scores[task_id], "model_version": version}
        length = _json_bytes(row["result"])
        if rows and size + length > REQUEST_BYTES:
            yield rows, kept, asked
            rows, kept, asked, size = [], [], {}, 0
        rows.append(row)
        kept.append((task_id, scores[task_id], item.png))
        if item.query is not None:
            asked[task_id] = item.query
        size += length
    if rows:
        yield rows, kept, asked


def _json_bytes(value: Any) -> int:
    """Return about how many bytes a value takes as JSON, rather more than fewer; to write it takes far longer."""
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, Mapping):
        return sum(len(key) + 6 + _json_bytes(each) for key, each in value.items())
    if isinstance(value, list):
        if value and isinstance(value[0], int):
            return 5 * len(value)  # bytes of a brush mask
        return 2 + sum(2 + _json_bytes(each) for each in value)
    return 25  # digits of a number
