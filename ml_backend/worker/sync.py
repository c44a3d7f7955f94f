"""Sync: bring the store up to date with Label Studio, the only source of truth.

Asks for the tasks that changed since the last sync, reads their annotations into index masks, and compares ids when
the number of tasks tells that some went. Runs again from the start when the labelling configuration changed its
meaning. Killed at any point, the next sync does the rest: the cursor moves only after everything is written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import WHOLE_IMAGE, Box, boxes_to_text, inside
from ml_backend.annotations.clicks import annotation_effort
from ml_backend.annotations.config_changes import ConfigChange, config_change
from ml_backend.annotations.effort import write_points
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap, parse_label_config
from ml_backend.annotations.query_regions import is_query, labelled_boxes, stated_size
from ml_backend.annotations.voting import Annotation, annotations_that_count, vote
from ml_backend.errors import ImageError, MaskError, few, shown
from ml_backend.label_studio import DUPLICATE, LabelStudio
from ml_backend.label_studio.queries import BEGINNING, host_time
from ml_backend.settings import Settings
from ml_backend.store import Project, Store, Task
from ml_backend.system.clock import boot_id, boot_seconds
from ml_backend.system.whole_files import PART, write_once

logger = logging.getLogger(__name__)

_BATCH = 50
_STEP_SECONDS = 5.0
"""Clocks drift, and answers take their time: a step is more than that."""
_Parents = Mapping[int, Mapping[str, Any]]
"""Predictions that annotations of a task started from, by id."""
_LONGEST_SECONDS = 1e9
_WITHOUT_MODEL = "nextmask-0."
"""Such a version orders the tasks and shows no masks."""


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
        self._passed: Collection[int] | None = None
        self._config_change: ConfigChange | None = None

    def run(self, project: Project, progress: Callable[[int, int], None]) -> Synced:
        """Sync a project and return what was seen.

        Raises:
            LabelConfigError: no control of the configuration can hold a mask.
            LabelStudioError: the host cannot be asked.
        """
        host = self._client.project(project.id)
        label_map = self._parse(str(host["label_config"]))
        digest = self._reading_digest(label_map)
        self._config_change = self._changed_config(project, label_map)
        since = project.cursor if project.labels_digest == digest else None
        changed, cursor = self._read_changes(project.id, label_map, since, int(host.get("task_number") or 0), progress)
        self._compare_ids(project.id, int(host.get("task_number") or 0), label_map)
        self._store.update_project(
            project.id,
            **self._notice(project),
            title=_text(host.get("title") or ""),
            label_config=str(host["label_config"]),
            labels_digest=digest,
            cursor=cursor or project.cursor,
        )
        return Synced(host, label_map, changed)

    def _parse(self, xml: str) -> LabelMap:
        return parse_label_config(xml, unpainted=self._settings.unpainted, query_control=self._settings.query_control)

    def _reading_digest(self, label_map: LabelMap) -> str:
        s = self._settings
        held_out = f"{s.held_out_share}|{s.held_out_group}|{s.seed}"
        read = f"{s.several_annotations}|{s.cost_measure}"
        return hashlib.sha256(f"{label_map.digest}|{held_out}|{read}".encode()).hexdigest()

    def _changed_config(self, project: Project, label_map: LabelMap) -> ConfigChange | None:
        """Return what a changed configuration means, where there are labels that it could matter to."""
        counts = self._store.count_tasks(project.id)
        is_labelled = counts.get("labelled", 0) + counts.get("broken", 0) > 0
        return config_change(project.label_config, label_map, self._parse) if is_labelled else None

    def _notice(self, project: Project) -> dict[str, str]:
        if self._config_change is None:
            return {}
        continues = self._settings.train_from == "last"
        return {"notice": self._config_change.text(trained=project.decided_model > 0, continues=continues)}

    def _read_changes(
        self, project_id: int, label_map: LabelMap, since: str | None, total: int, progress: Callable[[int, int], None]
    ) -> tuple[int, str]:
        known = {} if since is None else {task.task_id: task.updated_at for task in self._store.tasks(project_id)}
        changed, seen, cursor = 0, 0, ""
        # A change that waits for the host's database shows up later than its time tells: the cursor stays behind what
        # was still to come when this scan began.
        settled = self._client.settled()
        since = self._before_steps_back(project_id, since, settled)
        for batch in _batched(self._client.changed_tasks(project_id, since), _BATCH):
            self._check()
            # The window of the query overlaps the last sync's; what was read then is not decoded again.
            fresh = [item for item in batch if known.get(int(item["id"])) != item["updated_at"]]
            self._store.put_tasks(self.read(project_id, item, label_map) for item in fresh)
            changed, seen = changed + len(fresh), seen + len(batch)
            cursor = max([cursor, *(host_time(item["updated_at"]) for item in batch)])
            progress(seen, max(seen, total) if since is None else seen)
        return changed, min(cursor, settled) if cursor else ""

    def _before_steps_back(self, project_id: int, since: str | None, settled: str) -> str | None:
        """Return a cursor that misses nothing where the host's clock was set back since the last look.

        Changes then carry times that the cursor has passed. How far the host's clock is ahead of the time since this
        machine's start shows it; after a new start, only a cursor that lies in the host's future does.
        """
        ahead = _moment(settled).timestamp() - boot_seconds()
        key = f"host_clock_{project_id}"
        boot, before = json.loads(self._store.note(key) or '["", 0]')
        back = max(0.0, before - ahead) if boot == boot_id() else 0.0
        if boot != boot_id() or abs(before - ahead) > _STEP_SECONDS:
            self._store.set_note(key, json.dumps([boot_id(), ahead]))
        if since is None or (back <= _STEP_SECONDS and since <= settled):
            return since
        logger.warning("project=%s the clock of Label Studio was set back: changes are read again", project_id)
        earlier = min(_moment(since), _moment(settled)) - timedelta(seconds=back)
        return host_time(earlier.isoformat()) if back > _STEP_SECONDS else BEGINNING

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
        task = Task(project_id, int(item["id"]), _text(image or ""), updated_at=str(item["updated_at"]))
        task = replace(task, group_key=_text(data.get(self._settings.held_out_group) or image or ""))
        if image is None:
            key = label_map.image_variable
            return replace(task, status="broken", error=f"The task's data has no image under {key!r}.")
        annotations = item.get("annotations") or []
        counting = annotations_that_count(annotations, self._settings.several_annotations)
        if not counting:
            skipped = any(annotation.get("was_cancelled") for annotation in annotations)
            waiting = "passed" if task.task_id in self._passed_over(project_id) else "unlabelled"
            return replace(task, status="skipped" if skipped else waiting)
        if self._config_change is not None:
            self._config_change.count(task.task_id, _regions(counting[0]))
        try:
            return self._read_annotations(task, counting, _parents_of(item), label_map)
        except (MaskError, ImageError) as error:
            return replace(task, status="broken", annotation_id=int(counting[0]["id"]), error=str(error))

    def _passed_over(self, project_id: int) -> Collection[int]:
        """Return what a stream passed over; read once, since nothing is decided while a sync runs."""
        if self._passed is None:
            self._passed = self._store.passed_over(project_id)
        return self._passed

    def _read_annotations(
        self, task: Task, counting: Sequence[Annotation], parents: _Parents, label_map: LabelMap
    ) -> Task:
        """Read the newest annotation, and lay the vote of all over it; one that cannot be read does not vote."""
        if len(counting) == 1:
            return self._read_annotation(task, counting[0], parents, label_map)
        read, problems = [], []
        for annotation in counting:
            try:
                read.append(self._read_annotation(task, annotation, parents, label_map))
            except (MaskError, ImageError) as error:
                problems.append(str(error))
        if not read:
            raise MaskError("; ".join(problems))
        png, boxes = vote(read)
        said = "; ".join(filter(None, [read[0].error, *problems]))
        return replace(read[0], **self._kept(task, png), boxes=boxes, error=said)

    def _read_annotation(
        self, task: Task, annotation: Mapping[str, Any], parents: _Parents, label_map: LabelMap
    ) -> Task:
        result = _regions(annotation)
        reading = masks.read_result(result, label_map, size=self._size(result, task.image, label_map))
        if reading.regions == 0 and (reading.problems or label_map.unpainted_index >= len(label_map.classes)):
            why = "; ".join(few(reading.problems)) or "it has no region, and unpainted pixels are ignored"
            raise MaskError(f"Annotation {annotation['id']} labels nothing: {why}.")
        parent = parents.get(int(annotation.get("parent_prediction") or 0))
        shown = self._shown_version(task, annotation, parent)
        size = (reading.mask.shape[0], reading.mask.shape[1])
        try:
            asked = partial(self._was_asked, task, shown, parent, label_map)
            rectangles = labelled_boxes(result, label_map, size, was_asked=asked)
        except MaskError as error:
            raise MaskError(f"Annotation {annotation['id']} is not used: {error}") from error
        mask = _inside(reading.mask, rectangles.boxes)
        if rectangles.boxes and (mask == IGNORE_INDEX).all():
            raise MaskError(f"Annotation {annotation['id']} labels nothing inside its rectangles.")
        before = self._store.published_mask(task.project_id, shown, task.task_id) if shown else None
        task = replace(task, boxes=boxes_to_text(rectangles.boxes) if rectangles.boxes else WHOLE_IMAGE)
        task = self._with_effort(task, annotation, shown, before, rectangles.boxes, size, label_map)
        return replace(
            task,
            status="labelled",
            error="; ".join([*few(reading.problems), *rectangles.problems]),
            annotation_id=int(annotation["id"]),
            **self._kept(task, masks.png_bytes(mask)),
            held_out=is_held_out(task.group_key, self._settings.held_out_share, self._settings.seed),
            lead_time=_seconds(annotation.get("lead_time")),
            regions=reading.regions,
            vertices=reading.vertices,
            shown_version=shown,
            agreement=_agreement(before, mask, label_map),
        )

    def _kept(self, task: Task, png: bytes) -> dict[str, Any]:
        """Write a mask to its file; return the columns that tell of it."""
        digest = hashlib.sha256(png).hexdigest()
        file = write_once(self._folder / f"{task.task_id}-{digest[:20]}.png", png)
        return {"label_digest": digest, "mask_file": file}

    def _size(self, result: Sequence[Any], image: str, label_map: LabelMap) -> tuple[int, int] | None:
        """Return (height, width) of an annotation's image; None where the regions of its mask tell."""
        if any("original_width" in region for region in masks.mask_regions(result, label_map)):
            return None
        return stated_size(result, label_map) or self._size_of(image)

    def _shown_version(self, task: Task, annotation: Annotation, parent: Mapping[str, Any] | None) -> str:
        """Return the version that the annotator started from; the host forgets it when the prediction is pruned."""
        if parent is not None and parent.get("model_version"):
            return _text(parent["model_version"]).removesuffix(DUPLICATE)
        before = self._store.task(task.project_id, task.task_id)
        return before.shown_version if before and before.annotation_id == annotation["id"] else ""

    def _was_asked(self, task: Task, shown: str, parent: Mapping[str, Any] | None, label_map: LabelMap) -> bool:
        """Whether the annotator was shown rectangles; where it is not known what was shown, whether one ever was.

        The host's own prediction tells, too: what is kept here may have been lost.
        """
        if parent is not None and any(is_query(region, label_map) for region in _regions(parent)):
            return True
        asked = self._store.published_queries(task.project_id, task.task_id)
        return (task.task_id, shown) in asked if shown else bool(asked)

    def _with_effort(
        self,
        task: Task,
        annotation: Annotation,
        shown: str,
        before: bytes | None,
        boxes: Sequence[Box],
        size: tuple[int, int],
        label_map: LabelMap,
    ) -> Task:
        """Put down what the label took, where that can be told."""
        started_from = _start(annotation, shown, before, size, label_map)
        if started_from is None:
            return task
        s = self._settings
        points = annotation_effort(
            annotation,
            label_map,
            started_from,
            boxes,
            measure=s.cost_measure,
            minimum_area=s.minimum_area,
            tolerance=s.polygon_tolerance,
        )
        if points is None:
            return task
        file = write_points(self._folder, task.task_id, points)
        return replace(task, effort_file=file, effort=round(float(points[:, 2].sum()), 3))


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))  # which Python 3.10 does not read otherwise


