"""A node's side of a training: writes the job's files into a folder of its own, trains, and returns what came of it."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ml_backend.cluster.node import check_versions, failure_of, unpacked
from ml_backend.cluster.trainings import Trained, Training
from ml_backend.errors import ClusterError, NextmaskError, TrainingError
from ml_backend.learning.training.job import Item, Job, Progress
from ml_backend.learning.training.process import explained
from ml_backend.system.disk import is_full

if TYPE_CHECKING:
    from ml_backend.learning.checkpoints import Version

logger = logging.getLogger(__name__)

Report = Callable[[Progress], None]


def train_on_node(
    training: Training,
    member: int | None,
    files: Sequence[Callable[[], bytes]],
    checkpoints: Mapping[str, bytes],
    report: Report,
) -> Trained | NextmaskError:
    """Train a job, or one member of its committee.

    Args:
        member: index of the member; None: the job is no committee's.
        files: gives the content of each of `trainings.files_of`, one at a time.
        checkpoints: files of the job's parent, by key.
        report: told about the progress.

    Returns:
        What was trained, or why nothing was.
    """
    try:
        check_versions(training.versions)
        with tempfile.TemporaryDirectory(prefix="nextmask-") as folder:
            own = unpacked(checkpoints, Path(folder) / "model")
            job = _with_files(training.job, files, Path(folder))
            return _trained(dataclasses.replace(job, folder=own.folder), member, report)
    except NextmaskError as error:
        return ClusterError(failure_of(error)) if is_full(error) else error
    except Exception as error:
        logger.exception("a training failed")  # in Ray's logs of this process
        return ClusterError(failure_of(error)) if is_full(error) else TrainingError(explained(error))


def _with_files(job: Job, files: Sequence[Callable[[], bytes]], folder: Path) -> Job:
    """Write the job's images and masks into a folder, and return the job with these."""

    def written(name: str, content: bytes) -> Path:
        file = folder / name
        file.write_bytes(content)
        return file

    items: list[Item] = []
    for index, item in enumerate(job.items):
        image = written(f"{index}-image", files[2 * index]())
        items.append(dataclasses.replace(item, image=image, mask=written(f"{index}-mask", files[2 * index + 1]())))
    return dataclasses.replace(job, items=tuple(items))


def _trained(job: Job, member: int | None, report: Report) -> Trained:
    from ml_backend.learning.checkpoints.files import serialise
    from ml_backend.learning.training import committee, train

    if member is not None:
        state, record = committee.run_member(job, member, report)
        return Trained(record, serialise(state))
    version: Version = train(job, report)
    return Trained(version.record, version.weights.read_bytes())
