"""The driver's side of training: gives the job's files to nodes, waits for them, and writes the version here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray
from ray.exceptions import OutOfMemoryError, RayError

from ml_backend.cluster.connection import Cluster, cause_of, first_line
from ml_backend.cluster.node_training import train_on_node
from ml_backend.cluster.trainings import WAITING, Ended, Trained, Training, files_of
from ml_backend.errors import ClusterError, FilesUnavailable, NextmaskError, TrainingError
from ml_backend.learning.checkpoints import Checkpoints, VersionRecord
from ml_backend.learning.training.job import Job, Progress
from ml_backend.learning.training.process import SILENCE_SECONDS
from ml_backend.system.disk import naming_full_disk

logger = logging.getLogger(__name__)

RETRIES = 1
"""How often a training begins again whose node was lost; after that it has failed, and is tried again after a pause."""
_POLL_SECONDS = 0.5
_AGAIN_SECONDS = 10.0
"""Until it begins again: nodes that were lost at the same moment are known to Ray by then."""
_WAITING_SECONDS = 5.0


def run(cluster: Cluster, training: Training, parts: Iterable[Any], send: Any) -> None:
    """Train a job, or the members of its committee at the same time, and send how it goes: `Progress`, then `Ended`.

    Raises:
        ClusterError: the cluster has no room for it, or is gone.
        DiskFull: here is no room for the version.
    """
    list(parts)
    try:
        number = _trained(cluster, training, send)
    except (TrainingError, FilesUnavailable) as error:  # a bucket that is away: it is tried again after a pause
        send(Ended(error=error if isinstance(error, TrainingError) else TrainingError(str(error))))
        return
    logger.info("version %d: trained on the cluster", number)
    send(Ended(version=number))


def _trained(cluster: Cluster, training: Training, send: Any) -> int:
    job, checkpoints = training.job, Checkpoints(training.job.folder)
    files = [ray.put(_content(file)) for file in files_of(job)]
    parent = ray.put(_files_of_parent(job, checkpoints))
    members: Sequence[int | None] = [None] if job.committee_of is None else range(job.members)
    board = ray.remote(Board).options(num_cpus=0, max_restarts=-1).remote()
    task = ray.remote(_train).options(max_retries=0, **cluster.resources)  # Ray's own would begin again without an end

    def begin(member: int | None) -> Any:
        return task.remote(training, member, files, parent, board)

    trained = _wait(members, begin, board, send)
    return _written(job, checkpoints, [trained[member] for member in members])


def _content(file: Path) -> bytes:
    """Return what is in a file; nothing where it is gone: the training leaves that label out, and says so."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def _wait(
    members: Sequence[int | None], begin: Callable[[int | None], Any], board: Any, send: Any
) -> dict[int | None, Trained]:
    """Wait for the tasks of all members, and send how they go; one whose node was lost begins again.

    Raises:
        TrainingError: one failed.
        ClusterError: no node had room for them in time.
    """
    trained: dict[int | None, Trained] = {}
    running, left = {begin(member): member for member in members}, dict.fromkeys(members, RETRIES)
    again: dict[int | None, float] = {}
    began, told = None, 0.0
    asked = time.monotonic()
    while running or again:
        for member in [member for member, due in again.items() if time.monotonic() >= due]:
            del again[member]
            running[begin(member)] = member
        if not running:
            time.sleep(_POLL_SECONDS)
        for one in ray.wait(list(running), timeout=_POLL_SECONDS)[0] if running else ():
            member = running.pop(one)
            result = _result(one, last=not left[member])
            if result is None:
                left[member] -= 1
                again[member] = time.monotonic() + _AGAIN_SECONDS
            else:
                trained[member] = result
                began = time.monotonic()
        if (news := _news(board)) is not None:
            began = time.monotonic()
            send(news)
        elif began is None and time.monotonic() - asked > SILENCE_SECONDS:
            raise ClusterError(
                f"No node of the Ray cluster had room for a training within {SILENCE_SECONDS / 60:g} minutes.",
                "`ray status` says what its CPUs and GPUs do.",
            )
        elif began is None and time.monotonic() - told > _WAITING_SECONDS:
            told = time.monotonic()
            send(WAITING)
    return trained


def _result(task: Any, *, last: bool) -> Trained | None:
    """Return what a task has trained, or raise what became of it; None: it was lost with its node, and begins again."""
    try:
        answer: Trained | NextmaskError = ray.get(task)
    except OutOfMemoryError:
        raise TrainingError(
            "A node of the Ray cluster had too little memory for the training: lower NEXTMASK_BATCH_SIZE or "
            "NEXTMASK_INPUT_SIZE, or give its nodes more memory."
        ) from None
    except RayError as error:
        cause = cause_of(error)
        if not isinstance(cause, RayError):  # it could not even begin: no nextmask there, for example
            raise ClusterError(f"The Ray cluster failed: {first_line(cause)}.") from None
        if not last:
            return None
        raise TrainingError(
            f"The training was lost with its node of the Ray cluster, {RETRIES + 1} times ({type(error).__name__}). "
            "The model that serves is not affected."
        ) from None
    if isinstance(answer, NextmaskError):
        raise answer if isinstance(answer, ClusterError | TrainingError) else TrainingError(str(answer))
    return answer


def _written(job: Job, checkpoints: Checkpoints, trained: Sequence[Trained]) -> int:
    """Write the version, or the committee of one, where the project's are; return the version's number."""
    from safetensors.torch import load

    states = [load(one.weights) for one in trained]
    with naming_full_disk(job.local_folder):
        if job.committee_of is None:
            return checkpoints.create(cast(VersionRecord, trained[0].record), states[0]).number
        checkpoints.committees.put(job.committee_of, states, cast("dict[str, Any]", trained[0].record))
        return job.committee_of


def _files_of_parent(job: Job, checkpoints: Checkpoints) -> dict[str, bytes]:
    return {} if job.parent is None else checkpoints.files_of(job.parent)


# -- on the nodes ----------------------------------------------------------------------------------------------------
def _train(
    training: Training, member: int | None, files: Sequence[Any], parent: Mapping[str, bytes], board: Any
) -> Trained | NextmaskError:
    """Train on this node; files are read from the object store one at a time."""
    return train_on_node(training, member, [partial(ray.get, one) for one in files], parent, board.put.remote)


class Board:
    """Holds the newest progress of the trainings, for the driver to ask."""

    def __init__(self) -> None:
        self._newest: Progress | None = None

    def put(self, progress: Progress) -> None:
        """Replace the newest progress."""
        self._newest = progress

    def take(self) -> Progress | None:
        """Return the newest progress, once."""
        newest, self._newest = self._newest, None
        return newest


def _news(board: Any) -> Progress | None:
    try:
        return cast("Progress | None", ray.get(board.take.remote()))
    except RayError:  # it was lost with its node, and begins anew on another
        return None
