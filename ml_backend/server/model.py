"""Predictions as Label Studio asks for them, whichever server takes the request: ours, or that of label-studio-ml."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_backend.annotations.boxes import Query
from ml_backend.annotations.label_map import LabelMap, label_map_of
from ml_backend.errors import DiskFull, ImageError, NextmaskError, OutOfMemory, StoreUnavailable
from ml_backend.images.references import as_imported
from ml_backend.label_studio.predictions import NO_VERSION, SERVED_LAST, model_number, score_of
from ml_backend.projects.audit import audit_set, group_of
from ml_backend.projects.services import Services
from ml_backend.projects.serving import serving_predictor
from ml_backend.projects.settings import project_settings
from ml_backend.projects.shown_masks import MaskRenderer, Shown
from ml_backend.server.smart_tools import SmartTools, is_about_smart_tools
from ml_backend.settings import Settings
from ml_backend.store import Project, Store, Task

logger = logging.getLogger(__name__)


class NextmaskModel:
    """Predicts masks with the version that is published in the task's project.

    Args:
        project_id: of all tasks, as Label Studio writes it; without it, the first task that names a project does.
        label_config: of the project, as the request has it; without it, the one that the store knows.
        smart_tools: answer clicks and boxes, and remember them from one request to the next.

    Attributes:
        failures: tasks of the last `predict` that got no mask because something failed.
    """

    def __init__(
        self,
        services: Services,
        project_id: str | int | None = None,
        label_config: str | None = None,
        smart_tools: SmartTools | None = None,
    ) -> None:
        self._services = services
        self._smart_tools = smart_tools or SmartTools(services)
        self._project_id = _project_id(project_id)
        self._label_config = label_config
        self.failures = 0

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: object = None, **_params: Any
    ) -> list[dict[str, Any]]:
        """Return one prediction per task, in order, whatever happens to single tasks.

        A task that cannot be predicted gets an empty result and the score that is served last.

        Args:
            tasks: Label Studio tasks: `id`, `data`, `project`.
            context: of a request of a smart tool: `result` with its clicks and boxes, or `event`.
        """
        started = time.monotonic()
        project_id = self._project_id or next((_project_id(task.get("project")) for task in tasks), None)
        project = None if project_id is None else self._services.store.project(project_id)
        version = served_version(project)
        try:
            if is_about_smart_tools(context):
                predictions = [self._suggestion(task, project, version, context) for task in tasks]
            else:
                predictions = self._predictions(tasks, project, version)
        except (NextmaskError, MemoryError, RuntimeError) as error:
            if not isinstance(error, NextmaskError) and not _is_out_of_memory(error):
                raise
            logger.warning("project=%s version=%s no predictions: %s", project_id, version, error)
            self.failures = len(tasks)
            predictions = [_empty(version, SERVED_LAST) for _ in tasks]
        seconds = time.monotonic() - started
        logger.info("project=%s version=%s predicted=%s seconds=%.2f", project_id, version, len(tasks), seconds)
        return predictions

    def _suggestion(
        self, task: Mapping[str, Any], project: Project | None, version: str, context: object
    ) -> dict[str, Any]:
        """Return what a smart tool is answered with; what is wrong with its request as `error`."""
        (score,) = self._scores([task], project)
        answer = _empty(version, score)
        if project is None:
            return answer
        suggestion = self._smart_tools.answer(project, task, context, self._label_config)
        if suggestion.problem:
            logger.warning("project=%s task=%s no suggestion: %s", project.id, _task_id(task), suggestion.problem)
            answer["error"] = suggestion.problem
        return {**answer, "result": suggestion.regions}

    def _predictions(
        self, tasks: Sequence[Mapping[str, Any]], project: Project | None, version: str
    ) -> list[dict[str, Any]]:
        number, scores = model_number(version), self._scores(tasks, project)
        if project is None or not number:
            return [_empty(version, score) for score in scores]
        s = self._services
        settings, _ = project_settings(s.settings, s.store, project)
        label_map = label_map_of(self._label_config or project.label_config, settings)
        audit = audit_set(settings, s.store, project.id)
        predictor = serving_predictor(s, project.id, number)
        deadline = time.monotonic() + s.settings.predict_seconds
        renderer = MaskRenderer(
            settings,
            s.store,
            project.id,
            label_map,
            images=s.images_of(project.id),
            predictor=lambda: predictor,
            audit=audit,
        )
        # Label Studio may resolve cloud URIs before it sends a task; the store knows images as they were imported.
        references = [as_imported(label_map.image_reference(_data(task)) or "") for task in tasks]
        groups = self._groups(tasks, references, project.id, settings)
        known = [
            Task(project.id, _task_id(task) or 0, reference, group_key=group)
            for task, reference, group in zip(tasks, references, groups, strict=True)
        ]
        masked = [bool(task.image) and not audit.has(task.group_key) for task in known]
        shown = renderer.show(
            [task.image for task, is_masked in zip(known, masked, strict=True) if is_masked],
            is_late=lambda: s.stopping.is_set() or time.monotonic() > deadline,
        )
        empty = [task.image for task, is_masked in zip(known, masked, strict=True) if task.image and not is_masked]
        without = renderer.show_nothing(empty if renderer.audits_by_points else ())
        answers = [
            _no_image(label_map) if not task.image else next(shown) if is_masked else next(without, None)
            for task, is_masked in zip(known, masked, strict=True)
        ]
        return self._answers(known, answers, scores, project.id, version, renderer)

    def _groups(
        self, tasks: Sequence[Mapping[str, Any]], references: Sequence[str], project_id: int, settings: Settings
    ) -> list[str]:
        """Return what each image is of: as the store knows it, or as the task tells that no look has seen yet."""
        ids = [_task_id(task) for task in tasks]
        known = self._services.store.tasks_by_id(project_id, {task_id for task_id in ids if task_id is not None})
        return [
            known[task_id].group_key if task_id in known else group_of(_data(task), reference, settings)
            for task_id, task, reference in zip(ids, tasks, references, strict=True)
        ]

    def _answers(
        self,
        tasks: Sequence[Task],
        answers: Iterable[Shown | ImageError | None],
        scores: Iterable[float],
        project_id: int,
        version: str,
        renderer: MaskRenderer,
    ) -> list[dict[str, Any]]:
        predictions, kept, asked = [], list[tuple[int, float, bytes | None]](), dict[int, Query]()
        for task, answer, score in zip(tasks, answers, scores, strict=True):
            prediction, task_id = _empty(version, score), task.task_id
            if answer is None and task_id:  # an audit image: that it opened empty is kept, too
                kept.append((task_id, score, None))
            if isinstance(answer, Shown):
                query = renderer.question(task, answer.size)
                asking = renderer.asking(answer, task, query)
                prediction["result"] = list(asking.regions)
                if task_id:
                    kept.append((task_id, score, asking.png))
                    asked.update({task_id: query} if query else {})
            elif answer is not None:
                self.failures += 1
                logger.warning("project=%s task=%s no prediction: %s", project_id, task_id or None, answer)
                if isinstance(answer, OutOfMemory) and task_id:
                    self._services.store.set_task_error(project_id, task_id, str(answer))
            predictions.append(prediction)
        try:
            # Kept so that what the annotator changes can be computed from it, and what was asked for is known.
            self._services.store.put_queries(project_id, version, asked)
            self._services.store.put_published(project_id, version, kept)
        except (DiskFull, StoreUnavailable) as error:  # a mask without anything to compare with is better than none
            logger.error("project=%s version=%s predictions are not kept: %s", project_id, version, error)
        return predictions

    def _scores(self, tasks: Sequence[Mapping[str, Any]], project: Project | None) -> list[float]:
        """Return the tasks' scores by the stored ranking, so that no prediction on demand jumps the queue."""
        ids = [_task_id(task) for task in tasks]
        ranked = [task_id for task_id in ids if task_id is not None]
        priorities = self._services.store.priorities_of_all(project.id, ranked) if project else {}
        return [score_of(priorities[task_id]) if task_id in priorities else SERVED_LAST for task_id in ids]


