"""Sync: bring the store up to date with Label Studio, the only source of truth.

Asks for the tasks that changed since the last sync, reads their annotations into index masks, and compares ids when
the number of tasks tells that some went. Runs again from the start when the labelling configuration changed its
meaning. Killed at any point, the next sync does the rest: the cursor moves only after everything is written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

from ml_backend.annotations.config_changes import ConfigChange, config_change
from ml_backend.annotations.fields import printable
from ml_backend.annotations.label_map import LabelMap, label_map_of
from ml_backend.errors import ImageError
from ml_backend.label_studio.queries import BEGINNING, host_time
from ml_backend.projects.folders import masks_key
from ml_backend.store import Project, Task
from ml_backend.system.clock import boot_id, boot_seconds
from ml_backend.worker.annotators import name_annotators
from ml_backend.worker.images_in_part import forget_images_in_part
from ml_backend.worker.look import Look
from ml_backend.worker.read_task import TaskReader, is_annotated
from ml_backend.worker.sides import assign_sides

logger = logging.getLogger(__name__)

RETRY_IMAGES_SECONDS = 600.0
"""How often images that could not be had are asked for again."""
_BATCH = 50
_RULES = 4
"""Number of the rules by which annotations are read: all labels are read again when it changes."""
_EARLIER_SHARE = 0.2
"""Share of the labels that earlier releases held out by default; their digests know the share."""
_STEP_SECONDS = 5.0
"""Clocks drift, and answers take their time: a clock that was set moved by more than that."""
_Read = Callable[[int, Mapping[str, Any]], Task]


@dataclass(frozen=True)
class Synced:
    """What a sync saw: the project's classes, and how many tasks changed."""

    label_map: LabelMap
    changed: int


def sync(look: Look) -> None:
    """Read what changed in Label Studio; afterwards the look knows the project's classes.

    Raises:
        LabelConfigError: no control of the configuration can hold a mask.
        LabelStudioError: the host cannot be asked.
    """
    look.stage("syncing")
    synced = Sync(look).run()
    look.label_map = synced.label_map
    name_annotators(look)
    if synced.changed:
        logger.info("project=%s synced changed=%s", look.project_id, synced.changed)


def retry_images(look: Look) -> None:
    """Ask again for images that failed: their host may be back, their link mended; and read labels on them again."""
    key = f"images_retried_{look.project_id}"
    last = float(look.store.value(key) or 0)
    if 0 <= time.time() - last < RETRY_IMAGES_SECONDS:
        return
    failed = look.store.tasks_without_image(look.project_id)
    were_in_part = forget_images_in_part(look)
    if not failed and not were_in_part:
        return
    images = look.images.prefetch([task.image for task in failed])
    labelled: list[Task] = []
    for task, (_, path) in zip(failed, images, strict=True):
        look.check()
        if isinstance(path, ImageError):
            continue
        if task.status == "unavailable":
            labelled.append(task)
        else:
            look.store.set_task_error(look.project_id, task.task_id, "")
    Sync(look).read_again(labelled)
    look.store.set_value(key, str(time.time()))


