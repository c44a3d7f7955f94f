"""The model version that serves a project: which it is, and going back to an earlier one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ml_backend.errors import CheckpointError, FilesUnavailable
from ml_backend.label_studio.predictions import model_number
from ml_backend.learning.checkpoints import Version, VersionRecord
from ml_backend.projects.folders import checkpoints_of
from ml_backend.settings import Settings
from ml_backend.store import Project, Store
from ml_backend.system.files import Folder

if TYPE_CHECKING:
    from ml_backend.learning.prediction.predictor import Predictor
    from ml_backend.projects.services import Services

logger = logging.getLogger(__name__)


def serving_record(settings: Settings, store: Store, project: Project) -> VersionRecord | None:
    """Return the record of the version that is published; None before the first, and where it cannot be read."""
    number = model_number(project.published_version)
    try:
        return checkpoints_of(settings, store, project.id).get(number).record if number else None
    except (CheckpointError, FilesUnavailable):
        return None


def version_records(settings: Settings, store: Store, project_id: int) -> list[VersionRecord]:
    """Return the records of all versions, oldest first; none while they cannot be read, which the status says."""
    try:
        return checkpoints_of(settings, store, project_id).history()
    except FilesUnavailable:
        return []


def serving_predictor(services: Services, project_id: int, number: int) -> Predictor:
    """Return the network of the published version; where that is damaged, of the last good version.

    Raises:
        CheckpointError: no version is good.
    """
    checkpoints = services.checkpoints(project_id)
    try:
        if isinstance(checkpoints.files, Folder):  # a bucket is not asked: it may be away
            checkpoints.get(number)  # what is in memory may be damaged on disk
        return services.predictor(project_id, number)
    except CheckpointError as error:
        current = checkpoints.current()
        if current is None or current.number == number:
            raise
        logger.error("project=%s %s Version %s predicts in its place.", project_id, error, current.number)
        return services.predictor(project_id, current.number)


def roll_back(settings: Settings, store: Store, project_id: int, number: int | None = None) -> Version:
    """Let an earlier version serve, `number` or the accepted one before; the queue follows with the next reconcile.

    Raises:
        CheckpointError: there is no such version, or it is damaged.
    """
    checkpoints = checkpoints_of(settings, store, project_id)
    version = checkpoints.rollback(number)
    latest = checkpoints.latest()
    store.wake(project_id, decided_model=latest.number if latest else version.number)
    store.add_event(project_id, "rolled_back", f"Version {version.number} serves again, as requested.")
    return version
