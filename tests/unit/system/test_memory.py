"""Freed memory goes back to the system, in a process of its own: what others allocate must not be measured."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

HOLES = """
import psutil
from ml_backend.system.memory import release_freed_memory, share_heaps
share_heaps()
blocks = [bytearray(3000) for _ in range(100_000)]  # too large for Python's own pools, too small for mmap
last = bytearray(3000)  # above them: the heap cannot shrink from its end
del blocks
before = psutil.Process().memory_info().rss
assert release_freed_memory()
print(before - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps such heaps")
def test_holes_in_the_heap_are_given_back() -> None:
    run = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert int(run.stdout) > 200_000_000


C_LIBRARY = """
import ctypes, time
from types import SimpleNamespace
calls, now = [], [1000.0]
ctypes.CDLL = lambda _: SimpleNamespace(**LIBRARY)
from ml_backend.system import memory
time.monotonic = lambda: now[0]
memory.share_heaps()
done = [memory.release_freed_memory(), memory.release_freed_memory()]
now[0] += memory.SECONDS
print(*done, memory.release_freed_memory(), len(calls))
"""


def with_library(functions: str) -> str:
    """Ask for memory to be given back twice at once, and later; return whether it was, and how many calls that took."""
    code = C_LIBRARY.replace("LIBRARY", functions)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_it_is_done_every_few_seconds_at_most() -> None:
    assert with_library('{"malloc_trim": calls.append}') == "True False True 2"


def test_without_glibc_nothing_is_done() -> None:
    assert with_library("{}") == "False False False 0"
