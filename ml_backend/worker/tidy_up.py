"""tidy up: delete what nobody needs any more, and tell once of what cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager

from ml_backend.errors import LeaseLost, NextmaskError
from ml_backend.label_studio.predictions import model_number
from ml_backend.projects.folders import masks_key
from ml_backend.system.files import Files, Folder
from ml_backend.system.whole_files import PART
from ml_backend.worker.look import Look
from ml_backend.worker.publish import prune, publish

logger = logging.getLogger(__name__)

_SHOWN_TASKS = 5


def tidy_up(look: Look) -> None:
    """Delete predictions in Label Studio, model versions and masks that nobody needs any more."""
    if prune(look):
        publish(look)  # deleting a version can reset the host's pointer: look again
    _remove_old_versions(look)
    _remove_unused_masks(look)


def _remove_unused_masks(look: Look) -> None:
    """Remove masks where a task or the folder changed since that was done last: a look that was killed left files."""
    key, before = f"masks_tidied_{look.project_id}", _state_of_masks(look)
    if look.store.value(key) == before:
        return

    def used() -> Container[str]:
        files = look.store.label_files(look.project_id)
        look.check()  # whoever holds the lease now may have written files since
        return files

    for place in {_masks(look), Folder(look.made_masks)}:  # one and the same, but beside a bucket
        remove_unused_masks(place, used)
    look.store.set_value(key, before)  # where files were removed, the next look sees that none is left


def _state_of_masks(look: Look) -> str:
    """Return what moves whenever a label comes or goes, or a file of the folder, where that is known."""
    return f"{look.store.changes(look.project_id)} {look.files.changes(masks_key(look.project_id))}"


def _masks(look: Look) -> Files:
    return look.files.below(masks_key(look.project_id))


def remove_unused_masks(masks: Files, used: Callable[[], Container[str]]) -> int:
    """Delete files of masks and effort that no task refers to (replaced annotations); return how many.

    Merged masks are among them: a training makes those that it wants.

    Args:
        masks: the files of a project's masks.
        used: returns the names of files that tasks refer to; called after the files were listed, so that what is
            written meanwhile is not taken for left over.
    """
    kinds = (".png", ".npy", PART)  # the last: what a killed process was about to write
    names = masks.names()
    needed = used()
    unused = [name for name in names if name.endswith(kinds) and name not in needed]
    for name in unused:
        masks.remove(name)
    return len(unused)


@contextmanager
def tell_failed_tasks(look: Look) -> Iterator[None]:
    """Tell at the end, once and in one event, of tasks that cannot be used: ten thousand may fail for one reason."""
    before = look.store.task_errors(look.project_id)
    try:
        yield
    except LeaseLost:  # whoever holds it now tells
        raise
    except NextmaskError:
        _tell_failed_tasks(look, before)
        raise
    _tell_failed_tasks(look, before)


def _tell_failed_tasks(look: Look, before: Container[int]) -> None:
    errors = look.store.task_errors(look.project_id)
    news = [f"task {task}: {error}" for task, error in errors.items() if task not in before]
    if not news:
        return
    more = f" … and {len(news) - _SHOWN_TASKS} more" if len(news) > _SHOWN_TASKS else ""
    count = "One task" if len(news) == 1 else f"{len(news)} tasks"
    text = f"{count} cannot be used: {'; '.join(news[:_SHOWN_TASKS])}{more}"
    look.tell("task_failed", text, level="warning")


def tell_damaged_version(look: Look) -> None:
    """Tell once that a version is damaged, and which one serves in its place."""
    told, key = look.checkpoints.stand_in(), f"stand_in_{look.project_id}"
    if told == (look.store.value(key) or ""):
        return
    look.store.set_value(key, told)
    if told:
        logger.error("project=%s %s", look.project_id, told)
        look.tell("failed", told, level="error")


def _remove_old_versions(look: Look) -> None:
    """Remove old model versions from disk, but none whose queue is shown or made."""
    if not look.settings.keep_versions:
        return
    project = look.project
    needed = {model_number(version) for version in (project.published_version, project.ranking_version)}
    look.check()
    removed = look.checkpoints.remove_old(look.settings.keep_versions, needed=needed)
    if removed:
        numbers = ", ".join(map(str, removed))
        text = f"Weights of old versions were removed (NEXTMASK_KEEP_VERSIONS): {numbers}. Their measures are kept."
        look.tell("version_deleted", text)
