"""The committee of networks that a strategy compares, trained when it asks for one."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence

from ml_backend.errors import TrainingError
from ml_backend.learning.checkpoints import Version
from ml_backend.projects.parts import supervising
from ml_backend.store import Task
from ml_backend.worker.look import Look
from ml_backend.worker.train import RETRY_SECONDS, attempt_digest, data_digest, is_paused, needs_committee
from ml_backend.worker.training_run import TrainingRun

logger = logging.getLogger(__name__)


def ensure_committee(look: Look, version: Version, labelled: Sequence[Task]) -> None:
    """Train the ensemble that the strategy asks for, when a version has none of the wanted size.

    Args:
        labelled: the labelled tasks; held-out ones are not used.

    Raises:
        ConfigurationError: the strategy is unknown or has no such option.
        TrainingError: it did not end with a committee; it is tried again after a pause, or when something changes.
        TrainingWaits: another project trains.
    """
    if look.settings.effective_committee != "ensemble" or not needs_committee(look.settings):
        return
    labelled, members = supervising(labelled), look.settings.effective_members
    trained = look.checkpoints.committees.record(version.number)
    if trained is not None and trained["members"] == members:
        return
    digest = data_digest(labelled, look.label_map)
    attempt = attempt_digest(look.settings, f"{digest}, {members} networks for {version.number}")
    _refuse_soon_again(look, attempt)
    try:
        TrainingRun(look, labelled, look.label_map, digest).train_committee(version)
    except TrainingError as error:
        _keep_failure(look, attempt, error)
        raise
    logger.info("project=%s model=%s committee members=%s", look.project_id, version.number, members)


def _refuse_soon_again(look: Look, attempt: str) -> None:
    failed = json.loads(look.store.value(_failure_key(look)) or "{}")
    if failed.get("attempt") == attempt and is_paused(failed["retry_at"]):
        raise TrainingError(failed["error"])


def _keep_failure(look: Look, attempt: str, error: TrainingError) -> None:
    failed = {"attempt": attempt, "retry_at": time.time() + RETRY_SECONDS, "error": str(error)}
    look.store.set_value(_failure_key(look), json.dumps(failed))
    look.tell("training_failed", f"Committee: {error}", level="error")


def _failure_key(look: Look) -> str:
    return f"committee_failed_{look.project_id}"
