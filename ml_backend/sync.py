"""Sync: bring the store up to date with Label Studio, the only source of truth.

Asks for the tasks that changed since the last sync, reads their annotations into index masks, and compares ids when
the number of tasks tells that some went. Runs again from the start when the labelling configuration changed its
meaning. Killed at any point, the next sync does the rest: the cursor moves only after everything is written.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ml_backend import masks
from ml_backend.errors import ImageError, MaskError
from ml_backend.label_config import LabelMap, parse_label_config
from ml_backend.label_studio import LabelStudio
from ml_backend.label_studio.queries import host_time
from ml_backend.settings import Settings
from ml_backend.store import Project, Store, Task

_BATCH = 50


@dataclass(frozen=True)
class Synced:
    """What a sync saw: the project as the host describes it, its labels, and how many tasks changed."""

    host: Mapping[str, Any]
    label_map: LabelMap
    changed: int


class Sync:
    """Reads one project.

    Args:
        size_of: (height, width) of an image reference; asked only for annotations that have no region to tell.
        folder: where masks are kept; file names carry the content's digest, so a file never changes.
        check: called often; raises LeaseLost when this process must stop.
    """

    def __init__(
        self,
        client: LabelStudio,
        store: Store,
        settings: Settings,
        *,
        folder: Path,
        size_of: Callable[[str], tuple[int, int]],
        check: Callable[[], None],
    ) -> None:
        self._client, self._store, self._settings = client, store, settings
        self._folder, self._size_of, self._check = folder, size_of, check

    def run(self, project: Project, progress: Callable[[int, int], None]) -> Synced:
        """Sync a project and return what was seen.

        Raises:
            LabelConfigError: no control of the configuration can hold a mask.
            LabelStudioError: the host cannot be asked.
        """
        host = self._client.project(project.id)
        label_map = parse_label_config(
            str(host["label_config"]), unpainted=self._settings.unpainted, query_control=self._settings.query_control
        )
        digest = self._reading_digest(label_map)
        since = project.cursor if project.labels_digest == digest else None
        changed, cursor = self._read_changes(project.id, label_map, since, int(host.get("task_number") or 0), progress)
        self._compare_ids(project.id, int(host.get("task_number") or 0), label_map)
        self._store.update_project(
            project.id,
            title=str(host.get("title") or ""),
            label_config=str(host["label_config"]),
            labels_digest=digest,
            cursor=cursor or project.cursor,
        )
        return Synced(host, label_map, changed)

    def _reading_digest(self, label_map: LabelMap) -> str:
        held_out = f"{self._settings.held_out_share}|{self._settings.held_out_group}|{self._settings.seed}"
        return hashlib.sha256(f"{label_map.digest}|{held_out}".encode()).hexdigest()

    def _read_changes(
        self, project_id: int, label_map: LabelMap, since: str | None, total: int, progress: Callable[[int, int], None]
    ) -> tuple[int, str]:
        known = {} if since is None else {task.task_id: task.updated_at for task in self._store.tasks(project_id)}
        changed, seen, cursor = 0, 0, ""
        # A change that waits for the host's database shows up later than its time tells: the cursor stays behind what
        # was still to come when this scan began.
        settled = self._client.settled()
        for batch in _batched(self._client.changed_tasks(project_id, since), _BATCH):
            self._check()
            # The window of the query overlaps the last sync's; what was read then is not decoded again.
            fresh = [item for item in batch if known.get(int(item["id"])) != item["updated_at"]]
            self._store.put_tasks(self.read(project_id, item, label_map) for item in fresh)
            changed, seen = changed + len(fresh), seen + len(batch)
            cursor = max([cursor, *(host_time(item["updated_at"]) for item in batch)])
            progress(seen, max(seen, total) if since is None else seen)
        return changed, min(cursor, settled) if cursor else ""

    def _compare_ids(self, project_id: int, expected: int, label_map: LabelMap) -> None:
        if sum(self._store.count_tasks(project_id).values()) == expected:
            return
        here = {task.task_id for task in self._store.tasks(project_id)}
        there = set(self._client.task_ids(project_id))
        self._store.delete_tasks(project_id, here - there)
        for item in self._client.tasks(project_id, there - here):
            self._check()
            self._store.put_tasks([self.read(project_id, item, label_map)])

    # -- one task -----------------------------------------------------------------------------------------------------
    def read(self, project_id: int, item: Mapping[str, Any], label_map: LabelMap) -> Task:
        """Turn one of the host's tasks into ours; what cannot be read is said in `error`, never raised."""
        data = item.get("data") or {}
        image = label_map.image_reference(data)
        task = Task(project_id, int(item["id"]), str(image or ""), updated_at=str(item["updated_at"]))
        task = replace(task, group_key=str(data.get(self._settings.held_out_group) or image or ""))
        if image is None:
            key = label_map.image_variable
            return replace(task, status="broken", error=f"The task's data has no image under {key!r}.")
        annotations = item.get("annotations") or []
        chosen = choose_annotation(annotations)
        if chosen is None:
            skipped = any(annotation.get("was_cancelled") for annotation in annotations)
            return replace(task, status="skipped" if skipped else "unlabelled")
        try:
            return self._read_annotation(task, chosen, _versions_of(item), label_map)
        except (MaskError, ImageError) as error:
            return replace(task, status="broken", annotation_id=int(chosen["id"]), error=str(error))

    def _read_annotation(
        self, task: Task, annotation: Mapping[str, Any], versions: Mapping[int, str], label_map: LabelMap
    ) -> Task:
        result = list(annotation.get("result") or [])
        size = None if any("original_width" in region for region in result) else self._size_of(task.image)
        reading = masks.read_result(result, label_map, size=size)
        if reading.regions == 0 and (reading.problems or label_map.unpainted_index >= len(label_map.classes)):
            why = "; ".join(reading.problems) or "it has no region, and unpainted pixels are ignored"
            raise MaskError(f"Annotation {annotation['id']} labels nothing: {why}.")
        png = masks.png_bytes(reading.mask)
        digest = hashlib.sha256(png).hexdigest()
        shown = versions.get(int(annotation.get("parent_prediction") or 0), "")
        before = self._store.published_mask(task.project_id, shown, task.task_id) if shown else None
        return replace(
            task,
            status="labelled",
            error="; ".join(reading.problems),
            annotation_id=int(annotation["id"]),
            label_digest=digest,
            mask_file=_store_mask(self._folder, f"{task.task_id}-{digest[:20]}.png", png),
            held_out=is_held_out(task.group_key, self._settings.held_out_share, self._settings.seed),
            lead_time=annotation.get("lead_time"),
            regions=reading.regions,
            vertices=reading.vertices,
            shown_version=shown,
            agreement=_agreement(before, reading.mask, label_map),
        )


