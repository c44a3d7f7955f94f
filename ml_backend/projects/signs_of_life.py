"""Signs of life of the workers, whichever process and machine they are in, and why one cannot start: in the store.

A worker that ends takes its sign back. One that is killed cannot: its sign stays for a day, so that it is missed, or
until another worker starts on its machine.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Final

from ml_backend.store import Store

SETTLED_SECONDS: Final = 20.0
"""A worker that ran so long did not fail at its start."""
SILENT_SECONDS: Final = 30.0
"""Without a sign of life for so long, a worker counts as stuck or dead. Workers give a sign every few seconds."""
WORKERS_SHOWN: Final = 100
"""Pages and metrics have so many, those heard of last."""
_FORGOTTEN_SECONDS: Final = 86_400.0
_PREFIX: Final = "worker_seen_at "
_FAILURE_KEY: Final = "worker_failure"


@dataclass(frozen=True)
class WorkerSign:
    """The last sign of life of a worker.

    Attributes:
        worker: its machine and process, "host:4711".
        seen: when it was given, in seconds since the epoch by the store's clock.
        silence: seconds since then; after a clock was set, as many as it was set by.
    """

    worker: str
    seen: float
    silence: float

    @property
    def is_alive(self) -> bool:
        """Whether the sign is of a moment ago."""
        return self.silence <= SILENT_SECONDS


def worker_name(pid: int | None = None) -> str:
    """Return the name of a worker of this machine; None: of this process."""
    return f"{socket.gethostname()}:{os.getpid() if pid is None else pid}"


def give_sign(store: Store) -> None:
    """Give a sign of life of this process, a worker."""
    store.set_value(_PREFIX + worker_name(), str(store.time()))


def take_back_sign(store: Store) -> None:
    """Let nobody miss this process, a worker that ends."""
    store.delete_values([_PREFIX + worker_name()])


def forget_killed_workers(store: Store) -> None:
    """Forget workers that ended without a word: those of this machine, and all that are silent for a day."""
    here = f"{socket.gethostname()}:"
    gone = [
        _PREFIX + sign.worker
        for sign in workers(store)
        if sign.silence > (SILENT_SECONDS if sign.worker.startswith(here) else _FORGOTTEN_SECONDS)
    ]
    store.delete_values(gone)


def workers(store: Store) -> list[WorkerSign]:
    """Return the last signs of life of all workers, the newest first."""
    kept, now = store.values(_PREFIX), store.time()
    signs = [WorkerSign(key.removeprefix(_PREFIX), float(seen), abs(now - float(seen))) for key, seen in kept.items()]
    return sorted(signs, key=lambda sign: (sign.silence, sign.worker))


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
