"""Decides when a project is trained, runs the training, and decides which version serves."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from ml_backend.annotations.label_map import LabelMap
from ml_backend.errors import DiskFull, ImageError, NextmaskError, TrainingError
from ml_backend.learning.checkpoints import Version
from ml_backend.learning.ranking import make_strategy
from ml_backend.learning.training import process as training_process
from ml_backend.projects.parts import MergedLabel, parts_of, supervising
from ml_backend.store import Task
from ml_backend.system.disk import RESERVE, disk_full, free_bytes, shortage
from ml_backend.worker.look import Look
from ml_backend.worker.pseudo_labels import PseudoLabels
from ml_backend.worker.sync import sync

if TYPE_CHECKING:
    from ml_backend.learning.training import Item, Job, Progress

logger = logging.getLogger(__name__)

RETRY_SECONDS = 900.0
"""Pause before a training that failed is tried again on the same data."""

_TRAINING_SETTINGS = (
    "train_from",
    "architecture",
    "encoder",
    "encoder_weights",
    "network_options",
    "dropout",
    "input_size",
    "iterations",
    "batch_size",
    "learning_rate",
    "train_encoder",
    "patience",
    "publish_tolerance",
    "held_out_minimum",
    "seed",
)


def train(look: Look) -> None:
    """Train the project if there is reason to, and publish the version or keep it back.

    Raises:
        TrainingError: training did not end with a model; it is tried again later, or when the data changes.
        TrainingWaits: another project trains.
    """
    look.is_training = True
    try:
        if Trainer(look).run():
            sync(look)  # people went on labelling
    finally:
        look.is_training = False


class Trainer:
    """Training of one project."""

    def __init__(self, look: Look) -> None:
        self._look, self._settings, self._store = look, look.settings, look.store
        self._id, self._checkpoints = look.project_id, look.checkpoints

    def run(self) -> bool:
        """Train if there is reason to; return whether a version was made.

        Raises:
            TrainingError: training did not end with a model; it is tried again later, or when the data changes.
            TrainingWaits: another project trains.
        """
        self.settle()
        label_map = self._look.label_map
        labelled = supervising(self._store.tasks(self._id, status="labelled"))
        digest = self._data_digest(labelled, label_map)
        if not self._is_wanted(labelled, label_map, digest):
            self._look.services.turns.leave(self._id)
            return False
        _refuse_one_class(label_map)
        self._refuse_copies()
        requested_at = self._requested_at()
        try:
            with self._turn():
                number = self._train(labelled, label_map, digest)
        except TrainingError as error:
            changes = {"failed_digest": self._attempt(digest), "retry_at": time.time() + RETRY_SECONDS}
            self._store.update_project(self._id, train_error=str(error), **changes)
            self._look.tell("training_failed", str(error), level="error")
            self._store.count(f"trainings_failed_{self._id}")
            self._answer_request(requested_at)
            raise
        self._store.update_project(self._id, train_error="")
        logger.info("project=%s model=%s trained labels=%s", self._id, number, len(labelled))
        self._store.count(f"trainings_trained_{self._id}")
        self._look.tell("trained", _what_was_trained(self._checkpoints.get(number)))
        self._answer_request(requested_at)
        self.settle()
        return True

    def settle(self) -> None:
        """Publish the newest version if that was not decided yet: a worker may have died right after training."""
        latest, project = self._checkpoints.latest(), self._store.project(self._id)
        if latest is None or project is None or latest.number <= project.decided_model:
            return
        if latest.record.accepted:
            self._checkpoints.publish(latest.number)
        logger.info("project=%s model=%s accepted=%s", self._id, latest.number, latest.record.accepted)
        self._store.update_project(self._id, decided_model=latest.number)
        decided = "now serves" if latest.record.accepted else "was kept back"
        reason = f" ({latest.record.reason.rstrip('.')})" if latest.record.reason else ""
        text = f"Version {latest.number} {decided}{reason}."
        level = "info" if latest.record.accepted else "warning"
        self._look.tell("published" if latest.record.accepted else "kept_back", text, level=level)

    def ensure_committee(self, version: Version, labelled: Sequence[Task]) -> None:
        """Train the ensemble that the strategy asks for, when this version has none of the wanted size.

        Args:
            labelled: the labelled tasks; held-out ones are not used.

        Raises:
            ConfigurationError: the strategy is unknown or has no such option.
            TrainingError: it did not end with a committee; it is tried again after a pause, or when something changes.
            TrainingWaits: another project trains.
        """
        if self._settings.effective_committee != "ensemble" or not self._needs_committee():
            return
        label_map = self._look.label_map
        labelled, members = supervising(labelled), self._settings.effective_members
        found = self._checkpoints.committees.record(version.number)
        if found is not None and found["members"] == members:
            return
        digest = self._data_digest(labelled, label_map)
        attempt = self._attempt(f"{digest}, {members} networks for {version.number}")
        self._refuse_soon_again(attempt)
        try:
            with self._turn():
                self._train_committee(version, labelled, label_map, digest)
        except TrainingError as error:
            self._note_failure(attempt, error)
            raise
        logger.info("project=%s model=%s committee members=%s", self._id, version.number, members)

    # -- is there reason to train? ------------------------------------------------------------------------------------
    def _is_wanted(self, labelled: Sequence[Task], label_map: LabelMap, digest: str) -> bool:
        project, latest = self._store.project(self._id), self._checkpoints.latest()
        if project is None or all(task.held_out for task in labelled):  # held-out labels only measure
            return False
        if project.train_requested_at is not None:
            if not _answers(latest, digest, project.train_requested_at):
                return True
            self._store.update_project(self._id, train_requested_at=None)
        if project.failed_digest == self._attempt(digest) and _is_paused(project.retry_at):
            return False
        if latest is None:
            return len(labelled) >= self._settings.train_after
        trained = {"network_options": {}, **latest.record.settings}  # the oldest versions have none
        network = ("architecture", "encoder", "network_options", "input_size")
        other = any(trained.get(name) != getattr(self._settings, name) for name in network)
        if latest.record.data_digest == digest:
            return other
        return (
            other
            or latest.record.label_map_digest != label_map.training_digest
            or changed_labels(latest, labelled) >= self._settings.train_after
        )

    def _data_digest(self, labelled: Iterable[Task], label_map: LabelMap) -> str:
        labels = sorted((task.task_id, task.label_digest, task.held_out) for task in labelled)
        return hashlib.sha256(json.dumps([label_map.training_digest, labels]).encode()).hexdigest()

    def _attempt(self, digest: str) -> str:
        """Digest of a training on this data: another one, with mended settings, need not wait for the pause."""
        settings = {name: getattr(self._settings, name) for name in _TRAINING_SETTINGS}
        return hashlib.sha256(json.dumps([digest, settings]).encode()).hexdigest()

    def _answer_request(self, requested_at: float | None) -> None:
        """Forget the request that this training was for; one that came meanwhile stays."""
        if self._requested_at() == requested_at:
            self._store.update_project(self._id, train_requested_at=None)

    def _requested_at(self) -> float | None:
        project = self._store.project(self._id)
        return project.train_requested_at if project else None

    def _needs_committee(self) -> bool:
        return "committee" in make_strategy(self._settings.strategy, self._settings.strategy_options).needs

    def _refuse_copies(self) -> None:
        """Raise before a training whose model could not be made a committee."""
        is_dropped = self._settings.dropout > 0 or self._settings.effective_committee != "mc_dropout"
        if not is_dropped and self._needs_committee():
            raise TrainingError(
                f"NEXTMASK_DROPOUT = 0: NEXTMASK_STRATEGY = {self._settings.strategy!r} compares the members of a "
                "committee, and without dropout they would all be the same network. Set NEXTMASK_DROPOUT to 0.1 or "
                "more, or NEXTMASK_COMMITTEE to 'ensemble'."
            )

    # -- committees that failed ---------------------------------------------------------------------------------------
    def _refuse_soon_again(self, attempt: str) -> None:
        failed = json.loads(self._store.note(self._failure_key) or "{}")
        if failed.get("attempt") == attempt and _is_paused(failed["retry_at"]):
            raise TrainingError(failed["error"])

    def _note_failure(self, attempt: str, error: TrainingError) -> None:
        failed = {"attempt": attempt, "retry_at": time.time() + RETRY_SECONDS, "error": str(error)}
        self._store.set_note(self._failure_key, json.dumps(failed))
        self._look.tell("training_failed", f"Committee: {error}", level="error")

    @property
    def _failure_key(self) -> str:
        return f"committee_failed_{self._id}"

    # -- the training -------------------------------------------------------------------------------------------------
    def _train(self, labelled: Sequence[Task], label_map: LabelMap, digest: str) -> int:
        self._look.stage("training", 0, 0)
        items, unavailable = self._items(labelled)
        job = replace(self._job(items, label_map, digest), unavailable=unavailable)
        if all(item.held_out for item in items):
            return self._run(job)  # it fails, and says why: a network is not trained on its own predictions alone
        pseudo = PseudoLabels(self._look)
        with pseudo.items(self._checkpoints.current()) as more:
            return self._run(replace(job, items=(*items, *more)))

    def _train_committee(self, version: Version, labelled: Sequence[Task], label_map: LabelMap, digest: str) -> None:
        self._look.stage("training committee", 0, 0)
        items, _ = self._items([task for task in labelled if not task.held_out])
        job = self._job(items, label_map, digest)
        self._run(replace(job, parent=None, committee_of=version.number, members=self._settings.effective_members))

    def _run(self, job: Job) -> int:
        if full := shortage(self._settings.model_dir, int(self._store.note(self._room_key) or 0)):
            raise full
        try:
            return training_process.run(
                job,
                progress=self._show,
                heartbeat=self._look.attend,
                timeout=self._settings.training_minutes * 60,
            )
        except DiskFull as error:
            raise self._ask_for_room() from error

    def _ask_for_room(self) -> DiskFull:
        """Keep how much a version takes, so that the next training does not end in vain as well."""
        latest, folder = self._checkpoints.latest(), self._settings.model_dir
        needed = max(4 * RESERVE, 3 * latest.size if latest else 2 * free_bytes(folder))
        self._store.set_note(self._room_key, str(needed))
        return disk_full(folder, needed)

    @property
    def _room_key(self) -> str:
        return f"room_for_training_{self._id}"

    def _items(self, labelled: Sequence[Task]) -> tuple[list[Item], dict[str, str]]:
        """Fetch the labelled images; return the items, and by task why an image cannot be had, which is noted, too."""
        from ml_backend.learning.training import Item

        by_image: dict[str, list[Task]] = defaultdict(list)
        for task in labelled:
            by_image[task.image].append(task)
        items: list[Item] = []
        unavailable: dict[str, str] = {}
        for done, (reference, path) in enumerate(self._look.images.prefetch(list(by_image)), start=1):
            self._look.stage("fetching images", done, len(by_image))
            for label in self._labels(by_image[reference]):
                found = path if isinstance(path, ImageError) else label.mask
                for task in label.tasks if isinstance(found, NextmaskError) else ():
                    unavailable[str(task.task_id)] = str(found)
                if not isinstance(path, ImageError) and not isinstance(found, NextmaskError):
                    items.append(Item(label.key, path, found, label.held_out, label.digest))
        if unavailable:
            self._look.client.whoami()  # raises where the host is away: then it is not the images' fault
        for task_id, error in unavailable.items():
            self._store.set_task_error(self._id, int(task_id), error)
        return items, unavailable

    def _labels(self, tasks: Sequence[Task]) -> Iterator[MergedLabel]:
        """Return the labels of one image: those of the whole image each by itself, those of parts as one."""
        parts = parts_of(tasks)
        yield from (MergedLabel.of_whole(task) for task in tasks if not task.boxes)
        if parts:
            yield MergedLabel.of_parts(parts, self._look.folder / "masks")

    def _job(self, items: Sequence[Item], label_map: LabelMap, digest: str) -> Job:
        from ml_backend.learning.training import Job

        current = self._checkpoints.current()
        return Job(
            items=tuple(items),
            classes=label_map.classes,
            label_map_digest=label_map.training_digest,
            data_digest=digest,
            folder=self._checkpoints.folder,
            parent=current.number if current else None,
            device=self._settings.device,
            **{name: getattr(self._settings, name) for name in _TRAINING_SETTINGS},
        )

    def _show(self, progress: Progress) -> None:
        self._look.stage(progress.label, progress.done, progress.total)

    def _turn(self) -> AbstractContextManager[None]:
        """Hold this process's one turn to train; the project that waits longest is looked at when it ends."""
        return self._look.services.turns.take(self._id, self._store.wake)


