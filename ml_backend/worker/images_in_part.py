"""Images whose files are cut short: they are read as browsers show them, and told once."""

from __future__ import annotations

from collections.abc import Iterable

from ml_backend.projects.images_in_part import images_in_part, in_part_text, put_images_in_part
from ml_backend.store import Task
from ml_backend.worker.look import Look


def tell_images_in_part(look: Look, tasks: Iterable[Task]) -> None:
    """Keep which tasks have such an image among those in the cache, and tell of new ones.

    Args:
        tasks: those whose images may have been read since the last time.
    """
    images, before = look.images, set(images_in_part(look.store, look.project_id))
    known = look.store.tasks_by_id(look.project_id, before) | {task.task_id: task for task in tasks}
    seen = {task.task_id: images.is_in_part(task.image) for task in known.values() if task.image}
    now = {task for task, in_part in seen.items() if (task in before if in_part is None else in_part)}
    if now != before:
        put_images_in_part(look.store, look.project_id, now)
    if news := now - before:
        look.tell("image_in_part", in_part_text(news), level="warning")


def forget_images_in_part(look: Look) -> bool:
    """Let such images be fetched anew when they are used next: their files may be whole by now.

    Returns:
        Whether there were any.
    """
    ids = set(images_in_part(look.store, look.project_id))
    for task in look.store.tasks_by_id(look.project_id, ids).values():
        look.images.forget(task.image)
    return bool(ids)
