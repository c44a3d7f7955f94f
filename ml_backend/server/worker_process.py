"""Keeps a worker process running beside the server."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from types import TracebackType
from typing import IO, Final, cast

from sqlalchemy.exc import SQLAlchemyError

from ml_backend.errors import NextmaskError
from ml_backend.projects.signs_of_life import SETTLED_SECONDS, note_failure
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.system.logs import redacted
from ml_backend.system.processes import ended

logger = logging.getLogger(__name__)

STOP_SECONDS = 7.0
"""A worker that is told to end has so long; then it is killed."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds before a worker that ended is started again: doubled each time until one settles, up to the longest."""
_LAST_WORDS_SECONDS: Final = 1.0
_LONGEST_LINE: Final = 65536
_STANDARD_ERROR: Final = 2


class WorkerProcess:
    """`nextmask worker` as a child: started on entering, started again when it dies, ended on leaving."""

    def __init__(self, settings: Settings) -> None:
        self._environment = {**os.environ, **settings.environment()}
        self._url = settings.effective_database_url
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
        pause, failures = FIRST_PAUSE, 0
        while not self._stop.is_set():
            started = time.monotonic()
            how = self._run()
            if self._stop.is_set():
                return
            if time.monotonic() - started > SETTLED_SECONDS:
                pause, failures = FIRST_PAUSE, 0
            failures += 1
            logger.error("worker %s; the next one starts in %.1f s", how, pause)
            if failures > 1:
                self._tell(f"The worker {how}, {failures} times in a row, each time soon after its start.")
            self._stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _run(self) -> str:
        """Run one worker to its end, and return how it ended."""
        command = [sys.executable, "-m", "ml_backend", "worker", "--parent", str(os.getpid())]
        try:
            with self._starting:
                if self._stop.is_set():
                    return "was not started"
                process = subprocess.Popen(command, env=self._environment, stderr=subprocess.PIPE)  # noqa: S603 (our own interpreter)
                self._process = process
        except OSError as error:  # no memory for another process, say: there may be some soon
            return f"could not be started ({error})"
        finally:
            self._started.set()
        words = _Words(cast("IO[bytes]", process.stderr))
        code = process.wait()
        return f"{ended(code)} ({last})" if code > 0 and (last := words.last()) else ended(code)

    def _tell(self, sentence: str) -> None:
        """Keep in the state what `nextmask status`, the dashboard and doctor say of a worker that cannot start."""
        try:
            with closing(Store(self._url)) as store:
                note_failure(store, sentence)
        except (NextmaskError, SQLAlchemyError, OSError) as error:  # which may be why the worker cannot start
            logger.warning("the state does not have it: %s", error)


class _Words:
    """Passes on what a worker writes to standard error, and remembers the last line."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._last = stream, b""
        self._thread = threading.Thread(target=self._pass_on, name="worker-words", daemon=True)
        self._thread.start()

    def last(self) -> str:
        """Return the last line of a worker that ended; a training that it leaves behind may still write."""
        self._thread.join(_LAST_WORDS_SECONDS)
        return redacted(self._last.decode(errors="replace").strip().removeprefix("Error: "))

    def _pass_on(self) -> None:
        with self._stream as stream:
            while line := stream.readline(_LONGEST_LINE):
                self._last = line if line.strip() else self._last
                with suppress(OSError):  # nobody reads our own: no reason to end the worker
                    os.write(_STANDARD_ERROR, line)
