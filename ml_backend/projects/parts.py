"""Labels of parts of an image: which tasks carry them, and their masks laid over each other.

Where a strategy asks for regions, each task labels a part of its image: the boxes that were asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ml_backend.annotations import masks
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.annotations.masks import Mask, mask_from_png
from ml_backend.errors import MaskError
from ml_backend.store import Task, TrainingLabel
from ml_backend.system.files import Files
from ml_backend.system.whole_files import write_once


def parts_of(tasks: Iterable[Task]) -> tuple[Task, ...]:
    """Return the tasks that label a part of their image, oldest label first."""
    parts = [task for task in tasks if task.status == "labelled" and task.boxes and task.mask_file]
    return tuple(sorted(parts, key=lambda task: (task.updated_at, task.task_id)))


def merged_mask(files: Files, parts: Sequence[Task]) -> Mask:
    """Lay the masks of an image's parts over each other, the last on top: (H,W) uint8, 255 where nothing is labelled.

    Raises:
        MaskError: a mask cannot be decoded, or they are of different sizes.
        OSError: a mask cannot be read.
    """
    return merged([files.read(part.mask_file) for part in parts])


def merged(pngs: Sequence[bytes]) -> Mask:
    """Lay masks over each other, as `merged_mask` does with those of tasks.

    Raises:
        MaskError: a mask cannot be decoded, or they are of different sizes.
    """
    masks = [mask_from_png(png) for png in pngs]
    if len({mask.shape for mask in masks}) > 1:
        raise MaskError(f"parts of one image have masks of different sizes: {sorted({mask.shape for mask in masks})}")
    merged = np.full_like(masks[0], IGNORE_INDEX)
    for mask in masks:
        labelled = mask != IGNORE_INDEX
        merged[labelled] = mask[labelled]
    return merged


_Label = TypeVar("_Label", Task, TrainingLabel)


def supervising(labelled: Sequence[_Label]) -> list[_Label]:
    """Return the tasks whose labels train: of an image that is labelled as a whole, not those of its parts."""
    whole = {task.image for task in labelled if not task.boxes}
    return [task for task in labelled if not task.boxes or task.image not in whole]


@dataclass(frozen=True)
class MergedLabel:
    """The label of one image to train on, or why it cannot be used.

    Attributes:
        tasks: whose labels it is made of, the oldest first.
        mask: file of its mask.
    """

    tasks: tuple[Task, ...]
    mask: Path | MaskError

    @classmethod
    def of_whole(cls, files: Files, task: Task, folder: Path) -> MergedLabel:
        """Take the label of a whole image; the folder is for a copy, where the file is elsewhere."""
        try:
            return cls((task,), files.lasting(task.mask_file, folder))
        except FileNotFoundError as error:
            return cls((task,), MaskError(f"The mask of task {task.task_id} is gone: {error}"))

    @classmethod
    def of_parts(cls, files: Files, parts: Sequence[Task], folder: Path) -> MergedLabel:
        """Lay the labels of an image's parts over each other; several are written to a file in the folder."""
        if len(parts) == 1:
            return cls.of_whole(files, parts[0], folder)
        try:
            png = masks.png_bytes(merged_mask(files, parts))
        except (MaskError, OSError, ValueError) as error:
            ids = ", ".join(str(part.task_id) for part in parts)
            return cls(tuple(parts), MaskError(f"The labels of tasks {ids}, parts of one image, do not merge: {error}"))
        digest = hashlib.sha256(png).hexdigest()
        return cls(tuple(parts), Path(write_once(folder / f"merged-{digest[:20]}.png", png)))

    @property
    def key(self) -> str:
        """Ids of the tasks, joined by "+"."""
        return "+".join(str(task.task_id) for task in self.tasks)

    @property
    def digest(self) -> str:
        """Digests of the tasks' labels, joined by "+"."""
        return "+".join(task.label_digest for task in self.tasks)

    @property
    def group(self) -> str:
        """What its image is of, such as a video."""
        return self.tasks[0].group_key

    @property
    def held_out(self) -> bool:
        """Whether it measures and does not train: so it is as soon as any of its parts is held out."""
        return any(task.held_out for task in self.tasks)
