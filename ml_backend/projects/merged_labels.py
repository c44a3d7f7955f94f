"""The label of one image as a training takes it: a task's own mask, or the parts that several tasks label in one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_backend.annotations import masks
from ml_backend.errors import MaskError
from ml_backend.projects import candidates as pool
from ml_backend.store import Task
from ml_backend.system.whole_files import write_once


@dataclass(frozen=True)
class MergedLabel:
    """One label to train on, or why it cannot be had.

    Attributes:
        tasks: those that it is of, the oldest label first.
        mask: its file.
    """

    tasks: tuple[Task, ...]
    mask: Path | MaskError

    @classmethod
    def of_whole(cls, task: Task) -> MergedLabel:
        """Take the label of a whole image."""
        return cls((task,), Path(task.mask_file))

    @classmethod
    def of_parts(cls, parts: Sequence[Task], folder: Path) -> MergedLabel:
        """Lay the labels of an image's parts over each other; several are written to a file in the folder."""
        if len(parts) == 1:
            return cls.of_whole(parts[0])
        try:
            png = masks.png_bytes(pool.merged(parts))
        except (MaskError, OSError, ValueError) as error:
            ids = ", ".join(str(part.task_id) for part in parts)
            return cls(tuple(parts), MaskError(f"The labels of tasks {ids}, parts of one image, do not merge: {error}"))
        digest = hashlib.sha256(png).hexdigest()
        return cls(tuple(parts), Path(write_once(folder / f"merged-{digest[:20]}.png", png)))

    @property
    def key(self) -> str:
        """Ids of the tasks."""
        return "+".join(str(task.task_id) for task in self.tasks)

    @property
    def digest(self) -> str:
        """Digests of their labels."""
        return "+".join(task.label_digest for task in self.tasks)

    @property
    def held_out(self) -> bool:
        """Whether it measures and does not train: one part that measures is enough."""
        return any(task.held_out for task in self.tasks)
