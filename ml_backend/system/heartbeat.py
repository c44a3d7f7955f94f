"""Leases that a thread extends while somebody works under them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ml_backend.errors import DiskFull, LeaseLost, NextmaskError, StoreUnavailable

logger = logging.getLogger(__name__)

BEATS: Final = 4
"""A lease is extended so many times within its length."""


@contextmanager
def extended(
    extend: Callable[[], None],
    *,
    lease_seconds: float,
    name: str,
    away: Callable[[NextmaskError], None] = lambda _: None,
) -> Iterator[threading.Event]:
    """Extend a lease as long as the block runs.

    Args:
        extend: does it once; raises LeaseLost when another has the lease.
        lease_seconds: length of the lease.
        name: of the thread, and in the log.
        away: told when the database cannot be written; nobody else can take the lease then either.

    Yields:
        What is set once the lease is lost.
    """
    ended, lost = threading.Event(), threading.Event()

    def beat() -> None:
        while not ended.wait(lease_seconds / BEATS):
            try:
                extend()
            except LeaseLost:
                lost.set()
            except (DiskFull, StoreUnavailable) as error:
                away(error)
            except Exception:  # a locked database must not end the heartbeat: the lease outlives a few misses
                logger.exception("%s: heartbeat failed", name)

    thread = threading.Thread(target=beat, name=name, daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        ended.set()
        thread.join()
