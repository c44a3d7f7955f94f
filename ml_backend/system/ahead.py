"""Work that threads do ahead of somebody who takes it in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MOST_CORES = 16
"""More threads of one process only wait for each other's Python."""


def cores() -> int:
    """Return how many threads work at once, as far as this process may: at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(_MOST_CORES, allowed or 1)


def in_order(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int,
    name: str,
    size: Callable[[T], int] = lambda _: 0,
    most: int = 0,
    stop: Callable[[], None] = lambda: None,
) -> Generator[Future[R], None, None]:
    """Work on items in threads, and yield what becomes of each in their order.

    Items are taken in the caller's thread, at most two for each worker ahead of what was yielded.

    Args:
        work: is called in a thread, once for each item; its errors are the future's.
        workers: number of threads.
        name: of the threads.
        size: bytes that an item and what is made of it take.
        most: no further item is taken while those taken and not yielded have so many bytes.
        stop: called before the threads are waited for, where somebody has to be told that nobody wants the rest.
    """
    waiting: deque[tuple[int, Future[R]]] = deque()
    remaining, held = iter(items), 0
    pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
    try:
        while True:
            while len(waiting) < 2 * workers and (not held or held < most):
                try:
                    item = next(remaining)
                except StopIteration:
                    break
                bytes_of_item = size(item)
                held += bytes_of_item
                waiting.append((bytes_of_item, pool.submit(work, item)))
                del item
            if not waiting:
                return
            bytes_of_item, future = waiting[0]
            yield future
            del future
            waiting.popleft()
            held -= bytes_of_item
    finally:
        stop()
        pool.shutdown(cancel_futures=True)
