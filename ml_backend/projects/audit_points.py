"""The points that are asked of audit images, and what their answers measure.

Where a project asks for points, its audit images do, too: points drawn evenly over the image, each pixel as likely, and
shown without a guess. What is counted over them is an unbiased estimate of what would be counted over whole masks; the
pixels that a strategy chose, where the network wavers, would say too little of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Box, Query, are_points, boxes_from_text
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap
from ml_backend.errors import MaskError
from ml_backend.projects.parts import MergedLabel
from ml_backend.settings import Settings
from ml_backend.system.whole_files import write_once
from strategies import catalogue

_CELLS: Final = 256
"""An image is cut into so many rows and columns at most, along which points are spread."""


def asks_points_of_audit_images(settings: Settings, label_map: LabelMap, queries: Iterable[Query]) -> bool:
    """Whether audit images are asked for points: where the others are, and the labelling configuration shows them.

    Args:
        settings: of the project.
        queries: what the ranking asks for.
    """
    if label_map.points_control is None or not settings.audit_points:
        return False
    strategy = catalogue.described(settings.strategy)
    always = strategy.asks_for_points and not strategy.without_points  # others choose in every round
    return always or any(query.asks_for_points for query in queries)


def audit_points(image: str, size: tuple[int, int], *, count: int, seed: int) -> tuple[Box, ...]:
    """Return the points of an audit image: the same whenever they are asked for.

    Args:
        image: its reference.
        size: (height, width) in pixels.
        seed: of the audit set.

    >>> {(point.top // 20, point.left // 20) for point in audit_points("a.png", (40, 40), count=4, seed=0)} == {
    ...     (0, 0), (0, 1), (1, 0), (1, 1)
    ... }
    True
    """
    from strategies import candidates  # takes torch with it

    everywhere = np.ones((min(size[0], _CELLS), min(size[1], _CELLS)), np.bool_)
    pixels, _ = candidates.uniform(everywhere, size, count, candidates.chance_of(seed, image))
    return tuple(Box.point(row, column) for row, column in pixels.tolist())


@dataclass(frozen=True)
class AuditLabel:
    """The label of an audit image, to measure with.

    Attributes:
        mask: file of its mask.
        points: how many points were drawn of the image, and alone measure; 0: the label is not one of points.
    """

    mask: Path
    points: int = 0


def audit_label(label: MergedLabel, asked: Iterable[Query], folder: Path, settings: Settings) -> AuditLabel | MaskError:
    """Return what measures of the label of an audit image: of points, the answers to those that were drawn.

    Points that annotators moved or added, and masks that they drew beside them, are where they saw something to do:
    they say nothing about the image as a whole.

    Args:
        label: whose mask can be read.
        asked: what was asked of its tasks; where nothing of that is left, the points are drawn once more.
        folder: where masks are kept.
        settings: of the project.
    """
    if isinstance(label.mask, MaskError) or not all(are_points(boxes_from_text(task.boxes)) for task in label.tasks):
        return label.mask if isinstance(label.mask, MaskError) else AuditLabel(label.mask)
    try:
        mask = masks.mask_from_png(label.mask.read_bytes())
    except (MaskError, OSError) as error:
        return MaskError(str(error))
    known = {box for query in asked if query.asks_for_points for box in query.boxes}
    size = (mask.shape[0], mask.shape[1])
    points = known or audit_points(label.tasks[0].image, size, count=settings.audit_points, seed=settings.seed)
    return _measured_at([box for box in points if box.top < size[0] and box.left < size[1]], mask, folder)


def _measured_at(points: Sequence[Box], mask: masks.Mask, folder: Path) -> AuditLabel | MaskError:
    only = np.full_like(mask, IGNORE_INDEX)
    for point in points:
        only[point.slices] = mask[point.slices]
    if (only == IGNORE_INDEX).all():
        return MaskError("None of the points that were drawn of the image was answered, so its label measures nothing.")
    png = masks.png_bytes(only)
    name = f"audit-{hashlib.sha256(png).hexdigest()[:20]}.png"
    return AuditLabel(Path(write_once(folder / name, png)), len(points))
