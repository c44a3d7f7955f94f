"""The model version that serves a project: which it is, and going back to an earlier one."""

from __future__ import annotations

from ml_backend.errors import CheckpointError
from ml_backend.label_studio.predictions import model_number
from ml_backend.learning.checkpoints import Version, VersionRecord
from ml_backend.projects.folders import checkpoints_of
from ml_backend.settings import Settings
from ml_backend.store import Project, Store


def serving_record(settings: Settings, project: Project) -> VersionRecord | None:
    """Return the record of the version that is published; None before the first, and where it is damaged."""
    number = model_number(project.published_version)
    try:
        return checkpoints_of(settings, project.id).get(number).record if number else None
    except CheckpointError:
        return None


def roll_back(settings: Settings, store: Store, project_id: int, number: int | None = None) -> Version:
    """Let an earlier version serve, `number` or the accepted one before; the queue follows with the next reconcile.

    Raises:
        CheckpointError: there is no such version, or it is damaged.
    """
    checkpoints = checkpoints_of(settings, project_id)
    version = checkpoints.rollback(number)
    latest = checkpoints.latest()
    store.wake(project_id, decided_model=latest.number if latest else version.number)
    store.add_event(project_id, "rolled_back", f"Version {version.number} serves again, as requested.")
    return version
