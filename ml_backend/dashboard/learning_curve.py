"""The learning curve: what each version measured, against labels and against hours of labelling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_backend.learning.checkpoints import VersionRecord
from ml_backend.learning.measuring import Estimate
from ml_backend.learning.measuring.words import measured_text, recorded
from ml_backend.store import Label


@dataclass(frozen=True)
class Point:
    """What one version measured; nothing where no label was held out when it was trained.

    Attributes:
        labels: how many it was made with, held-out ones included. hours: of labelling them; None where not known.
        held_out: how many labels it was measured on.
        miou, dice: held-out means. class_iou, class_dice: in the order of the curve's classes; None where a class is in
            no held-out label.
    """

    version: int
    accepted: bool
    labels: int
    hours: float | None
    held_out: int
    miou: Estimate | None
    dice: Estimate | None
    class_iou: tuple[Estimate | None, ...]
    class_dice: tuple[Estimate | None, ...]


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
        """Return an object for the chart: measures, and texts that have their intervals, too."""
        points = [_shown(point) for point in self.measured]
        return {"classes": self.classes, "hasHours": self.has_hours, "points": points}


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

    def by_class(kind: str) -> tuple[Estimate | None, ...]:
        return tuple(recorded(record, kind, name) for name in classes)

    return Point(
        version=record.number,
        accepted=record.accepted,
        labels=len(record.labels),
        hours=sum(known) / 3600 if known else None,
        held_out=len(record.held_out),
        miou=recorded(record, "miou"),
        dice=recorded(record, "mean_dice"),
        class_iou=by_class("iou"),
        class_dice=by_class("dice"),
    )


def _shown(point: Point) -> dict[str, Any]:
    """Return a point for the chart: each measure, its text, and the ends of the intervals of the means."""
    means = {"miou": point.miou, "dice": point.dice}
    of_classes = {"classIou": point.class_iou, "classDice": point.class_dice}
    return {
        "version": point.version,
        "accepted": point.accepted,
        "labels": point.labels,
        "hours": point.hours,
        **{name: one.value if one else None for name, one in means.items()},
        **{name: [one.value if one else None for one in many] for name, many in of_classes.items()},
        "intervals": {name: [one.low, one.high] if one else [None, None] for name, one in means.items()},
        "texts": {name: measured_text(one) for name, one in means.items()}
        | {name: [measured_text(one) for one in many] for name, many in of_classes.items()},
    }
