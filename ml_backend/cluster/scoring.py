"""The driver's side of scoring: cuts the pool into blocks, and lets Ray Data give them to the nodes.

A block whose process was lost, with its node or by its own fault, is scored again, image by image, each twice at most.
So an image that ends its decoder is found, and it alone is left out.
"""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from ml_backend.cluster.connection import Cluster, first_line
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
_CONDUCTORS = 3
"""Nodes that may be lost with what hands out the blocks, before the cluster is given up."""
_JOINING = 4
"""A cluster may grow to so many times its processes while it scores."""


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
    _score_all(cluster, scoring, waiting, send, size=size, retries=0)
    if not waiting:
        return
    if len(waiting) == count or len(waiting) > _MOST_AGAIN:
        raise ClusterError(
            f"The processes on the Ray cluster ended before they had scored {len(waiting)} of {count} images.",
            "Their nodes may have too little memory: Ray's logs say.",
        )
    logger.warning("images=%s are scored again, one by one: their processes were lost", len(waiting))
    _score_all(cluster, scoring, waiting, send, size=1, retries=1)
    if waiting:
        why = "The processes that read and measured it ended, each time: it takes too much memory, or crashes them."
        send(Scored(None, dict.fromkeys(waiting, (why, False))))


def _score_all(
    cluster: Cluster, scoring: Scoring, waiting: dict[int, Row], send: Any, *, size: int, retries: int
) -> None:
    """Score what waits, and send what comes of it; rows of lost processes stay waiting."""
    for _ in range(_CONDUCTORS):
        try:
            for scored in _scored(cluster, scoring, list(waiting.values()), size, retries):
                if scored.failure is not None:
                    raise scored.failure
                if [task for task in scored.ids if waiting.pop(task, None) is not None]:
                    send(scored)
        except RayTaskError as error:
            raise ClusterError(f"The Ray cluster failed: {first_line(error.cause)}.") from error
        except RayError as error:
            logger.warning("the node that handed out blocks was lost: %s", type(error).__name__)
        else:
            return
    raise ClusterError(f"The Ray cluster lost nodes {_CONDUCTORS} times while it scored a pool.")


def _scored(cluster: Cluster, scoring: Scoring, rows: Sequence[Row], size: int, retries: int) -> Iterator[Scored]:
    """Score rows in blocks of a size; those of processes that were lost more often than `retries` are missing."""
    # In a process of the cluster: Ray Data cannot be driven from outside it, as ray:// addresses do.
    conductor = ray.remote(Conductor).options(num_cpus=0).remote(scoring, retries)
    try:
        for start in range(0, len(rows), size):
            conductor.add.remote(pickle.dumps(rows[start : start + size]))
        ray.get(conductor.start.remote(cluster))
        while (answer := ray.get(conductor.next.remote())) is not None:
            yield pickle.loads(answer)  # noqa: S301 (written by our own node)
    finally:
        ray.kill(conductor)


class Conductor:
    """Hands out blocks of rows on the cluster, and collects what comes of them.

    Args:
        retries: how often a block is tried again whose process was lost.
    """

    def __init__(self, scoring: Scoring, retries: int) -> None:
        self._scoring, self._retries = scoring, retries
        self._blocks: list[bytes] = []
        self._answers: Iterator[Any] = iter(())

    def add(self, block: bytes) -> None:
        """Take one more block of pickled rows."""
        self._blocks.append(block)

    def start(self, cluster: Cluster) -> None:
        """Begin: no block is added any more."""
        import pyarrow
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # blocks of lost processes are missing, and scored again
        data = ray.data.from_arrow([pyarrow.table({"rows": [block]}) for block in self._blocks])
        self._blocks = []
        if cluster.gpus:
            # GPUs are fed by all CPUs there are: one decodes some 30 images a second, and a GPU takes hundreds.
            data = self._through(ShrinkingStage, data, cluster.cpus_in_all, {"num_cpus": 1})
            data = self._through(ScoringStage, data, cluster.gpus, {"num_gpus": 1})
        else:
            data = self._through(WholeStage, data, cluster.processes, cluster.resources)
        self._answers = iter(data.iter_batches(batch_size=1, prefetch_batches=0))

    def next(self) -> bytes | None:
        """Return what came of a block, `Scored` as pickled bytes, as soon as there is one; None at the end."""
        answer = next(self._answers, None)
        return None if answer is None else bytes(answer["scored"][0])

    def _through(self, stage: type, data: Any, processes: int, resources: dict[str, float]) -> Any:
        """Let blocks pass through a stage, in so many processes, and more where nodes join."""
        from ray.data import ActorPoolStrategy

        # By default Ray Data tries again without an end, and an image that ends its process would do so for ever.
        bounds = {"max_restarts": -1, "max_task_retries": self._retries}
        return data.map_batches(
            stage,
            fn_constructor_args=(self._scoring,),
            batch_size=1,
            compute=ActorPoolStrategy(min_size=1, max_size=_JOINING * processes, initial_size=processes),
            ray_remote_args_fn=lambda: bounds,
            **resources,
        )
