"""What a strategy chooses from: the images of a project's tasks, with the parts that are labelled already.

An image that is labelled in part is both labelled and unlabelled: more of it may be asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ml_backend.annotations.boxes import Box, boxes_from_text
from ml_backend.projects.parts import parts_of
from ml_backend.store import NO_LABEL, Task


@dataclass(frozen=True)
class Candidate:
    """An image that annotators may be asked to label.

    Attributes:
        task: an unlabelled task of the image or, where there is none, the newest task that labels a part of it: then
            asking for more takes a follow-up task.
        parts: the tasks that label parts of the image, oldest first.
    """

    task: Task
    parts: tuple[Task, ...] = ()

    @property
    def asked(self) -> tuple[Box, ...]:
        """Boxes that were asked for and are labelled."""
        return tuple(box for part in self.parts for box in boxes_from_text(part.boxes))


def candidates(tasks: Iterable[Task], *, in_parts: bool) -> list[Candidate]:
    """Return the images that annotators may be asked to label, by id of their tasks.

    Args:
        tasks: all tasks of a project, of any status.
        in_parts: whether parts of images can be asked for; otherwise images without an unlabelled task are left out.
    """
    tasks = list(tasks)
    touched = {task.image for task in tasks if task.status != "unlabelled"}
    # Nearly all of a large project: nobody has said anything of their image.
    result = [Candidate(task) for task in tasks if task.image not in touched]
    by_image: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        if task.image in touched:
            by_image[task.image].append(task)
    for tasks_of_image in by_image.values():
        parts = parts_of(tasks_of_image)
        unlabelled = [task for task in tasks_of_image if task.status == "unlabelled"]
        if not unlabelled and in_parts and parts and not _is_done(tasks_of_image):
            result.append(Candidate(parts[-1], parts))
        result += [Candidate(task, parts) for task in unlabelled]
    return sorted(result, key=lambda candidate: candidate.task.task_id)


def _is_done(tasks: Iterable[Task]) -> bool:
    """Whether no more of an image is to be asked for: a person labelled it as a whole, or skipped it, or a label of it
    cannot be read."""
    return any(task.status in NO_LABEL or (task.status == "labelled" and not task.boxes) for task in tasks)
