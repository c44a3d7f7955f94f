"""What goes to a node to train on, and what comes back. Imports neither Ray nor torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_backend.cluster.process import Work, messages
from ml_backend.cluster.rows import device_on_node
from ml_backend.cluster.versions import versions
from ml_backend.errors import ClusterError, TrainingError
from ml_backend.learning.training.job import Job, Progress
from ml_backend.learning.training.process import SILENCE_SECONDS

if TYPE_CHECKING:
    from ml_backend.learning.checkpoints import VersionRecord


@dataclass(frozen=True)
class Training:
    """A job, and the versions of nextmask and torch that nodes must have for it.

    The driver reads the job's files; nodes are given their content.
    """

    job: Job
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Trained:
    """What a node has trained: a version, or a member of a committee.

    Attributes:
        record: of the version; of the committee, where a member was trained.
        weights: as the safetensors format has them.
    """

    record: VersionRecord | dict[str, Any]
    weights: bytes


@dataclass(frozen=True)
class Ended:
    """How a training ended: the number of the version that was written here, or why there is none."""

    version: int | None = None
    error: TrainingError | None = None


WAITING = Progress("waiting for the cluster", 0, 0)
"""Told while no node has begun: other work has its GPUs or CPUs."""


def run(job: Job, *, address: str, progress: Callable[[Progress], None], heartbeat: Callable[[], None]) -> int:
    """Train on the cluster at an address, as `learning.training.process.run` does here.

    Raises:
        TrainingError: the training failed there, or was lost twice with its nodes.
        ClusterError: the cluster cannot be used, or has no room for it.
        DiskFull: here is no room for what was trained.
    """
    work = Work(address, job.device, "train", Training(_on_node(job), versions()))
    for message in messages(work, (), heartbeat=heartbeat, silence=SILENCE_SECONDS):
        if isinstance(message, Progress):
            progress(message)
        elif isinstance(message, Ended) and message.error is not None:
            raise message.error
        elif isinstance(message, Ended) and message.version is not None:
            return message.version
    raise ClusterError("The Ray cluster ended a training without a word.")


def _on_node(job: Job) -> Job:
    """Return a job for another machine: the worker's device decides of the network, which it is to serve."""
    from ml_backend.learning.training.recipe import resolved  # takes torch with it

    return dataclasses.replace(resolved(job), maps_folder=None, device=device_on_node(job.device))


def files_of(job: Job) -> Iterator[Path]:
    """Yield the images and masks of a job."""
    for item in job.items:
        yield item.image
        yield item.mask
