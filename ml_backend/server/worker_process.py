"""Keeps a worker process running beside the server."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from types import TracebackType

from ml_backend.settings import Settings

logger = logging.getLogger(__name__)

STOP_SECONDS = 7.0
"""A worker that is told to end has so long; then it is killed."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a worker that ended is started again: doubled each time, up to the longest."""
GOOD_SECONDS = 20.0
"""A worker that ran so long did not fail at its start: the next worker need not wait for long."""


class WorkerProcess:
    """`nextmask worker` as a child: started on entering, started again when it dies, ended on leaving."""

    def __init__(self, settings: Settings) -> None:
        self._environment = {**os.environ, **settings.environment()}
        self._stop = threading.Event()
        self._starting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._supervise, name="worker-supervisor", daemon=True)
        self._started = threading.Event()
        self._deadline: float | None = None

    def __enter__(self) -> WorkerProcess:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        process = self._process
        if process and process.poll() is None:
            try:
                process.wait(max(0.0, (self._deadline or 0.0) - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join()

    def end(self) -> None:
        """Tell the worker to end, and do not wait: it does so while the server answers its last requests."""
        with self._starting:  # afterwards no worker is started, and the last worker is known
            if self._stop.is_set():
                return
            self._stop.set()
            self._deadline = time.monotonic() + STOP_SECONDS
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    @property
    def pid(self) -> int | None:
        """Process id of the worker that runs now; None between a worker that died and the next."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def _supervise(self) -> None:
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            started = time.monotonic()
            ended = self._run()
            if time.monotonic() - started > GOOD_SECONDS:
                pause = FIRST_PAUSE
            if self._stop.is_set():
                return
            logger.error("worker %s; the next one starts in %.1f s", ended, pause)
            self._stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _run(self) -> str:
        """Run one worker to its end, and return how it ended."""
        command = [sys.executable, "-m", "ml_backend", "worker", "--parent", str(os.getpid())]
        try:
            with self._starting:
                if self._stop.is_set():
                    return "was not started"
                process = subprocess.Popen(command, env=self._environment)  # noqa: S603 (our own interpreter)
                self._process = process
        except OSError as error:  # no memory for another process, say: there may be some soon
            return f"could not be started ({error})"
        finally:
            self._started.set()
        return f"ended with code {process.wait()}"