def served_version(project: Project | None) -> str:
    """Return the version that serves a project, by the name that its predictions carry."""
    return project.published_version if project and project.published_version else NO_VERSION


def wake(store: Store, project_id: int, event: object) -> None:
    """Let the worker look at a project; the event START_TRAINING asks for a training, too."""
    store.wake(project_id, train=event == "START_TRAINING")


def payload_project(payload: Mapping[str, Any]) -> int | None:
    """Return the project's id in a webhook payload, or None."""
    project = payload.get("project")
    return _project_id(project.get("id") if isinstance(project, Mapping) else project)


def _project_id(value: object) -> int | None:
    """Read a project's id: 3, "3", or "3.1700000000" as Label Studio writes it in requests."""
    return _number(str(value).partition(".")[0])


def _task_id(task: Mapping[str, Any]) -> int | None:
    return _number(str(task.get("id")))


def _number(digits: str) -> int | None:
    """Read an id as Label Studio gives them; None for anything else, whatever was sent."""
    return int(digits) or None if digits.isdecimal() and len(digits) < 12 else None


def _is_out_of_memory(error: Exception) -> bool:
    from ml_backend.learning.networks import is_out_of_memory  # torch takes seconds to import

    return is_out_of_memory(error)


def _data(task: Mapping[str, Any]) -> Mapping[str, Any]:
    data = task.get("data")
    return data if isinstance(data, Mapping) else {}


def _empty(version: str, score: float) -> dict[str, Any]:
    return {"result": [], "score": score, "model_version": version}


def _no_image(label_map: LabelMap) -> ImageError:
    return ImageError(f"The task's data has no image under {label_map.image_variable!r}.")
