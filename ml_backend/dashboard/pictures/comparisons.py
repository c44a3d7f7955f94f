"""Measures two versions on the same labelled images, in the background, and keeps the result."""

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
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ml_backend.annotations import masks
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.annotations.masks import Mask
from ml_backend.dashboard.pictures.cache import PictureCache, key_of
from ml_backend.dashboard.pictures.pictures import Pictures
from ml_backend.dashboard.pictures.subjects import Labels, NoPicture, Subject, labels_of
from ml_backend.errors import MaskError, NextmaskError
from ml_backend.learning.checkpoints import Version
from ml_backend.projects.parts import supervising
from ml_backend.projects.services import Services
from ml_backend.projects.settings import project_settings
from ml_backend.store import Project, Task

logger = logging.getLogger(__name__)

MOST: Final = 500
"""Images of a comparison; of more, so many are drawn by a hash of their ids."""
_WAITING = 8
_NICENESS = 10  # annotators go first
_FORMAT = 1

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Basis:
    """What two versions are compared on.

    Attributes:
        tasks: labelled tasks, by id.
        held_out: whether none of them trained; False where nothing is held out: then they are all labelled ones.
        total: how many there are; more than `tasks` where only a part of them is taken.
    """

    tasks: tuple[Task, ...]
    held_out: bool
    total: int


@dataclass(frozen=True)
class Compared:
    """One image: each version's mean IoU with the true mask, and the share of pixels in which the versions differ."""

    task: int
    first: float | None
    second: float | None
    differs: float

    @property
    def gain(self) -> float:
        """How much better the second version is."""
        return (self.second or 0.0) - (self.first or 0.0)


@dataclass(frozen=True)
class Result:
    """Two versions on the same labels.

    Attributes:
        first, second: measures as in `VersionRecord.measures`.
        images: each of them.
        failed: task id -> why it could not be measured.
    """

    first: dict[str, Any]
    second: dict[str, Any]
    images: tuple[Compared, ...]
    failed: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return what `from_json` reads."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Result:
        """Rebuild a result."""
        values = json.loads(content)
        return cls(**{**values, "images": tuple(Compared(**one) for one in values["images"])})


@dataclass
class _Job:
    project: Project
    labels: Labels
    basis: Basis
    versions: tuple[Version, Version]
    key: str
    done: int = 0


