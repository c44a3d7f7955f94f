"""Predictions in Label Studio: the names of their versions, their scores, and their import.

A version is `nextmask-M.R`: what model M shows, in the order of ranking R. The names in here are the only ones that
predictions of nextmask carry, and this module alone makes and reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ml_backend.errors import LabelStudioError
from ml_backend.label_studio.client import LabelStudio

_PREFIX: Final = "nextmask-"
NO_VERSION: Final = f"{_PREFIX}0.0"
"""What /setup and /predict answer before anything was published: no prediction carries it."""
MARKER: Final = f"{_PREFIX}passed-over"
"""Version of the empty predictions that make passed-over tasks visible; never the one that is served."""
RETURNED: Final = f"{_PREFIX}returned"
"""What markers are renamed to that no longer hold. An editor that opens a passed-over task starts from its marker, and
could not submit if that were deleted meanwhile: they go when no editor can have them open any more."""
DUPLICATE: Final = "-duplicate"
"""End of the version that a task's second prediction of one version is given. It is not deleted, since an editor that
has it open could not submit; it goes with its version."""
SERVED_LAST: Final = 1.0
"""Score of a prediction whose task is served after all others: the host serves the lowest score first."""

_BAD_REQUEST = 400


def version_name(model: int, ranking: int) -> str:
    """Return the name of the version that shows a model's masks in the order of a ranking.

    Args:
        model: number of the model; 0 before the first training, when no masks are shown.
        ranking: number of the ranking.

    >>> version_name(7, 2)
    'nextmask-7.2'
    """
    return f"{_PREFIX}{model}.{ranking}"


def model_number(version: str) -> int:
    """Return the model's number in the name of a version, `nextmask-7.2` -> 7; 0 where there is none."""
    digits = version.removeprefix(_PREFIX).partition(".")[0]
    return int(digits) if digits.isdigit() else 0


def ranking_number(version: str) -> int:
    """Return the ranking's number in the name of a version, `nextmask-7.2` -> 2; 0 where it is not one of ours."""
    if not version.startswith(_PREFIX):
        return 0
    digits = version.partition(".")[2]
    return int(digits) if digits.isdigit() else 0


def shows_masks(version: str) -> bool:
    """Whether predictions of a version of ours carry masks; before the first training they only put tasks in order."""
    return not version.startswith(f"{_PREFIX}0.")


def score_of(priority: float) -> float:
    """Return the score, in [0, 1], of a task's prediction; the host serves the lowest score first.

    Args:
        priority: in [0, 1], higher = label sooner.
    """
    return min(SERVED_LAST, max(0.0, SERVED_LAST - priority))


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
