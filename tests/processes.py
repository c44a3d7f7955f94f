"""Processes on this machine, and waiting for what they do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_for(what: Callable[[], T], *, seconds: float = 120.0, name: str = "condition", every: float = 0.2) -> T:
    """Poll until `what` gives something true, and return that: at once, then less and less often."""
    deadline, pause = time.monotonic() + seconds, 0.01
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(pause)
        pause = min(1.5 * pause, every)
    raise AssertionError(f"{name} did not come true within {seconds:.0f} s")


def children(pid: int | None = None) -> list[int]:
    """Ids of a process's children that run; of this process by default."""
    wanted, below = os.getpid() if pid is None else pid, []
    for entry in Path("/proc").iterdir():
        with suppress(ValueError, OSError):
            state, parent = _state(int(entry.name))
            if parent == wanted and state != "Z":
                below.append(int(entry.name))
    return sorted(below)


def with_descendants(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *(one for child in children(pid) for one in with_descendants(child))]


def is_running(pid: int) -> bool:
    """Whether there is such a process and it has not ended."""
    try:
        return _state(pid)[0] != "Z"
    except OSError:
        return False


def exists(pid: int) -> bool:
    """Whether there is such a process, be it one that ended and was not asked for its status."""
    return Path(f"/proc/{pid}").exists()


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)


def _state(pid: int) -> tuple[str, int]:
    state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    return state, int(parent)
