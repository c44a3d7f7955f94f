"""What a strategy chooses from: the images of a project's tasks, with what is labelled of them already.

An image that is labelled in part belongs to both pools: it may be asked for again. Its parts are merged, the newest
on top.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ml_backend.annotations.boxes import Box, boxes_from_text
from ml_backend.projects.parts import parts_of
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
        parts = parts_of(same)
        waiting = [task for task in same if task.status == "unlabelled"]
        whole = any(task.status == "labelled" and not task.boxes for task in same)
        if not waiting and in_parts and parts and not whole and not _set_aside(same):
            found.append(Candidate(parts[-1], parts))
        found += [Candidate(task, parts) for task in waiting]
    return sorted(found, key=lambda candidate: candidate.task.task_id)


def _set_aside(tasks: Iterable[Task]) -> bool:
    """Whether a person put a task of this image aside, or one of its labels cannot be read: it is not asked again."""
    return any(task.status in ("skipped", "broken") for task in tasks)
