"""reconcile: look at one project in Label Studio and do what is missing.

    sync      read what changed
    train     if enough is new or training was asked for; publish the version or keep it back
    decide    in stream mode, which of the tasks that arrived are worth labelling
    rank      if the model, the strategy or the pool changed
    follow up where more of an image is asked for that a task labelled in part: another task of it
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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

from ml_backend.errors import (
    CheckpointError,
    ConfigurationError,
    ImageError,
    LabelStudioError,
    LabelStudioNotFound,
    LeaseLost,
    MaskError,
    NextmaskError,
    TrainingError,
    TrainingWaits,
)
from ml_backend.learning.checkpoints import Version
from ml_backend.projects.connection import show_passed_over
from ml_backend.projects.services import (
    Services,
    keep_good_settings,
    last_good_settings,
    model_number,
    project_settings,
    ranking_number,
)
from ml_backend.projects.settings import read_settings
from ml_backend.projects.shown_masks import Scorer
from ml_backend.store import Project, Task
from ml_backend.system.disk import disk_full, is_full, shortage
from ml_backend.worker.decide import CHUNK, Observer, Stream
from ml_backend.worker.follow_up import FollowUps
from ml_backend.worker.pseudo_labels import proposal_text
from ml_backend.worker.publish import PriorityQueue
from ml_backend.worker.score_pool import WINDOWS_ALWAYS_SCORED, Ranker
from ml_backend.worker.sync import Sync, Synced, remove_unused_masks
from ml_backend.worker.train import Trainer

logger = logging.getLogger(__name__)

TOP_UP_SECONDS = 15.0
"""How often labels are read and the queue is filled up while a training runs."""
WAITING_TO_TRAIN = "waiting for another training"
"""Stage of a project that is at rest but for a training, which another project's comes before."""
RETRY_IMAGES_SECONDS = 600.0
"""How often images that could not be had are asked for again."""
_OF_ONE_STEP = (CheckpointError, ConfigurationError, ImageError, MaskError, TrainingError)
"""What goes wrong with one step of a run and leaves the others possible."""
_STAGE_SECONDS = 0.3
_NEW_SHARE = 0.1
_SHOWN_TASKS = 5
_BAD_REQUEST = 400


def reconcile(services: Services, project_id: int, check: Callable[[], None]) -> None:
    """Do everything that is missing for a project; see the module's docstring.

    Args:
        check: raises LeaseLost when this process no longer holds the project's lease; called before every write.

    Raises:
        NextmaskError: what stands in the way; the caller notes it and tries again later.
        DiskFull: there is too little room to begin, or there was none for what was to be written.
    """
    if full := shortage(services.settings.model_dir):
        raise full  # while there is room to say so
    project = services.store.project(project_id)
    if project is None:
        return
    project = replace(project, extra_params=read_settings(services, project))
    settings, problem = project_settings(services, project)
    if problem is None:
        keep_good_settings(services, project)
    elif last_good_settings(services, project_id) is None:
        raise problem
    _Run(replace(services, settings=settings), project_id, check).run()
    if problem is not None:  # the queue goes on with the settings that were good last, and the project says why
        raise problem


