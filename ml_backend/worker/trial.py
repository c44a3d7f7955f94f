"""trial: where a measure decides whether the encoder learns, train the other way once, on the labels that serve.

A trial comes after a version and its queue, when nothing else is to be done, and again when there are twice as many
labels. Its version is published or kept back by `settle`, as every other; `chosen_way` reads from the records what the
trials found. The store keeps only at how many labels the last one began, before it begins: one that is killed, or that
runs out of memory, is not repeated.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from ml_backend.errors import DiskFull, NextmaskError, TrainingError, TrainingWaits
from ml_backend.label_studio.predictions import model_number
from ml_backend.learning.checkpoints import Version, VersionRecord
from ml_backend.projects.parts import supervising
from ml_backend.settings import AUTO
from ml_backend.store import Task
from ml_backend.worker.look import Look
from ml_backend.worker.top_up import TOP_UP_SECONDS
from ml_backend.worker.train import reason_to_train, settle
from ml_backend.worker.training_run import TrainingRun

logger = logging.getLogger(__name__)

LEAST_GROUPS = 2
"""Groups of audit images on which a version must have been measured: with one there is nothing to tell chance by."""
_TRIGGER = "A trial: would an encoder that {} measure better?"


class _LabelsWait(NextmaskError):
    """A training is due, of this project or another: the trial makes room for it, and begins again later."""


def try_other_way(look: Look) -> None:
    """Make the trial that is due, if there is one, and publish its version or keep it back.

    Labels never wait for a trial: it ends as soon as a training is due, and where another project trains or waits to.

    Raises:
        NextmaskError: the lease is lost, or the host is away; the trial is made later.
    """
    version = _to_try_against(look)
    if version is None:
        return
    key = _begun_key(look)
    before = look.store.value(key) or ""
    look.store.set_value(key, str(len(version.record.labels)))
    try:
        _make(look, version)
    except (TrainingWaits, _LabelsWait) as error:
        look.services.turns.leave(look.project_id)
        look.store.set_value(key, before)
        if isinstance(error, _LabelsWait):
            look.store.wake(look.project_id)  # the training comes with the next look, and need not wait for the timer
        logger.info("project=%s trial left: %s", look.project_id, error)
    except (TrainingError, DiskFull) as error:
        look.tell("trial_failed", f"A trial came to nothing, and the model that serves is not affected: {error}")
    except NextmaskError:  # the worker stops, or has to: the next one makes it
        look.store.set_value(key, before)
        raise


def _make(look: Look, version: Version) -> None:
    learns = not version.record.settings.get("train_encoder", True)
    changes: dict[str, Any] = {"trial": True, "train_encoder": learns}
    if not learns:  # the encoder as it came is the one whose maps are kept
        changes["train_from"] = "scratch"
    trigger = _TRIGGER.format("learns" if learns else "stays as it is")
    digest, heartbeat = version.record.data_digest, _making_room(look)
    labels = _labels_of(look, version.record)
    run = TrainingRun(look, labels, look.label_map, digest, trigger=trigger, heartbeat=heartbeat, **changes)
    look.is_training = True
    try:
        number = run.train_version()
    finally:
        look.is_training = False
    logger.info("project=%s model=%s trial, encoder learns: %s", look.project_id, number, learns)
    settle(look)
    if look.checkpoints.get(number).record.accepted:
        look.store.wake(look.project_id)


def _making_room(look: Look) -> Callable[[], None]:
    looked = -math.inf

    def attend() -> None:
        nonlocal looked
        look.attend()
        is_due = look.services.turns.is_awaited
        if not is_due and time.monotonic() - looked >= TOP_UP_SECONDS:  # as often as labels are read
            looked, is_due = time.monotonic(), bool(reason_to_train(look))
        if is_due:
            raise _LabelsWait("a training is due")

    return attend


# -- is it due? ------------------------------------------------------------------------------------------------------
def _to_try_against(look: Look) -> Version | None:
    """Return the version that serves, if a trial is due; else None."""
    project, settings = look.project, look.settings
    if settings.train_encoder != AUTO or settings.iterations:  # equal steps would not take equal time
        return None
    if look.undecided or project.train_error:
        return None
    version, latest = look.checkpoints.current(), look.checkpoints.latest()
    shown = {model_number(name) for name in (project.published_version, project.ranking_version)}
    if version is None or latest is None or {latest.number, *shown} != {version.number}:
        return None
    if len(version.record.labels) < 2 * int(look.store.value(_begun_key(look)) or 0):
        return None
    if not _can_measure(look, version.record) or reason_to_train(look):
        return None
    from ml_backend.learning.training.recipe import is_open  # takes torch with it

    return version if is_open(settings) else None


def _can_measure(look: Look, record: VersionRecord) -> bool:
    """Whether enough was measured, and all labels that a version knows are still there, on the sides they were on."""
    labels = _labels_of(look, record)
    held_out = {str(task.task_id) for task in labels if task.held_out}
    is_same = len(labels) == len(record.labels) and held_out == set(record.held_out)
    return is_same and record.measures.get("groups", 0) >= LEAST_GROUPS


def _labels_of(look: Look, record: VersionRecord) -> list[Task]:
    """Return the labels that a version knows, as they were then: those that came since belong to the next one."""
    tasks = supervising(look.store.tasks(look.project_id, status="labelled"))
    return [task for task in tasks if record.labels.get(str(task.task_id)) == task.label_digest]


def _begun_key(look: Look) -> str:
    return f"trial_{look.project_id}"
