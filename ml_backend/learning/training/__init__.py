"""Training of a version from labelled images; knows nothing of Label Studio.

`job` is what is to be trained, `data` reads and augments (`single_pixels`: what must not get lost on the way), `losses`
and `measures` count and add up, `start` builds the network with its initial weights, `loop` trains it, `gate` decides
whether the result may be published, `committee` trains several networks on resamples of the same labels. `process`
trains in a process of its own, `turns` lets a single project train at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ml_backend.learning.training.job import Item, Job, Progress

if TYPE_CHECKING:
    from ml_backend.learning.checkpoints import Version

__all__ = ["Item", "Job", "Progress", "train"]


def train(job: Job, progress: Callable[[Progress], None] | None = None) -> Version:
    """Train, measure and write a new version; the caller publishes it (`Checkpoints.publish`).

    A job with `committee_of` trains the committee of that version instead.

    Args:
        job: data, network and how to train it.
        progress: called often; an exception that it raises ends the training.

    Returns:
        the new version, or the version of the committee. `record.accepted` is False when it is worse than the
        parent.

    Raises:
        TrainingError: no usable label, or the loss is not finite any more.
        ConfigurationError: the network cannot be built as configured.
        CheckpointError: the parent is damaged, or the version cannot be written.
    """
    # torch is slow to import; jobs are also made where none is trained
    from ml_backend.learning.training import committee, loop

    run = loop.run if job.committee_of is None else committee.run
    return run(job, progress or (lambda _: None))
