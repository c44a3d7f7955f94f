"""How much memory is left, and freed memory returned to the system, so that processes that predict all day do not grow.

glibc keeps freed memory in a heap for each thread that allocated any. Predictions free blocks of many sizes in many
threads, so the heaps fill with holes that nothing fits into: the process grows for hours although nothing leaks. With
other C libraries, nothing is done.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 5.0
"""Shortest time between two returns of memory, since each takes tens of milliseconds for a gigabyte."""
_ARENAS = 2
_M_ARENA_MAX = -8  # of malloc.h

_lock = threading.Lock()
_released_at = 0.0


def available_bytes() -> int | None:
    """Return the memory that is left for this process: of the machine, or of its container; None: it is not known."""
    left = [bytes_ for bytes_ in (_left_in_machine(), _left_in_container()) if bytes_ is not None]
    return min(left, default=None)


def _left_in_machine(file: Path = Path("/proc/meminfo")) -> int | None:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _left_in_container(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    try:
        most, used = ((folder / f"memory.{name}").read_text(encoding="ascii") for name in ("max", "current"))
        return max(int(most) - int(used), 0)
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        return None


def share_heaps() -> None:
    """Let all threads share two heaps. Call this before threads start."""
    if mallopt := _function("mallopt"):
        mallopt(_M_ARENA_MAX, _ARENAS)


def release_freed_memory() -> bool:
    """Return freed memory to the system, at most every SECONDS; return whether it was done this time."""
    global _released_at
    trim = _function("malloc_trim")
    if trim is None or not _lock.acquire(blocking=False):  # another thread does it now
        return False
    try:
        if time.monotonic() - _released_at < SECONDS:
            return False
        trim(0)
        _released_at = time.monotonic()
        return True
    finally:
        _lock.release()


@functools.cache
def _function(name: str) -> Callable[..., int] | None:
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):  # Windows
        return None