class _Run:
    """One run of `reconcile`."""

    def __init__(self, services: Services, project_id: int, check: Callable[[], None]) -> None:
        self._services, self._settings, self._store = services, services.settings, services.store
        self._id, self._check = project_id, check
        self._checkpoints = services.checkpoints(project_id)
        self._masks = services.project_folder(project_id) / "masks"
        self._queue = PriorityQueue(services.client, services.store, project_id, check=check)
        self._stage_written, self._topped_up = ("", 0.0), -math.inf
        self._undecided, self._in_training, self._waits = set[int](), False, False

    def run(self) -> None:
        """Do all steps, in order."""
        failed_before = self._store.task_errors(self._id)
        try:
            self._steps()
        except LeaseLost:  # whoever holds it now tells
            raise
        except NextmaskError:
            self._tell_failed_tasks(failed_before)
            raise
        self._tell_failed_tasks(failed_before)

    def _steps(self) -> None:
        synced = self._sync()
        self._label_map = synced.label_map
        self._tell_stand_in()
        self._retry_images()
        problem = self._attempt(self._train)
        problem = self._attempt(self._decide) or problem
        problem = self._attempt(self._rank) or problem
        problem = self._follow_up() or problem
        self._publish()
        if pruned := self._queue.prune(retire_seconds=self._settings.retire_hours * 3600):
            text = f"Predictions of {', '.join(pruned)}, which nobody can have open any more, are deleted."
            self._store.add_event(self._id, "pruned", text)
            self._publish()  # deleting a version can reset the host's pointer: look again
        self._remove_old_versions()
        # At every look, whether it changed something or not: one that was killed leaves files behind, too.
        remove_unused_masks(self._masks, self._store.label_files(self._id))
        if problem is not None:
            raise problem
        if self._undecided:
            self._store.wake(self._id)
        error, stage = self._project().train_error, WAITING_TO_TRAIN if self._waits else ""
        self._store.update_project(self._id, state="failed" if error else "waiting", stage=stage, error=error)

    def _tell_stand_in(self) -> None:
        """Tell once that a version is damaged."""
        found, key = self._checkpoints.stand_in(), f"stand_in_{self._id}"
        if found == (self._store.note(key) or ""):
            return
        self._store.set_note(key, found)
        if found:
            logger.error("project=%s %s", self._id, found)
            self._store.add_event(self._id, "failed", found, level="error")

    def _attempt(self, step: Callable[[], None]) -> NextmaskError | None:
        """Take a step; where it fails, return why: that must not keep annotators from the queue that is there."""
        try:
            step()
        except TrainingWaits:  # this project is woken when its turn comes
            self._waits = True
        except _OF_ONE_STEP as error:
            if is_full(error):
                raise disk_full(self._settings.model_dir) from error
            return error
        except NextmaskError:  # the lease is lost, the host is away: nothing else can be done either
            raise
        except Exception as error:
            if is_full(error):
                raise disk_full(self._settings.model_dir) from error
            logger.exception("project=%s a step failed", self._id)
            return NextmaskError(f"Unexpected {type(error).__name__}; the log has the details.")
        return None

    def _tell_failed_tasks(self, before: Mapping[int, str]) -> None:
        """Tell once, and in one event, of tasks that cannot be used: ten thousand may fail for one reason."""
        news = {task: error for task, error in self._store.task_errors(self._id).items() if task not in before}
        if not news:
            return
        shown = [f"task {task}: {error}" for task, error in list(news.items())[:_SHOWN_TASKS]]
        more = f" … and {len(news) - _SHOWN_TASKS} more" if len(news) > _SHOWN_TASKS else ""
        count = "One task" if len(news) == 1 else f"{len(news)} tasks"
        text = f"{count} cannot be used: {'; '.join(shown)}{more}"
        self._store.add_event(self._id, "task_failed", text, level="warning")

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
        height, width = self._services.images_of(self._id).load(reference).shape[:2]
        return height, width

    def _retry_images(self) -> None:
        """Ask again for images that failed: their host may be back, their link mended."""
        failed = [task for task in self._store.tasks(self._id, status="unlabelled") if task.error]
        marker = f"images_retried_{self._id}"
        last = float(self._store.note(marker) or 0)
        if not failed or 0 <= time.time() - last < RETRY_IMAGES_SECONDS:
            return
        images = self._services.images_of(self._id).prefetch([task.image for task in failed])
        for task, (_, path) in zip(failed, images, strict=True):
            self._check()
            if not isinstance(path, ImageError):
                self._store.set_task_error(self._id, task.task_id, "")
        self._store.set_note(marker, str(time.time()))

    # -- train --------------------------------------------------------------------------------------------------------
    def _train(self) -> None:
        """Train if there is reason to."""
        self._in_training = True
        try:
            if self._trainer().run(self._label_map):
                self._label_map = self._sync().label_map
        finally:
            self._in_training = False

    def _while_training(self) -> None:
        """Keep annotators supplied while the training process works."""
        self._check()
        if time.monotonic() - self._topped_up < TOP_UP_SECONDS:
            return
        try:
            self._label_map = self._sync(quietly=True).label_map
            if self._project().ranking_version:
                self._publish(quietly=True)
            if self._in_training:  # and not in a ranking, which has its tasks already
                self._decide_meanwhile()
        except NextmaskError as error:  # the training goes on; the next look tries again
            self._check()
            if isinstance(error, LabelStudioNotFound) and self._services.client.is_gone(self._id):
                raise  # nobody waits for this training
            logger.warning("project=%s top-up during training failed: %s", self._id, error)
        self._topped_up = time.monotonic()

    # -- decide -------------------------------------------------------------------------------------------------------
    def _decide(self) -> None:
        """In stream mode: keep or pass over what arrived. What there is no time for waits for the next look."""
        model = self._checkpoints.current()
        self._undecided = self._stream().run(partial(self._observer, model) if model else None)

    def _observer(self, model: Version) -> Observer | None:
        self._trainer().ensure_committee(model, self._store.tasks(self._id, status="labelled"), self._label_map)
        return self._ranker(model).observer()

    def _decide_meanwhile(self) -> None:
        """The same while a training runs: a few at a time, and only with the committee that is there."""
        model = self._checkpoints.current()
        self._stream(quietly=True).run(self._ranker(model).observer if model else None, most=CHUNK)

    # -- rank ---------------------------------------------------------------------------------------------------------
    def _rank(self) -> None:
        """Rank if there is reason to."""
        tasks = [task for task in self._store.tasks(self._id) if task.task_id not in self._undecided]
        model = self._checkpoints.current()
        key = self._ranking_key(model)
        if not self._needs_ranking(key, tasks):
            self._follow(model, tasks)
            return
        self._stage("ranking", 0, sum(task.status == "unlabelled" for task in tasks))
        self._put_ranking(model, tasks, key)
        # Afterwards: a run that is killed in between ranks once more, and none waits for a change in vain.
        self._store.set_note(self._ranked_key, _answers(tasks))

    def _put_ranking(self, model: Version | None, tasks: list[Task], key: str) -> None:
        started = time.monotonic()
        if model is not None:
            labelled = [task for task in tasks if task.status == "labelled"]
            self._trainer().ensure_committee(model, labelled, self._label_map)
        number = self._next_ranking_number()
        round_number = model.number - 1 if model else 0
        ranking = self._ranker(model).rank(tasks, round_number=round_number)
        version = f"nextmask-{model.number if model else 0}.{number}"
        self._check()
        self._store.put_ranking(
            self._id,
            ranking.priorities,
            ranking.queries,
            ranking.information,
            ranking_version=version,
            ranking_number=number,
            ranking_key=key,
            ranking_seconds=(seconds := time.monotonic() - started),
            pseudo_labels=proposal_text(self._settings, ranking.pseudo_labels),
        )
        total, scored = len(ranking.priorities), ranking.scored
        logger.info("project=%s version=%s ranked=%s scored=%s seconds=%.1f", self._id, version, total, scored, seconds)
        by = self._settings.strategy if model is not None else "a diverse first batch"
        text = f"{version}: {total} tasks in order in {seconds:.0f} s, {scored} of them scored ({by})."
        self._store.add_event(self._id, "ranked", text)

    def _follow(self, model: Version | None, tasks: list[Task]) -> None:
        """Where nothing is left to rank, let an empty ranking name the version that serves now."""
        shown = model_number(self._project().ranking_version)
        if model is None or model.number == shown or any(task.status == "unlabelled" for task in tasks):
            return
        number = self._next_ranking_number()
        self._check()
        version = f"nextmask-{model.number}.{number}"
        self._store.put_ranking(self._id, {}, ranking_version=version, ranking_number=number, ranking_key="")

    def _ranking_key(self, model: Version | None) -> str:
        s = self._settings
        if model is None:
            return "no model"
        scoring = [s.pool_sample, s.committee, s.members, s.query_images, s.cost_measure]
        parts = [model.number, s.strategy, s.strategy_options, *scoring, self._label_map.digest]
        shown = [s.minimum_area, s.polygon_tolerance]
        return hashlib.sha256(json.dumps(parts + shown, sort_keys=True).encode()).hexdigest()

    def _needs_ranking(self, key: str, tasks: list[Task]) -> bool:
        project = self._project()
        unlabelled = [task for task in tasks if task.status == "unlabelled"]
        in_parts = any(task.boxes for task in tasks)
        if not unlabelled and not in_parts:
            return False
        if not project.ranking_version or project.ranking_key != key:
            return True
        if self._is_answered(tasks):
            return True
        usable = [task.task_id for task in unlabelled if not task.error]
        ranked = len(self._store.priorities(self._id, usable))
        new = len(usable) - ranked
        window = self._settings.queue_window
        small = len(unlabelled) <= WINDOWS_ALWAYS_SCORED * window
        return new > 0 and (
            small or new >= _NEW_SHARE * len(unlabelled) or ranked < self._settings.queue_refill * window
        )

    def _is_answered(self, tasks: list[Task]) -> bool:
        """Whether regions were asked for and all of them came back: then there may be others worth asking for.

        Not when nothing came back since the last ranking, which asked in vain: the next one would ask for the same.
        """
        asked = self._store.ranked_queries(self._id)
        waiting = {task.task_id for task in tasks if task.status == "unlabelled" and not task.error}
        if not asked or asked.keys() & waiting:
            return False
        if self._follow_ups().pending(tasks, self._project().ranking_version):
            return False
        return self._store.note(self._ranked_key) != _answers(tasks)

    @property
    def _ranked_key(self) -> str:
        return f"ranked_answers_{self._id}"

    def _next_ranking_number(self) -> int:
        """Never a number that the host has seen, even if the state here was lost: imports only ever append."""
        seen = [ranking_number(version) for version in self._services.client.model_versions(self._id)]
        return max([self._project().ranking_number, *seen]) + 1

    # -- follow up ----------------------------------------------------------------------------------------------------
    def _follow_up(self) -> NextmaskError | None:
        """Make tasks for what is asked of images that are labelled in part; one that is refused stops nothing else."""
        if self._label_map.query_control is None:
            return None
        try:
            self._follow_ups().make(self._project().ranking_version, window=self._settings.queue_window)
        except LabelStudioError as error:
            if error.status != _BAD_REQUEST:
                raise
            return error
        return None

    # -- publish ------------------------------------------------------------------------------------------------------
    def _publish(self, *, quietly: bool = False) -> None:
        project = self._project()
        ranked = self._to_publish()
        if not ranked and project.published_version not in ("", project.ranking_version):
            ranked = self._stand_in()
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
            text = f"{published.created} tasks were added to the queue of {project.ranking_version}"
            self._store.add_event(self._id, "queue_filled", f"{text}, which now holds {published.in_queue}.")

    def _to_publish(self) -> list[tuple[Task, float]]:
        """Return the ranked tasks, best first; where regions are asked for, those with regions."""
        ranked, asked = self._store.ranked(self._id), self._store.ranked_queries(self._id)
        return [entry for entry in ranked if entry[0].task_id in asked] if asked else ranked

    def _stand_in(self) -> list[tuple[Task, float]]:
        """Return a labelled task: the host serves no version that no prediction carries, and no task that is done."""
        labelled = self._store.tasks(self._id, status="labelled")
        return next(([(task, 0.0)] for task in labelled if not task.error), [])

    def _ranked_model(self, project: Project) -> Version | None:
        number = model_number(project.ranking_version)
        return self._checkpoints.get(number) if number else None

    # -- prune ------------------------------------------------------------------------------------------------------
    def _remove_old_versions(self) -> None:
        """Remove old model versions from disk, but none whose queue is shown or made."""
        if not self._settings.keep_versions:
            return
        project = self._project()
        needed = {model_number(version) for version in (project.published_version, project.ranking_version)}
        self._check()
        removed = self._checkpoints.remove_old(self._settings.keep_versions, needed=needed)
        if removed:
            numbers = ", ".join(map(str, removed))
            text = f"Old model versions are removed from disk (NEXTMASK_KEEP_VERSIONS): {numbers}. Their measures stay."
            self._store.add_event(self._id, "version_deleted", text)

    # -- parts --------------------------------------------------------------------------------------------------------
    def _ranker(self, model: Version | None) -> Ranker:
        return Ranker(
            self._services,
            self._id,
            model,
            self._label_map,
            stage=self._stage,
            check=self._check,
            heartbeat=self._while_training,
        )

    def _stream(self, *, quietly: bool = False) -> Stream:
        client = self._services.client

        def progress(done: int, total: int) -> None:
            if not quietly:
                self._stage("ranking", done, total)

        return Stream(
            client,
            self._store,
            self._settings,
            self._id,
            check=self._check,
            progress=progress,
            show=lambda: show_passed_over(client, self._id),
        )

    def _follow_ups(self) -> FollowUps:
        return FollowUps(self._services.client, self._store, self._id, check=self._check)

    def _trainer(self) -> Trainer:
        return Trainer(self._services, self._id, stage=self._stage, heartbeat=self._while_training)

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
        begins = {"stage_since": time.time()} if stage != self._stage_written[0] else {}
        self._stage_written = (stage, now)
        state = stage if stage in {"syncing", "ranking", "publishing"} else "training"
        self._store.update_project(self._id, state=state, stage=stage, stage_done=done, stage_total=total, **begins)


def _answers(tasks: Iterable[Task]) -> str:
    """Return a digest of what people have done with the tasks so far."""
    done = [(task.task_id, task.status, task.label_digest) for task in tasks]
    return hashlib.sha256(json.dumps(done).encode()).hexdigest()
