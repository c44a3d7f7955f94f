"""Whose turn it is to train: one training at a time in a process, in the order in which projects asked for theirs.

Nobody waits here: a project whose turn has not come goes on with its queue, and is looked at again when it has. One
that blocked instead would keep its worker's thread from all other projects for as long as a training takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ml_backend.errors import TrainingWaits

_PATIENCE_SECONDS = 600.0
"""A project that did not ask again for so long lost its place: it was disconnected, or has no reason any more."""


class TrainingTurns:
    """The turns of one process. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._training: int | None = None
        self._waiting: dict[int, float] = {}  # project -> when it asked last, in order of asking first

    @contextmanager
    def take(self, project_id: int, wake: Callable[[int], object]) -> Iterator[None]:
        """Hold the turn for as long as a training takes.

        Args:
            wake: called at the end with the project that waits longest.

        Raises:
            TrainingWaits: another project trains, or was earlier; this one keeps its place.
        """
        self._ask(project_id)
        try:
            yield
        finally:
            with self._lock:
                self._training = None
                following = next(iter(self._waiting), None)
            if following is not None:
                wake(following)

    def leave(self, project_id: int) -> None:
        """Give a place up that is not wanted any more."""
        with self._lock:
            self._waiting.pop(project_id, None)

    def _ask(self, project_id: int) -> None:
        now = time.monotonic()
        with self._lock:
            self._waiting[project_id] = now
            self._waiting = {one: asked for one, asked in self._waiting.items() if now - asked < _PATIENCE_SECONDS}
            if self._training is not None or next(iter(self._waiting)) != project_id:
                raise TrainingWaits(f"Project {project_id} waits for its turn to train.")
            del self._waiting[project_id]
            self._training = project_id
