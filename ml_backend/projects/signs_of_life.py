"""Signs of life of the workers, whichever process and machine they are in: kept in the store."""

from __future__ import annotations

import time
from typing import Final

from ml_backend.store import Store

_KEY: Final = "worker_seen_at"


def give_sign(store: Store) -> None:
    """Give a sign of life of this process, a worker."""
    store.set_value(_KEY, str(time.time()))


def last_sign(store: Store) -> float | None:
    """Return when a worker gave its last sign of life (seconds since the epoch); None where none ever did."""
    kept = store.value(_KEY)
    return None if kept is None else float(kept)