class Sync:
    """Reads what changed in the project that is looked at."""

    def __init__(self, look: Look) -> None:
        self._look, self._client, self._store, self._settings = look, look.client, look.store, look.settings
        self._sizes: dict[str, tuple[int, int] | ImageError] = {}

    def run(self) -> Synced:
        """Sync the project and return what was seen; errors as of `sync`."""
        project = self._look.project
        host = self._client.project(project.id)
        label_map, total = label_map_of(str(host["label_config"]), self._settings), int(host.get("task_number") or 0)
        self._look.label_map = label_map
        digest, rules = self._reading_digest(label_map), self._rules_of(project, label_map)
        since = project.cursor if rules else None
        if rules and rules < _RULES:
            self._read_doubtful(project.id, rules)
        change = self._changed_config(project, label_map)
        read = self._reader(label_map, change).read
        changed, cursor = self._read_changes(project.id, read, since, total)
        self._compare_ids(project.id, read, total)
        assign_sides(self._look)
        self._store.update_project(
            project.id,
            **self._notice(project, change),
            title=printable(host.get("title") or ""),
            label_config=str(host["label_config"]),
            labels_digest=digest,
            cursor=cursor or project.cursor,
        )
        return Synced(label_map, changed)

    def _reader(self, label_map: LabelMap, change: ConfigChange | None) -> TaskReader:
        return TaskReader(
            self._store,
            self._settings,
            label_map,
            files=self._look.files,
            folder=masks_key(self._look.project_id),
            size_of=self._size_of,
            config_change=change,
        )

    def read_again(self, tasks: Sequence[Task]) -> None:
        """Read labels again whose images or masks could not be read; their masks are written anew."""
        if not tasks:
            return
        files = {task.task_id: task.mask_file for task in tasks if task.mask_file}
        read = self._reader(self._look.label_map, None).read
        for batch in _batched(self._client.tasks(self._look.project_id, [task.task_id for task in tasks]), _BATCH):
            self._measure(batch)
            self._look.check()
            for file in (files.get(int(item["id"])) for item in batch):
                if file:
                    self._look.files.remove(file)  # it may be damaged, and the new one has its name
            self._store.put_tasks(read(self._look.project_id, item) for item in batch)

    # -- images of labels ---------------------------------------------------------------------------------------------
    def _measure(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Ask for the images of annotated tasks, as a training does: a label is none without its image.

        Raises:
            LabelStudioError: Label Studio is away: then it is not the images' fault.
        """
        annotated = [item for item in items if is_annotated(item)]
        named = (self._look.label_map.image_reference(item.get("data") or {}) for item in annotated)
        references = list(dict.fromkeys(printable(reference) for reference in named if reference))
        self._sizes = {}
        for reference, image in zip(references, self._look.images.arrays(references), strict=True):
            self._look.check()
            self._sizes[reference] = image if isinstance(image, ImageError) else (image.shape[0], image.shape[1])
        if any(isinstance(size, ImageError) for size in self._sizes.values()):
            self._client.whoami()

    def _size_of(self, reference: str) -> tuple[int, int]:
        """Return (height, width) of an image that was measured.

        Raises:
            ImageError: it cannot be had.
        """
        size = self._sizes[reference]
        if isinstance(size, ImageError):
            raise size
        return size

    # -- what changed -------------------------------------------------------------------------------------------------

    def _reading_digest(self, label_map: LabelMap, rules: int = _RULES) -> str:
        """Return a digest of all that labels are read by."""
        s = self._settings
        return _digest(label_map.digest, s.audit_group, s.several_annotations, s.cost_measure, rules)

    def _rules_of(self, project: Project, label_map: LabelMap) -> int:
        """Return the number of the rules that the labels were read by, all else being as it is; 0: all else is not."""
        if project.labels_digest == self._reading_digest(label_map):
            return _RULES
        s = self._settings
        if project.labels_digest == self._reading_digest(label_map, 3):
            return 3
        for share in (s.audit_share, _EARLIER_SHARE):
            first = (label_map.digest, share, s.audit_group, s.seed, s.several_annotations, s.cost_measure)
            for rules, digest in ((1, _digest(*first)), (2, _digest(*first, 2))):
                if project.labels_digest == digest:
                    return rules
        return 0

    def _read_doubtful(self, project_id: int, rules: int) -> None:
        """Read the labels again that earlier rules did not read in full.

        The first left out what they could not read. None before the third looked at what all annotators were shown;
        for labels of one annotator the database knows. None before the fourth looked at who made a label, and at
        whether it is as it was shown.
        """
        labelled = self._store.tasks(project_id, status="labelled")
        by_vote = self._settings.several_annotations == "majority" and rules < 3
        left_out = [task for task in labelled if task.error or (not task.regions and not task.boxes)]
        self.read_again(labelled if by_vote else left_out if rules == 1 else [])
        self._read_annotators(project_id)

    def _read_annotators(self, project_id: int) -> None:
        """Read who made each label; masks stay as they are."""
        labelled = {task.task_id: task for task in self._store.tasks(project_id, status="labelled")}
        reader = self._reader(self._look.label_map, None)
        for batch in _batched(self._client.tasks(project_id, labelled), _BATCH):
            self._look.check()
            self._store.set_unchanged(reader.with_annotator(labelled[int(item["id"])], item) for item in batch)

    def _changed_config(self, project: Project, label_map: LabelMap) -> ConfigChange | None:
        """Return what a changed configuration means, where there are labels that it could matter to."""
        counts = self._store.count_tasks(project.id)
        is_labelled = any(counts.get(status) for status in ("labelled", "broken", "unavailable"))
        if not is_labelled:
            return None
        return config_change(project.label_config, label_map, partial(label_map_of, settings=self._settings))

    def _notice(self, project: Project, change: ConfigChange | None) -> dict[str, str]:
        if change is None:
            return {}
        continues = self._settings.train_from == "last"
        return {"notice": change.text(trained=project.decided_model > 0, continues=continues)}

    def _read_changes(self, project_id: int, read: _Read, since: str | None, total: int) -> tuple[int, str]:
        is_first = since is None
        changed, seen, cursor = 0, 0, ""
        # A change that waits for the host's database shows up later than its time tells: the cursor stays behind what
        # was still to come when this scan began.
        settled = self._client.settled()
        since = self._before_steps_back(project_id, since, settled)
        for batch in _batched(self._client.changed_tasks(project_id, since), _BATCH):
            self._look.check()
            # The window of the query overlaps the last sync's; what was read then is not decoded again.
            ids = [int(item["id"]) for item in batch]
            known = {} if is_first else self._store.update_times(project_id, ids)
            fresh = [item for item in batch if known.get(int(item["id"])) != item["updated_at"]]
            self._measure(fresh)
            self._store.put_tasks(read(project_id, item) for item in fresh)
            changed, seen = changed + len(fresh), seen + len(batch)
            cursor = max([cursor, *(host_time(item["updated_at"]) for item in batch)])
            self._look.stage("syncing", seen, max(seen, total) if since is None else seen)
        return changed, min(cursor, settled) if cursor else ""

    def _before_steps_back(self, project_id: int, since: str | None, settled: str) -> str | None:
        """Return a cursor that misses nothing where the host's clock was set back since the last look.

        Changes then carry times that the cursor has passed. How far the host's clock is ahead of the time since this
        machine's start shows it; after a new start, only a cursor that lies in the host's future does.
        """
        ahead = _moment(settled).timestamp() - boot_seconds()
        key = f"host_clock_{project_id}"
        boot, before = json.loads(self._store.value(key) or '["", 0]')
        back = max(0.0, before - ahead) if boot == boot_id() else 0.0
        if boot != boot_id() or abs(before - ahead) > _STEP_SECONDS:
            self._store.set_value(key, json.dumps([boot_id(), ahead]))
        if since is None or (back <= _STEP_SECONDS and since <= settled):
            return since
        logger.warning("project=%s the clock of Label Studio was set back: changes are read again", project_id)
        earlier = min(_moment(since), _moment(settled)) - timedelta(seconds=back)
        return host_time(earlier.isoformat()) if back > _STEP_SECONDS else BEGINNING

    def _compare_ids(self, project_id: int, read: _Read, expected: int) -> None:
        if sum(self._store.count_tasks(project_id).values()) == expected:
            return
        here = self._store.task_ids(project_id)
        there = set(self._client.task_ids(project_id))
        self._store.delete_tasks(project_id, here - there)
        for batch in _batched(self._client.tasks(project_id, there - here), _BATCH):
            self._measure(batch)
            self._look.check()
            self._store.put_tasks(read(project_id, item) for item in batch)


def _digest(*parts: object) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))  # which Python 3.10 does not read otherwise


def _batched(items: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
