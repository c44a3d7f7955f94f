"""Importing predictions while people delete tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ml_backend.errors import LabelStudioError
from ml_backend.label_studio.client import LabelStudio

DUPLICATE: Final = "-duplicate"
"""End of the version that a task's second prediction of one version is given. It is not deleted, since an editor that
has it open could not submit; it goes with its version."""

_BAD_REQUEST = 400


def import_for_present(
    client: LabelStudio, project_id: int, rows: Sequence[dict[str, Any]]
) -> tuple[int, list[dict[str, Any]]]:
    """Add predictions of those tasks that are still there: one that was deleted makes the host refuse all rows.

    Args:
        rows: task, result, score in [0, 1], model_version.

    Returns:
        How many the host kept, and the rows that were sent: it drops what it finds invalid without a word.
    """
    sent = list(rows)
    try:
        return client.import_predictions(project_id, sent), sent
    except LabelStudioError as error:
        if error.status != _BAD_REQUEST:
            raise
    there = set(client.task_ids(project_id))
    sent = [row for row in sent if row["task"] in there]
    return client.import_predictions(project_id, sent) if sent else 0, sent