def choose_annotation(annotations: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the annotation that counts: submitted, ground truth before others, then the newest; None without one."""
    usable = [annotation for annotation in annotations if not annotation.get("was_cancelled")]

    def rank(annotation: Mapping[str, Any]) -> tuple[bool, str, int]:
        when = str(annotation.get("updated_at") or annotation.get("created_at") or "")
        return bool(annotation.get("ground_truth")), when, int(annotation["id"])

    return max(usable, key=rank, default=None)


def is_held_out(group: str, share: float, seed: int = 0) -> bool:
    """Tell whether labels of this image (or group) are kept for measuring: a hash, so it never changes its mind."""
    digest = hashlib.sha256(f"{seed}|{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def remove_unused_masks(folder: Path, tasks: Iterable[Task]) -> int:
    """Delete mask files that no task refers to (replaced annotations); return how many."""
    used = {Path(task.mask_file).name for task in tasks if task.mask_file}
    unused = [path for path in folder.glob("*.png") if path.name not in used]
    for path in unused:
        path.unlink(missing_ok=True)
    return len(unused)


def _versions_of(item: Mapping[str, Any]) -> dict[int, str]:
    return {int(row["id"]): str(row.get("model_version") or "") for row in item.get("predictions") or []}


def _agreement(before: bytes | None, mask: masks.Mask, label_map: LabelMap) -> float | None:
    if before is None:
        return None
    shown = masks.mask_from_png(before)
    return masks.agreement(shown, mask, len(label_map.classes)) if shown.shape == mask.shape else None


def _store_mask(folder: Path, name: str, png: bytes) -> str:
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(png)
        Path(temporary).replace(path)
    return str(path)


def _batched(items: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
