"""Keeps processes that predict all day from growing: the C library is told to give back what was freed.

glibc keeps freed memory for later, in a heap for each thread that ever asked. Predictions free blocks of many sizes
from many threads, so those heaps fill with holes that nothing fits into. Nothing is lost, and yet a process grows for
hours. Elsewhere than on glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections.abc import Callable

SECONDS = 5.0
"""Giving back is not for free (tens of milliseconds for a gigabyte): at most so often."""
_ARENAS = 2
_M_ARENA_MAX = -8  # of malloc.h

_lock = threading.Lock()
_given_back = 0.0


def share_heaps() -> None:
    """Let all threads share two heaps; to be called before they start."""
    if found := _function("mallopt"):
        found(_M_ARENA_MAX, _ARENAS)


def release_freed_memory() -> bool:
    """Return freed memory to the system, at most every SECONDS; return whether it was done this time."""
    global _given_back
    trim = _function("malloc_trim")
    if trim is None or not _lock.acquire(blocking=False):  # another thread is at it
        return False
    try:
        if time.monotonic() - _given_back < SECONDS:
            return False
        trim(0)
        _given_back = time.monotonic()
        return True
    finally:
        _lock.release()


@functools.cache
def _function(name: str) -> Callable[..., int] | None:
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):  # no such way to the C library: Windows
        return None
