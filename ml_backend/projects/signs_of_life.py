"""Signs of life of the workers, whichever process and machine they are in, and why one cannot start: in the store."""

from __future__ import annotations

import time
from typing import Final

from ml_backend.store import Store

SETTLED_SECONDS: Final = 20.0
"""A worker that ran so long did not fail at its start."""
_KEY: Final = "worker_seen_at"
_FAILURE_KEY: Final = "worker_failure"


def give_sign(store: Store) -> None:
    """Give a sign of life of this process, a worker."""
    store.set_value(_KEY, str(time.time()))


def last_sign(store: Store) -> float | None:
    """Return when a worker gave its last sign of life (seconds since the epoch); None where none ever did."""
    kept = store.value(_KEY)
    return None if kept is None else float(kept)


def note_failure(store: Store, sentence: str) -> None:
    """Keep why workers end soon after their start, for whoever asks, until one has settled."""
    store.set_value(_FAILURE_KEY, sentence)


def forget_failure(store: Store) -> None:
    """Forget the failures of earlier workers: this one has settled."""
    if worker_failure(store):
        store.set_value(_FAILURE_KEY, "")


def worker_failure(store: Store) -> str:
    """Return why workers end soon after their start, as a sentence; "" where none does."""
    return store.value(_FAILURE_KEY) or ""
