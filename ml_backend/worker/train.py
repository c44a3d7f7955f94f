"""train: train a project when there is reason to, and let the version serve or keep it back."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ml_backend.annotations.label_map import LabelMap
from ml_backend.errors import TrainingError
from ml_backend.learning.checkpoints import Version
from ml_backend.learning.measuring.words import measured_text, recorded
from ml_backend.learning.ranking import make_strategy
from ml_backend.projects.parts import supervising
from ml_backend.settings import Settings
from ml_backend.store import Task, TrainingLabel
from ml_backend.worker.look import Look
from ml_backend.worker.sync import sync
from ml_backend.worker.training_run import TRAINING_SETTINGS, TrainingRun

logger = logging.getLogger(__name__)

RETRY_SECONDS = 900.0
"""Pause before a training that failed is tried again on the same data."""


def train(look: Look) -> None:
    """Train the project if there is reason to, and publish the version or keep it back.

    Raises:
        TrainingError: training did not end with a model; it is tried again later, or when the data changes.
        TrainingWaits: another project trains.
    """
    look.is_training = True
    try:
        if train_if_wanted(look):
            sync(look)  # people went on labelling
    finally:
        look.is_training = False


def train_if_wanted(look: Look) -> bool:
    """Train the project if there is reason to; return whether a version was made. Raises as `train`."""
    settle(look)
    label_map = look.label_map
    trigger = reason_to_train(look)
    if not trigger:
        look.services.turns.leave(look.project_id)
        return False
    labelled = supervising(look.store.tasks(look.project_id, status="labelled"))
    digest = data_digest(labelled, label_map)
    _refuse_one_class(label_map)
    _refuse_copies(look.settings)
    requested_at = _requested_at(look)
    try:
        number = TrainingRun(look, labelled, label_map, digest, trigger=trigger).train_version()
    except TrainingError as error:
        changes = {"failed_digest": attempt_digest(look.settings, digest), "retry_at": time.time() + RETRY_SECONDS}
        look.store.update_project(look.project_id, train_error=str(error), **changes)
        look.tell("training_failed", str(error), level="error")
        look.store.count(f"trainings_failed_{look.project_id}")
        _forget_request(look, requested_at)
        raise
    look.store.update_project(look.project_id, train_error="")
    logger.info("project=%s model=%s trained labels=%s", look.project_id, number, len(labelled))
    look.store.count(f"trainings_trained_{look.project_id}")
    look.tell("trained", _description(look.checkpoints.get(number)))
    _forget_request(look, requested_at)
    settle(look)
    return True


def settle(look: Look) -> None:
    """Publish the newest version if that was not decided yet: a worker may have died right after training."""
    latest, project = look.checkpoints.latest(), look.store.project(look.project_id)
    if latest is None or project is None or latest.number <= project.decided_model:
        return
    record = latest.record
    if record.accepted:
        look.checkpoints.publish(latest.number)
    logger.info("project=%s model=%s accepted=%s", look.project_id, latest.number, record.accepted)
    look.store.update_project(look.project_id, decided_model=latest.number)
    kind, decided = ("published", "now serves") if record.accepted else ("kept_back", "was kept back")
    reason = f" ({record.reason.rstrip('.')})" if record.reason else ""
    text = f"Version {latest.number} {decided}{reason}."
    if record.trial:  # of which the reason is what people want to know
        text = f"{record.reason}. Version {latest.number} {decided}."
    look.tell(kind, text, level="info" if record.accepted or record.trial else "warning")


def needs_committee(settings: Settings) -> bool:
    """Whether the strategy compares the members of a committee.

    Raises:
        ConfigurationError: the strategy is unknown or has no such option.
    """
    return "committee" in make_strategy(settings.strategy, settings.strategy_options).needs


# -- is there reason to train? ---------------------------------------------------------------------------------------
def reason_to_train(look: Look) -> str:
    """Return why to train, in words; empty: there is no reason to."""
    labelled, label_map = supervising(look.store.training_labels(look.project_id)), look.label_map
    digest = data_digest(labelled, label_map)
    project, latest = look.store.project(look.project_id), look.checkpoints.latest()
    if project is None or all(task.held_out for task in labelled):  # held-out labels only measure
        return ""
    if project.train_requested_at is not None:
        if not _answers(latest, digest, project.train_requested_at):
            return "A person asked for it."
        look.store.update_project(look.project_id, train_requested_at=None)
    if project.failed_digest == attempt_digest(look.settings, digest) and is_paused(project.retry_at):
        return ""
    if latest is None:
        enough = len(labelled) >= look.settings.train_after
        return f"The first {len(labelled)} labels were there." if enough else ""
    trained = {"network_options": {}, **latest.record.settings}  # the oldest versions have none
    if any(trained.get(name) != value for name, value in _wanted_network(look.settings).items()):
        return f"The settings of the network changed after version {latest.number}."
    if latest.record.data_digest == digest:
        return ""
    if latest.record.label_map_digest != label_map.training_digest:
        return f"The classes of the project changed after version {latest.number}."
    changed = changed_labels(latest, labelled, look.store.training_labels(look.project_id, status="unavailable"))
    if changed < look.settings.train_after:
        return ""
    return f"{changed} labels were new, changed or gone since version {latest.number}."


def _wanted_network(settings: Settings) -> dict[str, Any]:
    """Return the settings under which a version that exists is another network than the one that is wanted."""
    from ml_backend.learning.networks.recipe import network_of  # takes torch with it

    architecture, options = network_of(settings)
    return {
        "architecture": architecture,
        "encoder": settings.encoder,
        "network_options": options,
        "input_size": settings.input_size,
    }


def changed_labels(
    latest: Version, labelled: Iterable[Task | TrainingLabel], unavailable: Iterable[Task | TrainingLabel] = ()
) -> int:
    """Count labels that are new, changed or gone since a version was trained.

    Args:
        unavailable: tasks whose labels wait for their image: they are not gone.
    """
    now = {str(task.task_id): task.label_digest for task in labelled}
    used: Mapping[str, str] = {**latest.record.labels, **dict.fromkeys(latest.record.skipped, "")}
    different = sum(1 for key, digest in now.items() if used.get(key) not in {digest, ""})
    return different + len(used.keys() - now.keys() - {str(task.task_id) for task in unavailable})


def _answers(latest: Version | None, digest: str, requested_at: float) -> bool:
    """Tell whether the newest version was already made for this request: a worker may have died before noting it."""
    if latest is None or latest.record.data_digest != digest:
        return False
    created_at = datetime.fromisoformat(latest.record.created_at).timestamp()
    return requested_at - 1 < created_at < time.time() + 1  # one from the future was made before the clock was set back


def data_digest(labelled: Iterable[Task | TrainingLabel], label_map: LabelMap) -> str:
    """Return a digest of the labels that a network is trained and measured on."""
    labels = sorted((task.task_id, task.label_digest, task.held_out) for task in labelled)
    return hashlib.sha256(json.dumps([label_map.training_digest, labels]).encode()).hexdigest()


def attempt_digest(settings: Settings, digest: str) -> str:
    """Return a digest of a training on data of a digest: one with other settings need not wait for the pause."""
    values = {name: getattr(settings, name) for name in TRAINING_SETTINGS}
    return hashlib.sha256(json.dumps([digest, values]).encode()).hexdigest()


def is_paused(retry_at: float | None) -> bool:
    """Whether a training that failed is still to wait; no pause is longer than it was made, whatever the clock says."""
    return 0 < (retry_at or 0) - time.time() <= RETRY_SECONDS


# -- requests --------------------------------------------------------------------------------------------------------
def _requested_at(look: Look) -> float | None:
    project = look.store.project(look.project_id)
    return project.train_requested_at if project else None


def _forget_request(look: Look, requested_at: float | None) -> None:
    """Forget the request that this training was for; one that came meanwhile stays."""
    if _requested_at(look) == requested_at:
        look.store.update_project(look.project_id, train_requested_at=None)


# -- trainings that cannot succeed -----------------------------------------------------------------------------------
def _refuse_copies(settings: Settings) -> None:
    """Raise before a training whose model could not be made a committee."""
    is_dropped = settings.dropout > 0 or settings.effective_committee != "mc_dropout"
    if not is_dropped and needs_committee(settings):
        raise TrainingError(
            f"NEXTMASK_DROPOUT = 0: NEXTMASK_STRATEGY = {settings.strategy!r} compares the members of a "
            "committee, and without dropout they would all be the same network. Set NEXTMASK_DROPOUT to 0.1 or "
            "more, or NEXTMASK_COMMITTEE to 'ensemble'."
        )


def _refuse_one_class(label_map: LabelMap) -> None:
    """Raise before a training that would find the same everywhere."""
    if len(label_map.classes) < 2:
        raise TrainingError(
            f"The labelling configuration knows one class, {label_map.classes[0]!r}, and nothing that is not of it: "
            "there is nothing to tell apart. Add a label for the rest; or set NEXTMASK_UNPAINTED to background, where "
            "pixels that no region covers are not of that class."
        )


def _description(version: Version) -> str:
    """Say in a sentence what a version was trained on, and what was measured."""
    record, seconds = version.record, version.record.measures.get("seconds")
    labels = f"{len(record.labels)} labels ({len(record.held_out)} held out)"
    took = f" in {seconds:.0f} s" if seconds is not None else ""
    measured = measured_text(recorded(record, "miou"))
    held_out = f"held-out mIoU {measured}" if measured else "no held-out measure yet"
    return f"Version {version.number} was trained on {labels}{took}: {held_out}."
