"""Pseudo-labels: predictions that train the next version in the place of labels that nobody has drawn.

A strategy proposes them with its ranking, as tasks. Their masks are predicted anew for one training, by the version
that serves then, and are gone with it: none is kept, submitted, measured with, or laid over what a person said.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ml_backend.annotations import masks
from ml_backend.errors import CheckpointError, ConfigurationError, ImageError
from ml_backend.learning.checkpoints import Version
from ml_backend.projects.audit import AuditSet, audit_set
from ml_backend.settings import Settings
from ml_backend.store import Task
from ml_backend.worker.look import Look

if TYPE_CHECKING:
    from ml_backend.learning.training import Item

logger = logging.getLogger(__name__)

_PREFIX = "pseudo-labels-"


def proposal_text(settings: Settings, task_ids: Sequence[int]) -> str:
    """Return what the store keeps of a ranking's proposal: the tasks, and what proposed them."""
    if not task_ids:
        return ""
    return json.dumps({"strategy": settings.strategy, "options": settings.strategy_options, "tasks": list(task_ids)})


def proposed(settings: Settings, text: str) -> list[int]:
    """Return the tasks of a proposal; none when another strategy, or the same with other options, made it."""
    kept = json.loads(text) if text else {}
    if not isinstance(kept, dict):
        return []
    same = (kept.get("strategy"), kept.get("options")) == (settings.strategy, settings.strategy_options)
    return list(kept.get("tasks", [])) if same else []


def eligible(task_ids: Iterable[int], tasks: Iterable[Task], audit: AuditSet) -> list[Task]:
    """Return those of the proposed tasks whose image nobody has said anything about, one per image.

    An image that a person labelled or skipped in any task is left out, and so is one that is kept for measuring.

    Args:
        task_ids: the proposed ones, the most certain first.
        tasks: all tasks of the project.
        audit: whose images measure.
    """
    by_image: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        by_image[task.image].append(task)
    by_id = {task.task_id: task for same in by_image.values() for task in same}
    by_name: dict[str, Task] = {}
    for task in (by_id[task_id] for task_id in task_ids if task_id in by_id):
        if task.image not in by_name and all(_is_untouched(same, audit) for same in by_image[task.image]):
            by_name[task.image] = task
    return list(by_name.values())


def _is_untouched(task: Task, audit: AuditSet) -> bool:
    waits = task.status in ("unlabelled", "passed") and task.annotation_id is None
    return waits and not audit.has(task.group_key)


class PseudoLabels:
    """Predicts the masks of one project's proposal for one training."""

    def __init__(self, look: Look) -> None:
        self._look, self._settings, self._id = look, look.settings, look.project_id
        self._label_map = look.label_map

    @contextmanager
    def items(self, model: Version | None) -> Iterator[list[Item]]:
        """Yield the training items; their files are removed at the end.

        What cannot be predicted is left out: no training waits for a pseudo-label.

        Args:
            model: the version that predicts; there is none before the first training, and no proposal. One that lacks
                a class predicts none.
        """
        remove_left_over(self._look.folder)
        wanted = self._eligible() if model and self._knows_all_classes(model) else []
        if model is None or not wanted:
            yield []
            return
        self._look.folder.mkdir(parents=True, exist_ok=True)  # beside a bucket, nothing has made it yet
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=self._look.folder) as folder:
            made = [item for item in self._predict(model, wanted, Path(folder)) if item is not None]
            still = {str(task.task_id) for task in self._eligible()}  # people may have labelled some meanwhile
            kept = [item for item in made if item.id in still]
            logger.info("project=%s model=%s pseudo_labels=%s", self._id, model.number, len(kept))
            yield kept

    def _knows_all_classes(self, model: Version) -> bool:
        """Whether no class was added since: predictions would teach that it is nowhere."""
        known = {self._label_map.index_of(name) for name in model.record.classes}
        return known.issuperset(range(len(self._label_map.classes)))

    def _eligible(self) -> list[Task]:
        project = self._look.store.project(self._id)
        task_ids = proposed(self._settings, project.pseudo_labels) if project else []
        audit = audit_set(self._settings, self._look.store, self._id)
        return eligible(task_ids, self._look.store.tasks(self._id), audit) if task_ids else []

    def _predict(self, model: Version, tasks: Sequence[Task], folder: Path) -> Iterator[Item | None]:
        """Predict, in batches; None where the image cannot be had."""
        waiting, done = iter(tasks), 0
        while chunk := list(islice(waiting, self._settings.effective_batch_size)):
            self._look.attend()
            self._look.stage("predicting pseudo-labels", done, len(tasks))
            try:
                predicted = self._masks(model, chunk)
            except (CheckpointError, ConfigurationError) as error:
                logger.warning("project=%s training without pseudo-labels: %s", self._id, error)
                return
            for task, mask in zip(chunk, predicted, strict=True):
                yield self._item(task, mask, folder) if mask is not None else None
            done += len(chunk)

    def _masks(self, model: Version, tasks: Sequence[Task]) -> list[masks.Mask | None]:
        """Return the masks (H,W) of the current classes at the images' original size; None without an image."""
        checkpoints = self._look.checkpoints
        predictor = self._look.services.predictors.get(checkpoints, model.number, self._look.device)
        images = list(self._look.images.arrays([task.image for task in tasks]))
        good = [image for image in images if not isinstance(image, ImageError)]
        predictions = iter(predictor.predict(good) if good else [])
        return [
            None
            if isinstance(image, ImageError)
            else masks.translated(next(predictions).mask, model.record.classes, self._label_map)
            for image in images
        ]

    def _item(self, task: Task, mask: masks.Mask, folder: Path) -> Item | None:
        from ml_backend.learning.training import Item

        try:
            image = self._look.images.path(task.image)
        except ImageError:
            return None
        file = folder / f"{task.task_id}.png"
        file.write_bytes(masks.png_bytes(mask))
        return Item(str(task.task_id), image, file, held_out=False, digest="", pseudo=True)


def remove_left_over(folder: Path) -> None:
    """Remove what a killed training left in a project's folder."""
    for path in folder.glob(f"{_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)
