"""Images whose files are cut short: which tasks have one, kept for status and dashboard; the worker finds them."""

from __future__ import annotations

import json
from collections.abc import Collection

from ml_backend.store import Store

_SHOWN = 5


def images_in_part(store: Store, project_id: int) -> list[int]:
    """Return the ids of tasks whose image is shown in part, in order."""
    return list(json.loads(store.value(_key(project_id)) or "[]"))


def put_images_in_part(store: Store, project_id: int, task_ids: Collection[int]) -> None:
    """Keep the ids of tasks whose image is shown in part."""
    store.set_value(_key(project_id), json.dumps(sorted(task_ids)))


def in_part_text(task_ids: Collection[int]) -> str:
    """Say of which tasks, at least one, the image is shown in part, and what to do."""
    ids = sorted(task_ids)
    listed = ", ".join(map(str, ids[:_SHOWN])) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
    what = f"The image of task {listed} is" if len(ids) == 1 else f"The images of tasks {listed} are"
    return (
        f"{what} used in part, as the browser shows it: the file is cut short, and what is missing is white."
        " Put the whole file in its place, or upload it anew."
    )


def _key(project_id: int) -> str:
    return f"images_in_part_{project_id}"
