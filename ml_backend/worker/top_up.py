"""top up: keep annotators supplied while a training, or a strategy that learns, takes long."""

from __future__ import annotations

import logging
import math
import time

from ml_backend.errors import LabelStudioNotFound, NextmaskError
from ml_backend.worker.decide import decide_meanwhile
from ml_backend.worker.look import Look
from ml_backend.worker.publish import publish
from ml_backend.worker.sync import sync

logger = logging.getLogger(__name__)

TOP_UP_SECONDS = 15.0
"""How often labels are read and the queue is filled up."""


class TopUp:
    """Reads labels and fills the queue up now and then, during one look."""

    def __init__(self) -> None:
        self._last = -math.inf

    def __call__(self, look: Look) -> None:
        """Top up if it is time to.

        Raises:
            LeaseLost: this process must stop.
            LabelStudioNotFound: the project is gone: nobody waits for this training.
        """
        if time.monotonic() - self._last < TOP_UP_SECONDS:
            return
        try:
            with look.quietly():
                self._top_up(look)
        except NextmaskError as error:  # the training goes on; the next look tries again
            look.check()
            if isinstance(error, LabelStudioNotFound) and look.client.is_gone(look.project_id):
                raise
            logger.warning("project=%s top-up during training failed: %s", look.project_id, error)
        self._last = time.monotonic()

    def _top_up(self, look: Look) -> None:
        sync(look)
        if look.project.ranking_version:
            publish(look)
        if look.is_training:  # and not in a ranking, which has its tasks already
            decide_meanwhile(look)
