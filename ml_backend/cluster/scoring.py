"""The driver's side of scoring: cuts the pool into blocks, and gives them to the nodes as tasks.

A block whose process was lost, with its node or by its own fault, is scored again: as it is where many were lost, and
else image by image, each twice at most. So an image that ends its decoder is found, and it alone is left out.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import ray
from ray.exceptions import RayError

from ml_backend.cluster.connection import Cluster, cause_of, first_line
from ml_backend.cluster.node import ScoringStage, ShrinkingStage, WholeStage
from ml_backend.cluster.rows import Row, Scored, Scoring
from ml_backend.errors import ClusterError

logger = logging.getLogger(__name__)

BLOCK = 64
"""Images of a block at most: of so many a lost process takes the results with it, and so often the lease is checked."""
_BLOCKS_EACH = 4
"""Blocks that each process gets at least, where there are enough images: so that all end at about the same time."""
_MOST_AGAIN = 10 * BLOCK
"""Images that are scored again one by one, at most: where more are lost, it is not some images' fault."""
_AHEAD = 2
"""Blocks handed out for each process of the cluster: one that it scores, and one that waits for it."""


def run(cluster: Cluster, scoring: Scoring, parts: Iterable[Sequence[Row]], send: Any) -> None:
    """Score rows, and send what comes of them: `Scored`, each image in one of them.

    Raises:
        ClusterError: the cluster cannot go on.
    """
    waiting = {row.task_id: row for part in parts for row in part}
    count = len(waiting)
    size = min(BLOCK, math.ceil(count / (_BLOCKS_EACH * cluster.processes)))
    # Whole batches, as the worker makes them: the last digits of what is computed depend on the size of a batch.
    size = max(1, math.ceil(size / scoring.batch_size)) * scoring.batch_size
    blocks = Blocks(cluster, scoring)
    _score_all(blocks, waiting, send, size=size)
    if _MOST_AGAIN < len(waiting) < count:
        logger.warning("images=%s are scored again: their processes were lost", len(waiting))
        _score_all(blocks, waiting, send, size=size)
    if not waiting:
        return
    if len(waiting) == count or len(waiting) > _MOST_AGAIN:
        raise ClusterError(
            f"The processes on the Ray cluster ended before they had scored {len(waiting)} of {count} images.",
            "Their nodes may have too little memory: Ray's logs say.",
        )
    logger.warning("images=%s are scored again, one by one: their processes were lost", len(waiting))
    for _ in range(2):
        _score_all(blocks, waiting, send, size=1)
    if waiting:
        why = "The processes that read and measured it ended, each time: it takes too much memory, or crashes them."
        send(Scored(None, dict.fromkeys(waiting, (why, False))))


def _score_all(blocks: Blocks, waiting: dict[int, Row], send: Any, *, size: int) -> None:
    """Score what waits, and send what comes of it; rows of lost processes stay waiting."""
    rows = list(waiting.values())
    parts = (rows[start : start + size] for start in range(0, len(rows), size))
    for scored in blocks.score(parts):
        if scored.failure is not None:
            raise scored.failure
        for task in scored.ids:
            del waiting[task]
        send(scored)


class Blocks:
    """Hands blocks of rows to the cluster, as many as its processes can begin soon, and collects what comes of them.

    Where there are GPUs, a block is shrunk by a CPU of any node first: a CPU decodes some 30 images a second, and a GPU
    takes hundreds. What was shrunk goes from node to node; so many blocks lie in the object store as are handed out.
    """

    def __init__(self, cluster: Cluster, scoring: Scoring) -> None:
        self._cluster = cluster
        self._scoring = [ray.put(scoring)]  # in a list Ray leaves it to the task to fetch it: once in a process

    def score(self, parts: Iterable[Sequence[Row]]) -> Iterator[Scored]:
        """Yield what comes of parts, as soon as it comes; of processes that were lost nothing does.

        Raises:
            ClusterError: a task failed, and so would others.
        """
        running = set[Any]()
        left = iter(parts)
        while True:
            while len(running) < self._room() and (rows := next(left, None)) is not None:
                running.add(self._begin(rows))
            if not running:
                return
            for one in ray.wait(list(running))[0]:
                running.remove(one)
                if (scored := _answer(one)) is not None:
                    yield scored

    def _room(self) -> int:
        """Return how many blocks to hand out at a time: nodes join and are lost meanwhile."""
        now = ray.cluster_resources()
        processes = now.get("GPU", 0) if self._cluster.gpus else now.get("CPU", 0) // self._cluster.cpus
        shrinking = now.get("CPU", 0) if self._cluster.gpus else 0
        return max(1, int(_AHEAD * processes + shrinking))

    def _begin(self, rows: Sequence[Row]) -> Any:
        if not self._cluster.gpus:
            return _task(_scored, **self._cluster.resources).remote(WholeStage, self._scoring, rows)
        shrunk = _task(_shrunk, num_cpus=1).remote(self._scoring, rows)
        return _task(_scored, **self._cluster.resources).remote(ScoringStage, self._scoring, shrunk)


def _task(function: Any, **resources: float) -> Any:
    # Ray would try again without an end what took too much memory. Zero calls at most means no limit: by default a
    # process ends after each task that had a GPU.
    return ray.remote(max_calls=0, max_retries=0, **resources)(function)


def _answer(task: Any) -> Scored | None:
    """Return what came of a block; None: its process was lost.

    Raises:
        ClusterError: the task failed in a way that others would.
    """
    try:
        return cast(Scored, ray.get(task))
    except RayError as error:
        cause = cause_of(error)
        if not isinstance(cause, RayError):
            raise ClusterError(f"The Ray cluster failed: {first_line(cause)}.") from error
        logger.warning("a block of images was lost: %s", type(cause).__name__)
        return None


# -- on the nodes ----------------------------------------------------------------------------------------------------
def _shrunk(scoring: list[Any], rows: Sequence[Row]) -> Any:
    return _stage(ShrinkingStage, scoring[0])(rows)


def _scored(stage: type, scoring: list[Any], given: Any) -> Scored:
    return cast(Scored, _stage(stage, scoring[0])(given))


@functools.cache
def _stage(stage: type, scoring: Any) -> Any:
    """Return a stage of this process, which loads a network once."""
    return stage(ray.get(scoring))
