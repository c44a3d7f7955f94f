"""The learning curve: what each version measured, against labels and against hours of labelling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_backend.learning.checkpoints import VersionRecord
from ml_backend.store import Label


@dataclass(frozen=True)
class Point:
    """What one version measured; nothing where no label was held out when it was trained.

    Attributes:
        labels: how many it was made with, held-out ones included. hours: of labelling them; None where not known.
        held_out: how many labels it was measured on.
        miou, dice: held-out means. class_iou, class_dice: in the order of the curve's classes. All in [0, 1]; None
            where a class is in no held-out label.
    """

    version: int
    accepted: bool
    labels: int
    hours: float | None
    held_out: int
    miou: float | None
    dice: float | None
    class_iou: tuple[float | None, ...]
    class_dice: tuple[float | None, ...]


@dataclass(frozen=True)
class LearningCurve:
    """All versions, oldest first; `classes` are those of any that was measured."""

    classes: tuple[str, ...]
    points: tuple[Point, ...]

    @property
    def has_hours(self) -> bool:
        """Whether the hours of every measured version are known."""
        return bool(self.measured) and all(point.hours is not None for point in self.measured)

    @property
    def measured(self) -> tuple[Point, ...]:
        """The points of versions that were measured."""
        return tuple(point for point in self.points if point.miou is not None)

    def as_json(self) -> dict[str, Any]:
        """Return an object for the chart."""
        return {
            "classes": self.classes,
            "hasHours": self.has_hours,
            "points": [
                {
                    "version": point.version,
                    "accepted": point.accepted,
                    "labels": point.labels,
                    "hours": point.hours,
                    "miou": point.miou,
                    "dice": point.dice,
                    "classIou": point.class_iou,
                    "classDice": point.class_dice,
                }
                for point in self.measured
            ],
        }


def learning_curve(records: Sequence[VersionRecord], labels: Iterable[Label]) -> LearningCurve:
    """Return the curve of all versions.

    Args:
        records: of all versions, oldest first.
        labels: those that are there now; a label that was drawn again counts with the time of its last drawing.
    """
    seconds = {str(label.task_id): label.lead_time for label in labels if label.lead_time is not None}
    measured = (record for record in records if record.measures.get("miou") is not None)
    classes = tuple(dict.fromkeys(name for record in measured for name in record.classes))
    return LearningCurve(classes, tuple(_point(record, classes, seconds) for record in records))


def _point(record: VersionRecord, classes: Sequence[str], seconds: Mapping[str, float]) -> Point:
    known = [seconds[task] for task in record.labels if task in seconds]
    measures = record.measures
    return Point(
        version=record.number,
        accepted=record.accepted,
        labels=len(record.labels),
        hours=sum(known) / 3600 if known else None,
        held_out=len(record.held_out),
        miou=measures.get("miou"),
        dice=measures.get("mean_dice"),
        class_iou=_by_class(measures.get("iou"), classes),
        class_dice=_by_class(measures.get("dice"), classes),
    )


def _by_class(values: Mapping[str, float | None] | None, classes: Sequence[str]) -> tuple[float | None, ...]:
    return tuple((values or {}).get(name) for name in classes)
