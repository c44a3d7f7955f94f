"""What labelling regions was expected to take, against what it took."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ml_backend.annotations.boxes import Query
from ml_backend.store import Task

AT_LEAST = 5
"""Answered queries below which a rank correlation means nothing."""


@dataclass(frozen=True)
class EffortReport:
    """Over the answered queries whose effort was predicted and is known.

    Attributes:
        measure: clicks or seconds: the unit of the three efforts.
        tasks: how many queries there are.
        rank_correlation: Spearman's, of predicted and actual effort; None for too few queries, and where either effort
            is the same for all.
    """

    measure: str
    tasks: int
    predicted_total: float
    predicted_mean: float
    actual_mean: float
    rank_correlation: float | None

    @property
    def sentence(self) -> str:
        """The report in words."""
        order = "" if self.rank_correlation is None else f", rank correlation {self.rank_correlation:.2f}"
        return (
            f"Effort per task with regions: {self.predicted_mean:.1f} {self.measure} predicted,"
            f" {self.actual_mean:.1f} actual ({self.tasks} {'task' if self.tasks == 1 else 'tasks'}{order})."
        )


def effort_report(pairs: Sequence[tuple[float, float]], measure: str) -> EffortReport | None:
    """Compare predicted with actual effort; None as long as there is nothing to compare.

    Args:
        pairs: of `effort_pairs`.
        measure: clicks or seconds, what effort is counted in.
    """
    if not pairs:
        return None
    predicted, actual = ([pair[side] for pair in pairs] for side in (0, 1))
    return EffortReport(
        measure=measure,
        tasks=len(pairs),
        predicted_total=sum(predicted),
        predicted_mean=sum(predicted) / len(pairs),
        actual_mean=sum(actual) / len(pairs),
        rank_correlation=_rank_correlation(predicted, actual),
    )


def effort_pairs(tasks: Iterable[Task], queries: Mapping[tuple[int, str], Query]) -> list[tuple[float, float]]:
    """Return predicted and actual effort of each answered query of which both are known.

    Args:
        tasks: that label parts of images.
        queries: what tasks were published with, by task id and version, the last query last.
    """
    last = {task_id: query for (task_id, _), query in queries.items()}
    pairs: list[tuple[float, float]] = []
    for task in tasks:
        query = queries.get((task.task_id, task.shown_version)) or last.get(task.task_id)
        if task.status == "labelled" and task.boxes and task.effort is not None and query and query.cost is not None:
            pairs.append((query.cost, task.effort))
    return pairs


def _rank_correlation(predicted: list[float], actual: list[float]) -> float | None:
    if len(predicted) < AT_LEAST or len(set(predicted)) < 2 or len(set(actual)) < 2:
        return None
    from scipy.stats import spearmanr

    correlation = float(spearmanr(predicted, actual).statistic)
    return correlation if math.isfinite(correlation) else None
