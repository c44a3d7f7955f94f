"""Measures two versions on the same labelled images, in the background, and keeps the results.

The page that shows them is `dashboard.compare`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ml_backend.annotations import masks
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.annotations.masks import Mask
from ml_backend.dashboard.pictures.cache import PictureCache, key_of
from ml_backend.dashboard.pictures.pictures import Pictures
from ml_backend.dashboard.pictures.subjects import Labels, NoPicture, Subject, labels_of
from ml_backend.errors import MaskError, NextmaskError
from ml_backend.learning import measuring
from ml_backend.learning.checkpoints import Version
from ml_backend.learning.measuring import Counts
from ml_backend.learning.measuring.comparison import compared
from ml_backend.learning.measuring.counts import group_digest, pixels_of, text
from ml_backend.projects.folders import files_of
from ml_backend.projects.parts import supervising
from ml_backend.projects.settings import project_settings
from ml_backend.settings import Settings
from ml_backend.store import Project, Store, Task

logger = logging.getLogger(__name__)

MOST: Final = 500
"""Images of a comparison, at most; of more, a sample is drawn by a hash of their ids."""
_WAITING = 8
_NICENESS = 10  # annotators go first
_FORMAT = 2

Confusion = NDArray[np.int64]


@dataclass(frozen=True)
class ComparedLabels:
    """The labels that two versions are compared on.

    Attributes:
        tasks: labelled tasks, by id; at most `MOST`.
        held_out: whether they are held out of training; False where none is: then they are all labelled tasks.
        total: how many there are; more than `tasks` where these are a sample.
    """

    tasks: tuple[Task, ...]
    held_out: bool
    total: int


@dataclass(frozen=True)
class ComparedImage:
    """What two versions predict for one image.

    Attributes:
        task: id.
        first, second: mean IoU of each version's mask with the true one, in [0, 1]; None where no class is known.
        differs: share of the labelled pixels in which the versions differ, in [0, 1].
    """

    task: int
    first: float | None
    second: float | None
    differs: float

    @property
    def gain(self) -> float:
        """How much better the second version is."""
        return (self.second or 0.0) - (self.first or 0.0)


@dataclass(frozen=True)
class Comparison:
    """What two versions measured on the same labels.

    Attributes:
        classes: that they were measured on, the last of which stands for all that is none of them.
        first, second: by task, pixels as text of `measuring.counts`.
        groups: of tasks that are not a group of their own.
        images: what they predict for each image.
        failed: task id -> why it could not be measured.
    """

    classes: tuple[str, ...]
    first: dict[str, str]
    second: dict[str, str]
    groups: dict[str, str]
    images: tuple[ComparedImage, ...]
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def measures(self) -> measuring.Comparison | None:
        """What both measured, and by how much the second is better; None without a pixel of a class."""
        before, after = (Counts.from_texts(texts, self.groups, self.classes) for texts in (self.first, self.second))
        return compared(before, after)

    def to_json(self) -> bytes:
        """Return what `from_json` reads."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Comparison:
        """Rebuild a comparison."""
        values = json.loads(content)
        images = tuple(ComparedImage(**image) for image in values["images"])
        return cls(**{**values, "classes": tuple(values["classes"]), "images": images})


@dataclass
class _Job:
    project: Project
    classes: Labels
    compared: ComparedLabels
    versions: tuple[Version, Version]
    key: str
    done: int = 0


