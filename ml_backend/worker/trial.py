"""trial: where a measure decides whether the encoder learns, train the other way once, on the labels that serve.

A trial comes after a version and its queue, when nothing else is to be done, and again when there are twice as many
labels. Its version is published or kept back by `settle`, as every other; `chosen_way` reads from the records what the
trials found. The store keeps only at how many labels the last one began, before it begins: one that is killed, or that
runs out of memory, is not repeated.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from ml_backend.errors import DiskFull, NextmaskError, TrainingError, TrainingWaits
from ml_backend.label_studio.predictions import model_number
from ml_backend.learning.checkpoints import Version, VersionRecord
from ml_backend.projects.parts import supervising
from ml_backend.settings import AUTO
from ml_backend.store import Task
from ml_backend.worker.look import Look
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
    version = look.checkpoints.current()
    labels = [] if version is None else _labels_of(look, version)
    if version is None or not _is_due(look, version, labels):
        return
    key = _begun_key(look)
    before = look.store.value(key) or ""
    look.store.set_value(key, str(len(version.record.labels)))
    try:
        _make(look, version, labels)
    except (TrainingWaits, _LabelsWait) as error:
        look.services.turns.leave(look.project_id, look.store.wake)
        look.store.set_value(key, before)
        logger.info("project=%s trial left: %s", look.project_id, error)
    except (TrainingError, DiskFull) as error:
        look.tell("trial_failed", f"A trial came to nothing, and the model that serves is not affected: {error}")
    except NextmaskError:  # the worker stops, or has to: the next one makes it
        look.store.set_value(key, before)
        raise


def _make(look: Look, version: Version, labels: Sequence[Task]) -> None:
    learns = not version.record.settings.get("train_encoder", True)
    changes: dict[str, Any] = {"trial": True, "train_encoder": learns}
    if not learns:  # the encoder as it came is the one whose maps are kept
        changes["train_from"] = "scratch"
    trigger = _TRIGGER.format("learns" if learns else "stays as it is")
    digest, heartbeat = version.record.data_digest, _making_room(look)
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
    def attend() -> None:
        look.attend()
        if look.services.turns.is_awaited or reason_to_train(look):
            raise _LabelsWait("a training is due")

    return attend


# -- is it due? ------------------------------------------------------------------------------------------------------
def _is_due(look: Look, version: Version, labels: Sequence[Task]) -> bool:
    record, project = version.record, look.project
    if look.undecided or project.train_error or look.settings.train_encoder != AUTO or look.settings.iterations:
        return False  # by the device, or a person decided: equal steps would not take equal time
    if len(record.labels) < 2 * int(look.store.value(_begun_key(look)) or 0):
        return False
    if record.measures.get("groups", 0) < LEAST_GROUPS or not _are_all(labels, record):
        return False
    shown = {model_number(name) for name in (project.published_version, project.ranking_version)}
    if shown != {version.number} or reason_to_train(look):
        return False
    from ml_backend.learning.training.recipe import is_open  # takes torch with it

    return is_open(look.settings)


def _labels_of(look: Look, version: Version) -> list[Task]:
    """Return the labels that a version knows, as they were then: those that came since belong to the next one."""
    known = version.record.labels
    tasks = supervising(look.store.tasks(look.project_id, status="labelled"))
    return [task for task in tasks if known.get(str(task.task_id)) == task.label_digest]


def _are_all(labels: Sequence[Task], record: VersionRecord) -> bool:
    """Whether the labels that a version knows are all there still, and on the sides that they were on."""
    held_out = {str(task.task_id) for task in labels if task.held_out}
    return len(labels) == len(record.labels) and held_out == set(record.held_out)


def _begun_key(look: Look) -> str:
    return f"trial_{look.project_id}"
