"""Which labels are held out for measuring, and which of the images that wait will be."""

from __future__ import annotations

import hashlib
from typing import Final

from ml_backend.settings import Settings
from ml_backend.store import Store

LOOKED_AT: Final = 1000
"""Places of the queue that are looked at for an image that will be held out."""


def is_held_out(group: str, share: float, seed: int = 0) -> bool:
    """Tell whether labels of this image (or group) are kept for measuring: a hash, so it never changes its mind."""
    digest = hashlib.sha256(f"{seed}|{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def first_held_out(settings: Settings, store: Store, project_id: int) -> int | None:
    """Return the place in the queue, from 1, of the first image whose label will be held out; None: none is near.

    Args:
        settings: of the project.
    """
    for place, (task, _) in enumerate(store.ranked(project_id, limit=LOOKED_AT), start=1):
        if is_held_out(task.group_key, settings.audit_share, settings.seed):
            return place
    return None
