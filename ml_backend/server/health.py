"""/health and /ready: alive, and able to do the work.

Alive is answered from the event loop and touches nothing. Ready looks at what the work needs: a state database and a
folder that can be written, a worker that moves, models that can be read. Neither needs a password, since those who
ask (containers, load balancers) have none: answers name settings and projects' numbers, and no path.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa
from anyio import CapacityLimiter, move_on_after, to_thread
from fastapi import FastAPI, Response, status
from pydantic import BaseModel

from ml_backend import __version__
from ml_backend.errors import FilesUnavailable, NextmaskError, StoreUnavailable
from ml_backend.label_studio.predictions import model_number
from ml_backend.projects.folders import checkpoints_of
from ml_backend.projects.signs_of_life import worker_failure, worker_name, workers
from ml_backend.server.model import NextmaskModel
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.system.disk import free_bytes

ANSWER_SECONDS: Final = 3.0
"""A database or a disk that hangs is not ready; who asks does not wait for it."""
REMEMBERED_SECONDS: Final = 1.0
"""An answer stands for so long, however many ask."""
_THREADS: Final = 2

WorkerPid = Callable[[], "int | None"]
"""Returns the process id of the server's own worker; None while none runs."""


class Readiness(BaseModel):
    """Whether work can be done, and what is in its way.

    Attributes:
        status: READY or NOT READY.
        reasons: what is wrong and what to do, by part: store, disk, worker, models. Empty when ready.
    """

    status: str
    reasons: dict[str, str]


def add_health(app: FastAPI, settings: Settings, store: Store, *, worker_pid: WorkerPid | None = None) -> None:
    """Add the two endpoints.

    Args:
        worker_pid: None where workers run elsewhere: then they are no reason for the server not to be asked.
    """
    probe = _Probe(settings, store, worker_pid)
    limiter = CapacityLimiter(_THREADS)

    @app.get("/health", tags=["protocol"])
    async def health() -> dict[str, str]:
        """Tell that the server is up (no authentication)."""
        return {"status": "UP", "model_class": NextmaskModel.__name__, "version": __version__}

    @app.get("/ready", tags=["operations"], responses={503: {"model": Readiness}})
    async def ready(response: Response) -> Readiness:
        """Tell whether the work can be done: 200, or 503 with the reasons (no authentication)."""
        reasons = {"store": f"State database or disk did not answer within {ANSWER_SECONDS:.0f} s."}
        with move_on_after(ANSWER_SECONDS):
            reasons = await to_thread.run_sync(probe.reasons, limiter=limiter, abandon_on_cancel=True)
        if reasons:
            response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        return Readiness(status="NOT READY" if reasons else "READY", reasons=reasons)


@dataclass
class _Probe:
    settings: Settings
    store: Store
    worker_pid: WorkerPid | None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _last: tuple[float, dict[str, str]] = (-1e9, {})

    def reasons(self) -> dict[str, str]:
        """Look, or return what the look of a moment ago saw: everybody may ask, and each look writes."""
        with self._lock:
            if time.monotonic() - self._last[0] > REMEMBERED_SECONDS:
                problems = {"store": self._store(), "disk": self._disk(), "worker": self._worker(), "models": ""}
                if not problems["store"]:
                    problems["models"] = self._models()
                self._last = (time.monotonic(), {part: why for part, why in problems.items() if why})
            return self._last[1]

    def _store(self) -> str:
        try:
            self.store.set_value("ready_asked_at", str(time.time()))
        except StoreUnavailable:
            return "The state database cannot be reached, or has too much to do; the log says why."
        except (sa.exc.SQLAlchemyError, OSError) as error:
            reason = str(getattr(error, "orig", None) or type(error).__name__)
            return f"The state database cannot be written ({reason}): is the disk full, or is it read-only?"
        return ""

    def _disk(self) -> str:
        settings = self.settings
        try:
            with tempfile.TemporaryFile(dir=settings.local_folder) as file:
                file.write(b"nextmask")
                file.flush()
            free = free_bytes(settings.local_folder)
        except OSError as error:
            return f"MODEL_DIR cannot be written ({error.strerror}): is the disk full, or is it read-only?"
        if free < settings.minimum_free_bytes:
            return (
                f"{free:,} bytes are free in MODEL_DIR, fewer than NEXTMASK_MINIMUM_FREE_BYTES = "
                f"{settings.minimum_free_bytes:,}: make room, or lower the setting."
            )
        return ""

    def _worker(self) -> str:
        if self.worker_pid is None:
            return ""
        if self.worker_pid() is None:
            return "The worker process does not run; it is started again by itself. The log says why it ended."
        try:
            if worker_failure(self.store):
                return "The worker ends soon after each start; nextmask status says why."
            name = worker_name(self.worker_pid())
            own = next((sign for sign in workers(self.store) if sign.worker == name), None)
        except (sa.exc.SQLAlchemyError, StoreUnavailable):
            return ""  # which is a reason of its own
        if own is None:
            return "The worker is starting."
        return "" if own.is_alive else f"The worker gave no sign of life for {own.silence:.0f} s; the log says why."

    def _models(self) -> str:
        """Projects with a queue whose model cannot be read, and a device that is not there."""
        problems = [self._device()]
        for project in self.store.projects():
            number = model_number(project.published_version)
            if number:
                try:
                    checkpoints_of(self.settings, self.store, project.id).get(number)
                except FilesUnavailable:
                    continue  # a model in memory goes on, and other servers fare no better
                except (NextmaskError, OSError) as error:
                    problems.append(f"project {project.id}: {error}")
        return "; ".join(filter(None, problems))

    def _device(self) -> str:
        device = self.settings.device
        if device in {"auto", "cpu"}:
            return ""  # always there, and to look would import torch
        from ml_backend.learning.networks import resolve_device

        try:
            resolve_device(device)
        except NextmaskError as error:
            return str(error)
        return ""
