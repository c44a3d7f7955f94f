"""Memory that threads share which work ahead of somebody who takes what they made in order."""

from __future__ import annotations

import threading


class Room:
    """Lets threads hold bytes, in the order of their turns, and together no more than so many.

    What alone is larger than all the room gets in when nothing else is held. Since turns are granted in order, whoever
    takes what was made in that order never waits for a thread that waits for room.

    Args:
        size: bytes.
    """

    def __init__(self, size: int) -> None:
        self._size, self._held, self._turn = size, 0, 0
        self._changed = threading.Condition()
        self._closed = False

    def enter(self, turn: int, size: int) -> None:
        """Wait for a turn, counted from 0, and for as much room; every turn has to be taken, be it with 0 bytes."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (turn == self._turn and self._has(size)))
            self._turn, self._held = self._turn + 1, self._held + size
            self._changed.notify_all()

    def leave(self, size: int) -> None:
        """Give room back."""
        with self._changed:
            self._held -= size
            self._changed.notify_all()

    def close(self) -> None:
        """Let everybody in who waits: nobody wants what they make."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has(self, size: int) -> bool:
        return not self._held or self._held + size <= self._size
