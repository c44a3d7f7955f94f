"""Predictions in Label Studio: the names of their versions, their scores, and their import.

A version is `nextmask-M.R`: the masks of model M in the order of ranking R. All predictions of nextmask have a version
that this module names, and no other module makes or reads these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ml_backend.errors import LabelStudioError
from ml_backend.label_studio.client import LabelStudio

_PREFIX: Final = "nextmask-"
NO_VERSION: Final = f"{_PREFIX}0.0"
"""The answer of /setup and /predict before anything was published: no prediction has it."""
MARKER: Final = f"{_PREFIX}passed-over"
"""Version of the empty predictions that mark passed-over tasks; never the served version."""
RETURNED: Final = f"{_PREFIX}returned"
"""Version of markers that no longer hold. An editor that has a passed-over task open could not submit if its
marker were deleted: markers are deleted when no editor can have them open any more."""
DUPLICATE: Final = "-duplicate"
"""End of the version that a task's second prediction of the same version gets. It is deleted together with the version,
since an editor that has it open could not submit otherwise."""
SERVED_LAST: Final = 1.0
"""Score of a prediction whose task is served after all others: Label Studio serves the lowest score first."""

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


def is_own(version: str) -> bool:
    """Whether a version is one of nextmask's."""
    return version.startswith(_PREFIX)


def model_number(version: str) -> int:
    """Return the number of the model in the name of a version, `nextmask-7.2` -> 7; 0 for other names."""
    digits = version.removeprefix(_PREFIX).partition(".")[0]
    return int(digits) if digits.isdigit() else 0


def ranking_number(version: str) -> int:
    """Return the number of the ranking in the name of a version, `nextmask-7.2` -> 2; 0 for other names."""
    if not version.startswith(_PREFIX):
        return 0
    digits = version.partition(".")[2]
    return int(digits) if digits.isdigit() else 0


def score_of(priority: float) -> float:
    """Return the score, in [0, 1], of a task's prediction; Label Studio serves the lowest score first.

    Args:
        priority: in [0, 1], higher = label sooner.
    """
    return min(SERVED_LAST, max(0.0, SERVED_LAST - priority))


def import_for_present(
    client: LabelStudio, project_id: int, rows: Sequence[dict[str, Any]]
) -> tuple[int, list[dict[str, Any]]]:
    """Add predictions, without those of deleted tasks: Label Studio would refuse all because of them.

    Args:
        rows: task, result, score in [0, 1], model_version.

    Returns:
        How many predictions Label Studio stored, and the rows that were sent: it drops invalid rows silently.
    """
    sent = list(rows)
    try:
        return client.import_predictions(project_id, sent), sent
    except LabelStudioError as error:
        if error.status != _BAD_REQUEST:
            raise
    present = set(client.task_ids(project_id))
    sent = [row for row in sent if row["task"] in present]
    return client.import_predictions(project_id, sent) if sent else 0, sent
