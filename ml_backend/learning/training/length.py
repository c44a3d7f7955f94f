"""How long a training goes on: for a number of steps, or for a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ml_backend.learning.training.job import Job

LEAST_PASSES = 4
"""Passes over the labels that every training takes, whatever its budget."""
MOST_PASSES, MOST_STEPS_OF_FEW = 60, 150
"""Passes after which a training ends before its budget; with few labels it takes so many steps in any case."""


@dataclass(frozen=True)
class Length:
    """The length of a training.

    Attributes:
        least: steps that are taken even where they need more than the time.
        most: steps after which it is over.
        seconds: time that it may take; infinite: it takes `most` steps.
        began: when it began, by the clock.
    """

    least: int
    most: int
    seconds: float = math.inf
    clock: Callable[[], float] = time.monotonic
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, job: Job, images: int, *, began: float | None = None) -> Length:
        """Return the length of a training on some labelled images: the job's steps, or its budget.

        Args:
            began: when the time began, by the monotonic clock; None: now.
        """
        began = time.monotonic() if began is None else began
        if job.iterations:
            return cls(job.iterations, job.iterations, began=began)
        passes = images / max(2, job.batch_size)
        most = max(MOST_STEPS_OF_FEW, math.ceil(MOST_PASSES * passes))
        least = min(most, math.ceil(LEAST_PASSES * passes))
        return cls(least, most, 60 * job.training_budget / job.networks, began=began)

    def share(self, steps: int) -> float:
        """Return how much of the training is done after some steps, in [0, 1]."""
        in_time = (self.clock() - self.began) / self.seconds
        return min(1.0, max(steps / self.most, min(in_time, steps / self.least)))

    def is_over(self, steps: int) -> bool:
        """Whether a training that took some steps takes no more."""
        return self.share(steps) >= 1

    def total(self, steps: int) -> int:
        """Estimate how many steps there will be, after at least one."""
        return max(steps, round(steps / self.share(steps)))

    def seconds_left(self, steps: int) -> float:
        """Estimate how long it will still take, after at least one step."""
        return (self.clock() - self.began) * (1 / self.share(steps) - 1)