def _what_was_trained(version: Version) -> str:
    """Say it in a sentence, with what was measured."""
    record = version.record
    measures = {name: record.measures.get(name) for name in ("miou", "mean_dice", "seconds")}
    labels = f"{len(record.labels)} labels ({len(record.held_out)} held out)"
    took = f" in {measures['seconds']:.0f} s" if measures["seconds"] is not None else ""
    names = {"miou": "mIoU", "mean_dice": "Dice"}
    found = [f"{names[key]} {measures[key]:.3f}" for key in names if measures[key] is not None]
    held_out = f"held-out {', '.join(found)}" if found else "no held-out measure yet"
    return f"Version {version.number} was trained on {labels}{took}: {held_out}."


def changed_labels(latest: Version, labelled: Iterable[Task]) -> int:
    """Count labels that are new, changed or gone since a version was trained."""
    now = {str(task.task_id): task.label_digest for task in labelled}
    used: Mapping[str, str] = {**latest.record.labels, **dict.fromkeys(latest.record.skipped, "")}
    different = sum(1 for key, digest in now.items() if used.get(key) not in {digest, ""})
    return different + len(used.keys() - now.keys())


def _refuse_one_class(label_map: LabelMap) -> None:
    """Raise before a training that would find the same everywhere."""
    if len(label_map.classes) < 2:
        raise TrainingError(
            f"The labelling configuration knows one class, {label_map.classes[0]!r}, and nothing that is not of it: "
            "there is nothing to tell apart. Add a label for the rest; or set NEXTMASK_UNPAINTED to background, where "
            "pixels that no region covers are not of that class."
        )


def _answers(latest: Version | None, digest: str, requested_at: float) -> bool:
    """Tell whether the newest version was already made for this request: a worker may have died before noting it."""
    if latest is None or latest.record.data_digest != digest:
        return False
    created_at = datetime.fromisoformat(latest.record.created_at).timestamp()
    return requested_at - 1 < created_at < time.time() + 1  # one from the future was made before the clock was set back


def _is_paused(retry_at: float | None) -> bool:
    """Whether a training that failed is still to wait; no pause is longer than it was made, whatever the clock says."""
    return 0 < (retry_at or 0) - time.time() <= RETRY_SECONDS