class Comparisons:
    """Compares versions, one comparison at a time; results outlive the process.

    Args:
        cache: where results are kept, beside the pictures.
    """

    def __init__(self, settings: Settings, store: Store, pictures: Pictures, cache: PictureCache) -> None:
        self._settings, self._store, self._pictures, self._cache = settings, store, pictures, cache
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()  # the first is under way
        self._failed: dict[str, str] = {}

    def labels(self, project: Project) -> ComparedLabels:
        """Return the labels that are held out now, or all where none is."""
        labelled = [task for task in self._store.tasks(project.id, status="labelled") if task.mask_file]
        labelled = supervising(labelled)
        held_out = [task for task in labelled if task.held_out]
        usable = held_out or labelled
        drawn = sorted(usable, key=lambda task: hashlib.sha256(str(task.task_id).encode()).digest())[:MOST]
        return ComparedLabels(tuple(sorted(drawn, key=lambda task: task.task_id)), bool(held_out), len(usable))

    def result(self, project: Project, versions: tuple[Version, Version], labels: ComparedLabels) -> Comparison | None:
        """Return how two versions compare; None where they were not measured yet."""
        content = self._cache.get(self._key(project, versions, labels))
        return None if content is None else Comparison.from_json(content)

    def progress(
        self, project: Project, versions: tuple[Version, Version], labels: ComparedLabels
    ) -> tuple[int, int] | None:
        """Return how many images are done, and of how many; None where nothing is under way."""
        key = self._key(project, versions, labels)
        with self._lock:
            job = next((job for job in self._jobs if job.key == key), None)
        return None if job is None else (job.done, len(labels.tasks))

    def failure(self, project: Project, versions: tuple[Version, Version], labels: ComparedLabels) -> str | None:
        """Return why the last try failed; None where it did not."""
        return self._failed.get(self._key(project, versions, labels))

    def start(self, project: Project, versions: tuple[Version, Version], labels: ComparedLabels) -> bool:
        """Begin to compare, unless that is done or under way; return False where too many comparisons wait."""
        key = self._key(project, versions, labels)
        if self._cache.get(key) is not None:
            return True
        with self._lock:
            if any(job.key == key for job in self._jobs):
                return True
            if len(self._jobs) >= _WAITING:
                return False
            self._failed.pop(key, None)
            self._jobs.append(_Job(project, self._classes(project), labels, versions, key))
            if len(self._jobs) == 1:
                threading.Thread(target=self._work, name="comparison", daemon=True).start()
        return True

    def _classes(self, project: Project) -> Labels:
        return labels_of(project, project_settings(self._settings, self._store, project)[0])

    def _key(self, project: Project, versions: Sequence[Version], labels: ComparedLabels) -> str:
        weights = [version.sha256 for version in versions]
        sizes = [int(version.record.settings["input_size"]) for version in versions]
        tasks = [f"{task.task_id} {task.label_digest} {task.image}" for task in labels.tasks]
        classes = self._classes(project).label_map.training_digest
        return key_of(_FORMAT, "comparison", classes, *weights, *sizes, *tasks)

    # -- in the background --------------------------------------------------------------------------------------------
    def _work(self) -> None:
        with suppress(OSError, AttributeError):  # no such thing on this system
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while True:
            with self._lock:
                if not self._jobs:
                    return
                job = self._jobs[0]
            problem = self._attempt(job)
            with self._lock:
                self._jobs.popleft()
                if problem:
                    self._failed = {**dict(list(self._failed.items())[-99:]), job.key: problem}

    def _attempt(self, job: _Job) -> str | None:
        try:
            self._cache.put(job.key, self._compare(job).to_json())
        except NextmaskError as error:
            return str(error)
        except Exception as error:
            logger.exception("project=%s a comparison failed", job.project.id)
            return f"Internal error ({type(error).__name__}). nextmask's log has the details."
        return None

    def _compare(self, job: _Job) -> Comparison:
        classes = job.classes.label_map.classes
        groups = {str(task.task_id): group_digest(task.group_key) for task in job.compared.tasks}
        pixels: tuple[dict[str, str], dict[str, str]] = ({}, {})
        images: list[ComparedImage] = []
        failed: dict[str, str] = {}
        for task, masks_or_reason in self._masks(job):
            if isinstance(masks_or_reason, str):
                failed[str(task)] = masks_or_reason
            else:
                truth, *predicted = masks_or_reason
                for texts, mask in zip(pixels, predicted, strict=True):
                    texts[str(task)] = text(pixels_of(confusion(truth, mask, len(classes))))
                images.append(compared_image(task, truth, *predicted, classes=len(classes)))
            job.done += 1
        if not images:
            reason = next(iter(failed.values()), "no label")
            raise NoPicture(f"None of the {len(failed)} labels can be measured: {reason}")
        known = {task: group for task, group in groups.items() if group}
        return Comparison((*classes, ""), *pixels, known, tuple(images), failed)

    def _masks(self, job: _Job) -> Iterator[tuple[int, tuple[Mask, Mask, Mask] | str]]:
        """Yield task ids with the true mask and those of both versions, or why there are none."""
        settings, _ = project_settings(self._settings, self._store, job.project)
        for task in job.compared.tasks:
            subject = Subject(job.project, settings, job.classes, task)
            try:
                truth = masks.mask_from_png(files_of(self._settings).read(task.mask_file))
                first, second = self._pictures.full_masks(subject, [version.number for version in job.versions])
                if truth.shape != first.shape:
                    raise NoPicture(f"The mask is {_size(truth)} pixels, the image {_size(first)}.")
                yield task.task_id, (truth, first, second)
            except (NoPicture, MaskError, OSError) as error:
                yield task.task_id, str(error)


def confusion(truth: Mask, predicted: Mask, classes: int) -> Confusion:
    """Count the pixels of masks (H,W): (C+1,C+1), a row a true class, a column a predicted one, the last no class."""
    known = truth < classes
    return masks.confusion(truth[known], np.minimum(predicted[known], classes), classes + 1)


def compared_image(task: int, truth: Mask, first: Mask, second: Mask, *, classes: int) -> ComparedImage:
    """Compare the masks (H,W) of two versions; pixels that nobody labelled do not count."""
    known = truth != IGNORE_INDEX
    differs = float((first != second)[known].mean()) if known.any() else 0.0
    return ComparedImage(
        task, masks.agreement(first, truth, classes), masks.agreement(second, truth, classes), round(differs, 6)
    )


def _size(mask: Mask) -> str:
    return f"{mask.shape[0]} x {mask.shape[1]}"
