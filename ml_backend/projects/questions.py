"""The kinds of question of a project: what answering takes, and why one of them is asked now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import fmean
from typing import TYPE_CHECKING

from ml_backend.annotations.boxes import WHOLE_IMAGE, are_points, boxes_from_text
from ml_backend.settings import Settings
from ml_backend.store import Store, Task

if TYPE_CHECKING:
    from strategies import Prices

_LATEST = 20
"""Labels of a kind that count: masks take less as the predictions that they mend get better."""


def prices_of(tasks: Iterable[Task], settings: Settings) -> Prices:
    """Return what answering took on average, the latest labels of each kind, in the unit of the project's efforts.

    Args:
        tasks: of a project, of any status; those whose effort is known count. Audit images do not: they ask for more
            points than others, and for masks without a prediction to mend.
    """
    from strategies import Prices

    known = sorted(
        (task for task in tasks if task.status == "labelled" and task.effort is not None and not task.held_out),
        key=lambda task: (task.annotation_id or 0, task.task_id),
    )
    return Prices(points=_mean(known, _labels_points), mask=_mean(known, _labels_all), unit=settings.cost_measure)


def _mean(known: Iterable[Task], is_of_kind: Callable[[Task], bool]) -> float | None:
    efforts = [task.effort or 0.0 for task in known if is_of_kind(task)][-_LATEST:]
    return fmean(efforts) if efforts else None


def _labels_points(task: Task) -> bool:
    return are_points(boxes_from_text(task.boxes))


def _labels_all(task: Task) -> bool:
    return task.boxes == WHOLE_IMAGE


def keep_reason(store: Store, project_id: int, reason: str) -> None:
    """Put down why a ranking asks for points or masks; empty where its strategy had no choice."""
    if reason != reason_of(store, project_id):
        store.set_value(_key(project_id), reason)


def reason_of(store: Store, project_id: int) -> str:
    """Return why the ranking asks for points or masks; empty where its strategy had no choice."""
    return store.value(_key(project_id)) or ""


def _key(project_id: int) -> str:
    return f"question_{project_id}"