class Comparisons:
    """Compares versions, one comparison at a time; results outlive the process.

    Args:
        cache: where results are kept, beside the pictures.
    """

    def __init__(self, services: Services, pictures: Pictures, cache: PictureCache) -> None:
        self._services, self._pictures, self._cache = services, pictures, cache
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()  # the first one is under way
        self._failed: dict[str, str] = {}

    def basis(self, project: Project) -> Basis:
        """Return today's held-out labels, or all where none is held out."""
        labelled = [task for task in self._services.store.tasks(project.id, status="labelled") if task.mask_file]
        labelled = supervising(labelled)
        held_out = [task for task in labelled if task.held_out]
        found = held_out or labelled
        drawn = sorted(found, key=lambda task: hashlib.sha256(str(task.task_id).encode()).digest())[:MOST]
        return Basis(tuple(sorted(drawn, key=lambda task: task.task_id)), bool(held_out), len(found))

    def result(self, project: Project, versions: tuple[Version, Version], basis: Basis) -> Result | None:
        """Return how two versions compare; None where that was not measured yet."""
        content = self._cache.get(self._key(project, versions, basis))
        return None if content is None else Result.from_json(content)

    def progress(self, project: Project, versions: tuple[Version, Version], basis: Basis) -> tuple[int, int] | None:
        """Return how many images are done, and of how many; None where nothing is under way."""
        key = self._key(project, versions, basis)
        with self._lock:
            job = next((job for job in self._jobs if job.key == key), None)
        return None if job is None else (job.done, len(basis.tasks))

    def failure(self, project: Project, versions: tuple[Version, Version], basis: Basis) -> str | None:
        """Return why the last try failed; None where it did not."""
        return self._failed.get(self._key(project, versions, basis))

    def start(self, project: Project, versions: tuple[Version, Version], basis: Basis) -> bool:
        """Begin to compare, unless that is done or under way; tell whether there was room for it."""
        key = self._key(project, versions, basis)
        if self._cache.get(key) is not None:
            return True
        with self._lock:
            if any(job.key == key for job in self._jobs):
                return True
            if len(self._jobs) >= _WAITING:
                return False
            self._failed.pop(key, None)
            self._jobs.append(_Job(project, self._labels(project), basis, versions, key))
            if len(self._jobs) == 1:
                threading.Thread(target=self._work, name="comparison", daemon=True).start()
        return True

    def _labels(self, project: Project) -> Labels:
        return labels_of(project, project_settings(self._services.settings, self._services.store, project)[0])

    def _key(self, project: Project, versions: Sequence[Version], basis: Basis) -> str:
        weights = [version.sha256 for version in versions]
        sizes = [int(version.record.settings["input_size"]) for version in versions]
        tasks = [f"{task.task_id} {task.label_digest} {task.image}" for task in basis.tasks]
        classes = self._labels(project).label_map.training_digest
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
            return f"Unexpected {type(error).__name__}; the log has the details."
        return None

    def _compare(self, job: _Job) -> Result:
        from ml_backend.learning.training.measures import measures

        classes = job.labels.label_map.classes
        counts = [_no_counts(len(classes)), _no_counts(len(classes))]
        images: list[Compared] = []
        failed: dict[str, str] = {}
        for found in self._judged(job):
            if isinstance(found[1], str):
                failed[str(found[0])] = found[1]
            else:
                task, (truth, first, second) = found[0], found[1]
                for sum_, mask in zip(counts, (first, second), strict=True):
                    sum_ += confusion(truth, mask, len(classes))
                images.append(compared(task, truth, first, second, len(classes)))
            job.done += 1
        if not images:
            raise NoPicture(f"None of {len(failed)} labels can be measured: {next(iter(failed.values()), 'no label')}")
        import torch

        named = (*classes, "")  # the last one: what is predicted to be none of them
        both = [_known_classes(measures(torch.from_numpy(one), named)) for one in counts]
        return Result(both[0], both[1], tuple(images), failed)

    def _judged(self, job: _Job) -> Iterator[tuple[int, tuple[Mask, Mask, Mask] | str]]:
        """Yield task ids with the true mask and those of both versions, or why there are none."""
        settings, _ = project_settings(self._services.settings, self._services.store, job.project)
        for task in job.basis.tasks:
            subject = Subject(job.project, settings, job.labels, task)
            try:
                truth = masks.mask_from_png(Path(task.mask_file).read_bytes())
                first, second = self._pictures.judged(subject, [version.number for version in job.versions])
                if truth.shape != first.shape:
                    raise NoPicture(f"The mask is {truth.shape}, the image {first.shape} pixels.")
                yield task.task_id, (truth, first, second)
            except (NoPicture, MaskError, OSError) as error:
                yield task.task_id, str(error)


def confusion(truth: Mask, predicted: Mask, classes: int) -> Counts:
    """Count pixels: (C+1,C+1), rows are the truth, columns the prediction, the last one that of no class at all."""
    known = truth < classes
    return masks.confusion(truth[known], np.minimum(predicted[known], classes), classes + 1)


def compared(task: int, truth: Mask, first: Mask, second: Mask, classes: int) -> Compared:
    """Describe one image; pixels that nobody labelled do not count."""
    known = truth != IGNORE_INDEX
    differs = float((first != second)[known].mean()) if known.any() else 0.0
    return Compared(
        task, masks.agreement(first, truth, classes), masks.agreement(second, truth, classes), round(differs, 6)
    )


def same_labels(first: Version, second: Version) -> bool:
    """Tell whether the stored measures of two versions are of the same labels."""
    sets = [{task: version.record.labels.get(task) for task in version.record.held_out} for version in (first, second)]
    return sets[0] == sets[1]


def _no_counts(classes: int) -> Counts:
    return np.zeros((classes + 1, classes + 1), np.int64)


def _known_classes(found: dict[str, Any]) -> dict[str, Any]:
    for name in ("iou", "dice"):
        found[name].pop("")
    return found
