"""What a strategy chooses from: the images of a project's tasks, with what is labelled of them already.

An image that is labelled in part belongs to both pools: it may be asked for again. Its parts are merged, the newest
on top.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml_backend.annotations.boxes import Box, boxes_from_text
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.annotations.masks import Mask, mask_from_png
from ml_backend.errors import MaskError
from ml_backend.store import Task


@dataclass(frozen=True)
class Candidate:
    """An image that may be asked for.

    Attributes:
        task: an unlabelled task of it or, where there is none, the newest of those that label a part of it: then
            asking for more takes a follow-up task.
        parts: the tasks that label parts of it, oldest first.
    """

    task: Task
    parts: tuple[Task, ...] = ()

    @property
    def asked(self) -> tuple[Box, ...]:
        """Boxes that are labelled."""
        return tuple(box for part in self.parts for box in boxes_from_text(part.boxes))


def candidates(tasks: Iterable[Task], *, in_parts: bool) -> list[Candidate]:
    """Return what may be asked for, by id.

    Args:
        tasks: of one project, of any status.
        in_parts: whether parts of images can be asked for; otherwise images without an unlabelled task are left out.
    """
    by_image: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        by_image[task.image].append(task)
    found: list[Candidate] = []
    for same in by_image.values():
        parts = partial(same)
        waiting = [task for task in same if task.status == "unlabelled"]
        whole = any(task.status == "labelled" and not task.boxes for task in same)
        if not waiting and in_parts and parts and not whole and not _set_aside(same):
            found.append(Candidate(parts[-1], parts))
        found += [Candidate(task, parts) for task in waiting]
    return sorted(found, key=lambda candidate: candidate.task.task_id)


def partial(tasks: Iterable[Task]) -> tuple[Task, ...]:
    """Return the tasks that label a part of their image, oldest label first."""
    found = [task for task in tasks if task.status == "labelled" and task.boxes and task.mask_file]
    return tuple(sorted(found, key=lambda task: (task.updated_at, task.task_id)))


def merged(parts: Sequence[Task]) -> Mask:
    """Lay the masks of an image's parts over each other, the last on top: (H,W) uint8, 255 where no part is.

    Raises:
        MaskError: a mask cannot be decoded, or they are of different sizes.
        OSError: a mask cannot be read.
    """
    masks = [mask_from_png(Path(part.mask_file).read_bytes()) for part in parts]
    if len({mask.shape for mask in masks}) > 1:
        raise MaskError(f"parts of one image have masks of different sizes: {sorted({mask.shape for mask in masks})}")
    whole = np.full_like(masks[0], IGNORE_INDEX)
    for mask in masks:
        known = mask != IGNORE_INDEX
        whole[known] = mask[known]
    return whole


def supervising(labelled: Sequence[Task]) -> list[Task]:
    """Leave out labels of parts of images of which there is a label of the whole."""
    whole = {task.image for task in labelled if not task.boxes}
    return [task for task in labelled if not task.boxes or task.image not in whole]


def labelled_pixels(tasks: Sequence[Task]) -> NDArray[np.bool_]:
    """Return (H,W) bool, what is labelled in the masks of tasks of one image."""
    labelled: NDArray[np.bool_] = merged(tasks) != IGNORE_INDEX
    return labelled


def _set_aside(tasks: Iterable[Task]) -> bool:
    """Whether a person put a task of this image aside, or one of its labels cannot be read: it is not asked again."""
    return any(task.status in ("skipped", "broken") for task in tasks)
