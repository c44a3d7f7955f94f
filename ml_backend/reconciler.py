"""reconcile: look at one project in Label Studio and do what is missing.

    sync      read what changed
    train     if enough is new or training was asked for; publish the version or keep it back
    rank      if the model, the strategy or the pool changed
    publish   keep a window of the best-ranked tasks in Label Studio, with masks
    prune     delete predictions that nobody can have open any more

Webhook, timer, start-up and command line all lead here. Every step derives what to do from the host, the store and
the checkpoints, so a run that is killed anywhere is finished by the next one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace

from ml_backend.checkpoints import Version
from ml_backend.errors import ImageError, LabelStudioNotFound, NextmaskError, TrainingError
from ml_backend.priority_queue import PriorityQueue
from ml_backend.scorer import WINDOWS_ALWAYS_SCORED, Scorer
from ml_backend.services import Services, model_number, ranking_number
from ml_backend.settings import params_text
from ml_backend.store import Project, Task
from ml_backend.sync import Sync, Synced, remove_unused_masks
from ml_backend.trainer import Trainer

logger = logging.getLogger(__name__)

TOP_UP_SECONDS = 15.0
"""How often labels are read and the queue is filled up while a training runs."""
RETRY_IMAGES_SECONDS = 600.0
"""How often images that could not be had are asked for again."""
_STAGE_SECONDS = 0.3
_NEW_SHARE = 0.1


def reconcile(services: Services, project_id: int, check: Callable[[], None]) -> None:
    """Do everything that is missing for a project; see the module's docstring.

    Args:
        check: raises LeaseLost when this process no longer holds the project's lease; called before every write.

    Raises:
        NextmaskError: what stands in the way; the caller notes it and tries again later.
    """
    project = services.store.project(project_id)
    if project is None:
        return
    settings = services.settings.for_project(_extra_params(services, project))
    _Run(replace(services, settings=settings), project_id, check).run()


def _extra_params(services: Services, project: Project) -> str:
    """Ask the host for the settings entered there, and keep them for the server."""
    own = services.settings.effective_backend_url
    for backend in services.client.ml_backends(project.id):
        if str(backend.get("url", "")).rstrip("/") == own:
            text = params_text(backend.get("extra_params"))
            if text != project.extra_params:
                services.store.update_project(project.id, extra_params=text)
            return text
    return project.extra_params


class _Run:
    """One run of `reconcile`."""

    def __init__(self, services: Services, project_id: int, check: Callable[[], None]) -> None:
        self._services, self._settings, self._store = services, services.settings, services.store
        self._id, self._check = project_id, check
        self._checkpoints = services.checkpoints(project_id)
        self._masks = services.project_folder(project_id) / "masks"
        self._queue = PriorityQueue(services.client, services.store, project_id, check=check)
        self._stage_written, self._topped_up = ("", 0.0), -math.inf

    def run(self) -> None:
        """Do all steps, in order."""
        synced = self._sync()
        self._label_map = synced.label_map
        self._retry_images()
        problem = self._train()
        self._rank()
        self._publish()
        if self._queue.prune(retire_seconds=self._settings.retire_hours * 3600):
            self._publish()  # deleting a version can reset the host's pointer: look again
        if synced.changed:
            remove_unused_masks(self._masks, self._store.tasks(self._id))
        if problem is not None:
            raise problem
        error = self._project().train_error
        self._store.update_project(self._id, state="failed" if error else "waiting", stage="", error=error)

    # -- sync ---------------------------------------------------------------------------------------------------------
    def _sync(self, *, quietly: bool = False) -> Synced:
        def progress(done: int, total: int) -> None:
            if not quietly:
                self._stage("syncing", done, total)

        sync = Sync(
            self._services.client,
            self._store,
            self._settings,
            folder=self._masks,
            size_of=self._size_of,
            check=self._check,
        )
        progress(0, 0)
        synced = sync.run(self._project(), progress)
        if synced.changed:
            logger.info("project=%s synced changed=%s", self._id, synced.changed)
        return synced

    def _size_of(self, reference: str) -> tuple[int, int]:
        height, width = self._services.images.load(reference).shape[:2]
        return height, width

    def _retry_images(self) -> None:
        """Ask again for images that failed: their host may be back, their link mended."""
        failed = [task for task in self._store.tasks(self._id, status="unlabelled") if task.error]
        marker = f"images_retried_{self._id}"
        last = float(self._store.note(marker) or 0)
        if not failed or 0 <= time.time() - last < RETRY_IMAGES_SECONDS:
            return
        for task, (_, path) in zip(failed, self._services.images.prefetch([t.image for t in failed]), strict=True):
            self._check()
            if not isinstance(path, ImageError):
                self._store.set_task_error(self._id, task.task_id, "")
        self._store.set_note(marker, str(time.time()))

    # -- train --------------------------------------------------------------------------------------------------------
    def _train(self) -> TrainingError | None:
        """Train if there is reason to; a training that fails must not keep annotators from their queue."""
        trainer = Trainer(self._services, self._id, stage=self._stage, heartbeat=self._while_training)
        try:
            if trainer.run(self._label_map):
                self._label_map = self._sync().label_map
        except TrainingError as error:
            return error
        return None

    def _while_training(self) -> None:
        """Keep annotators supplied while the training process works."""
        self._check()
        if time.monotonic() - self._topped_up < TOP_UP_SECONDS:
            return
        try:
            self._label_map = self._sync(quietly=True).label_map
            if self._project().ranking_version:
                self._publish(quietly=True)
        except LabelStudioNotFound:  # the project is gone: nobody waits for this training
            raise
        except NextmaskError as error:  # the training goes on; the next look tries again
            self._check()
            logger.warning("project=%s top-up during training failed: %s", self._id, error)
        self._topped_up = time.monotonic()

    # -- rank ---------------------------------------------------------------------------------------------------------
    def _rank(self) -> None:
        unlabelled = self._store.tasks(self._id, status="unlabelled")
        model = self._checkpoints.current()
        key = self._ranking_key(model)
        if not unlabelled or not self._needs_ranking(key, unlabelled):
            return
        self._stage("ranking", 0, len(unlabelled))
        number = self._next_ranking_number()
        labelled = self._store.tasks(self._id, status="labelled")
        ranking = self._scorer(model).rank(unlabelled, labelled, round_number=model.number if model else 0)
        version = f"nextmask-{model.number if model else 0}.{number}"
        self._check()
        self._store.put_ranking(
            self._id, ranking.priorities, ranking_version=version, ranking_number=number, ranking_key=key
        )
        total = len(ranking.priorities)
        logger.info("project=%s version=%s ranked=%s scored=%s", self._id, version, total, ranking.scored)

    def _ranking_key(self, model: Version | None) -> str:
        s = self._settings
        if model is None:
            return "no model"
        parts = [model.number, s.strategy, s.strategy_options, s.pool_sample, self._label_map.digest]
        shown = [s.minimum_area, s.polygon_tolerance]
        return hashlib.sha256(json.dumps(parts + shown, sort_keys=True).encode()).hexdigest()

    def _needs_ranking(self, key: str, unlabelled: list[Task]) -> bool:
        project = self._project()
        if not project.ranking_version or project.ranking_key != key:
            return True
        usable = [task.task_id for task in unlabelled if not task.error]
        ranked = len(self._store.priorities(self._id, usable))
        new = len(usable) - ranked
        window = self._settings.queue_window
        small = len(unlabelled) <= WINDOWS_ALWAYS_SCORED * window
        return new > 0 and (
            small or new >= _NEW_SHARE * len(unlabelled) or ranked < self._settings.queue_refill * window
        )

    def _next_ranking_number(self) -> int:
        """Never a number that the host has seen, even if the state here was lost: imports only ever append."""
        seen = [ranking_number(version) for version in self._services.client.model_versions(self._id)]
        return max([self._project().ranking_number, *seen]) + 1

    # -- publish ------------------------------------------------------------------------------------------------------
    def _publish(self, *, quietly: bool = False) -> None:
        project = self._project()
        ranked = self._store.ranked(self._id)
        if not project.ranking_version or not ranked:
            return

        def progress(done: int, total: int) -> None:
            if not quietly:
                self._stage("publishing", done, total)

        progress(0, 0)
        published = self._queue.publish(
            project.ranking_version,
            ranked,
            self._scorer(self._ranked_model(project)).render,
            window=self._settings.queue_window,
            refill=self._settings.queue_refill,
            progress=progress,
        )
        if published.created:
            logger.info("project=%s queue=%s added=%s", self._id, published.in_queue, published.created)

    def _ranked_model(self, project: Project) -> Version | None:
        number = model_number(project.ranking_version)
        return self._checkpoints.get(number) if number else None

    # -- parts --------------------------------------------------------------------------------------------------------
    def _scorer(self, model: Version | None) -> Scorer:
        return Scorer(self._services, self._id, model, self._label_map, stage=self._stage, check=self._check)

    def _project(self) -> Project:
        project = self._store.project(self._id)
        if project is None:
            raise NextmaskError(f"Project {self._id} was forgotten while it was worked on.")
        return project

    def _stage(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Show what is going on, a few times a second at most."""
        now = time.monotonic()
        if stage == self._stage_written[0] and done < total and now - self._stage_written[1] < _STAGE_SECONDS:
            return
        self._stage_written = (stage, now)
        state = stage if stage in {"syncing", "ranking", "publishing"} else "training"
        self._store.update_project(self._id, state=state, stage=stage, stage_done=done, stage_total=total)
