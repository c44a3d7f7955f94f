"""Turns to train: a single training at a time in a process, in the order in which projects asked.

Nothing blocks: a project whose turn has not come continues with its queue, and is woken when it has. A project that
blocked instead would keep its worker's thread from all other projects for as long as a training takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ml_backend.errors import TrainingWaits

_PATIENCE_SECONDS = 600.0
"""A project that did not ask again within this time loses its place: it was disconnected, or need not train."""


class TrainingTurns:
    """The turns of a process. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._training: int | None = None
        self._waiting: dict[int, float] = {}  # project -> when it asked last, in order of asking first

    @contextmanager
    def take(self, project_id: int, wake: Callable[[int], object]) -> Iterator[None]:
        """Hold the turn for as long as a training takes.

        Args:
            wake: called with the project that waits longest, whenever it may train now.

        Raises:
            TrainingWaits: another project trains, or asked earlier; this project keeps its place.
        """
        try:
            self._ask(project_id)
        except TrainingWaits:
            self._wake_first(wake)  # it may have been woken when it was not first yet, and sleep
            raise
        try:
            yield
        finally:
            with self._lock:
                self._training = None
            self._wake_first(wake)

    @property
    def is_awaited(self) -> bool:
        """Whether a project waits for its turn."""
        with self._lock:
            return bool(self._waiting)

    def leave(self, project_id: int, wake: Callable[[int], object]) -> None:
        """Give up a place in the queue: whoever is behind it need not wait any more.

        Args:
            wake: as in `take`.
        """
        with self._lock:
            waited = self._waiting.pop(project_id, None) is not None
        if waited:
            self._wake_first(wake)

    def _wake_first(self, wake: Callable[[int], object]) -> None:
        with self._lock:
            following = None if self._training is not None else next(iter(self._waiting), None)
        if following is not None:
            wake(following)

    def _ask(self, project_id: int) -> None:
        now = time.monotonic()
        with self._lock:
            self._waiting[project_id] = now
            waiting = self._waiting.items()
            self._waiting = {project: asked for project, asked in waiting if now - asked < _PATIENCE_SECONDS}
            if self._training is not None or next(iter(self._waiting)) != project_id:
                raise TrainingWaits(f"Project {project_id} waits for its turn to train.")
            del self._waiting[project_id]
            self._training = project_id
