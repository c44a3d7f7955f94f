"""Freed memory goes back to the system, in a process of its own: what others allocate must not be measured."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from ml_backend.system import memory as heap

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


def test_it_is_done_every_few_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    now = [1000.0]
    monkeypatch.setattr(heap, "_function", lambda _: calls.append)
    monkeypatch.setattr(heap, "_released_at", 0.0)
    monkeypatch.setattr(heap.time, "monotonic", lambda: now[0])
    assert [heap.release_freed_memory(), heap.release_freed_memory()] == [True, False]
    now[0] += heap.SECONDS
    assert heap.release_freed_memory()
    assert len(calls) == 2


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_function", lambda _: None)
    heap.share_heaps()
    assert not heap.release_freed_memory()