def is_held_out(group: str, share: float, seed: int = 0) -> bool:
    """Tell whether labels of this image (or group) are kept for measuring: a hash, so it never changes its mind."""
    digest = hashlib.sha256(f"{seed}|{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def remove_unused_masks(folder: Path, used: Container[str]) -> int:
    """Delete files of masks and effort that no task refers to (replaced annotations); return how many.

    Merged masks are among them: a training makes those that it wants.

    Args:
        used: names of files that tasks refer to.
    """
    kinds = (".png", ".npy", PART)  # the last: what a killed process was about to write
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        unused = [one.path for one in entries if one.name.endswith(kinds) and one.name not in used]
        for path in unused:
            Path(path).unlink(missing_ok=True)
        return len(unused)
    return 0


def _regions(row: Mapping[str, Any]) -> list[Any]:
    """Return the result of an annotation or prediction; empty where it is none."""
    found = row.get("result")
    return found if isinstance(found, list) else []


def _text(value: object) -> str:
    """Return what people entered as a database can keep it: JSON may hold halves of surrogate pairs, and zeros."""
    text = value if isinstance(value, str) else shown(value)
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def _seconds(value: object) -> float | None:
    """Return a lead time that is one; hosts and imports may put anything there."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _LONGEST_SECONDS:
        return None
    return float(value)


def _parents_of(item: Mapping[str, Any]) -> _Parents:
    return {int(row["id"]): row for row in item.get("predictions") or []}


def _agreement(before: bytes | None, mask: masks.Mask, label_map: LabelMap) -> float | None:
    if before is None:
        return None
    shown = masks.mask_from_png(before)
    return masks.agreement(shown, mask, len(label_map.classes)) if shown.shape == mask.shape else None


def _inside(mask: masks.Mask, boxes: Sequence[Box]) -> masks.Mask:
    """Take what is outside of the boxes out of a mask; without boxes it stays as it is."""
    size = (mask.shape[0], mask.shape[1])
    return np.where(inside(boxes, size), mask, IGNORE_INDEX).astype(np.uint8) if boxes else mask


def _start(
    annotation: Annotation, shown: str, before: bytes | None, size: tuple[int, int], label_map: LabelMap
) -> masks.Mask | None:
    """Return the mask that an annotator started from, (H,W); None where it is not known (any more)."""
    if before is not None:
        mask = masks.mask_from_png(before)
        known = mask[mask != IGNORE_INDEX]
        fits = mask.shape == size and not (known >= len(label_map.classes)).any()
        return mask if fits else None
    origins = {str(region.get("origin")) for region in _regions(annotation) if isinstance(region, Mapping)}
    from_nothing = shown.startswith(_WITHOUT_MODEL) or not (
        shown or annotation.get("parent_prediction") or origins & {"prediction", "prediction-changed"}
    )
    return np.full(size, label_map.unpainted_index, np.uint8) if from_nothing else None


def _batched(items: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
