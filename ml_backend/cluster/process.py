"""The worker's side of a cluster: starts the driver, hands it its work, and hears what comes of it.

Imports no Ray. Whatever becomes of the driver, or of Ray inside it, is an error here and nothing else.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, TypeAlias, cast

from ml_backend.errors import ClusterError, NextmaskError, shown
from ml_backend.system import logs
from ml_backend.system.processes import NOTHING, end, ended, listen

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 600.0
"""Work of which nothing is heard for so long is given up: the cluster is full of other work, or hangs."""
_HEARTBEAT_SECONDS = 2.0
_EXIT_SECONDS = 3.0
_DRIVER = "ml_backend.cluster.driver"

Heard: TypeAlias = "queue.SimpleQueue[Any]"
_ENDED = object()


@dataclass(frozen=True)
class Work:
    """What a driver is told first.

    Attributes:
        address: of the cluster, as NEXTMASK_RAY_ADDRESS has it.
        device: as NEXTMASK_DEVICE has it.
        kind: "score" or "train".
        detail: what the driver's module of that kind wants to know.
        fetches: whether nodes fetch images, for which they need a token of Label Studio.
    """

    address: str
    device: str
    kind: str
    detail: Any
    fetches: bool = False


def messages(
    work: Work,
    parts: Iterable[Any],
    *,
    heartbeat: Callable[[], None],
    silence: float = SILENCE_SECONDS,
) -> Iterator[Any]:
    """Let a driver work, and yield what it tells.

    Ending the iteration ends the driver, and with it all that the cluster does for it. So does an exception that
    `heartbeat` raises, and that passes on.

    Args:
        parts: of the work, handed over one by one.
        heartbeat: called every 2 s.
        silence: seconds without a message after which the work is given up.

    Raises:
        ClusterError: Ray is not installed, the cluster cannot be used, or it was lost; the message is a sentence.
        NextmaskError: what nextmask on a node, or the driver, raised.
    """
    if importlib.util.find_spec("ray") is None:
        raise ClusterError(
            f"NEXTMASK_RAY_ADDRESS = {shown(work.address)}, but Ray is not installed here.",
            "Install it: pip install 'nextmask[ray]'.",
        )
    start = f"import sys; sys.path[:] = {sys.path!r}; from {_DRIVER} import main; main()"
    command = [sys.executable, "-c", start, str(os.getpid()), logs.child_options()]
    heard: Heard = queue.SimpleQueue()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # noqa: S603 (no shell, our own interpreter)
        logger.info("cluster driver %d started: %s", child.pid, work.kind)
        threads = [
            threading.Thread(target=_read, args=(child.stdout, heard), daemon=True),
            threading.Thread(target=_write, args=(child.stdin, work, parts, heard), daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield from _answers(heard, child, heartbeat, silence)
        finally:
            end(child, seconds=_EXIT_SECONDS)
            for thread in threads:
                thread.join(_EXIT_SECONDS)


def _answers(
    heard: Heard, child: subprocess.Popen[bytes], heartbeat: Callable[[], None], silence: float
) -> Iterator[Any]:
    last = time.monotonic()
    for message in listen(heard, heartbeat, every=_HEARTBEAT_SECONDS):
        if message is NOTHING:
            if time.monotonic() - last > silence:
                raise ClusterError(
                    f"Nothing came from the Ray cluster for {silence / 60:g} minutes.",
                    "Other work may hold its CPUs or GPUs: `ray status` says.",
                )
            continue
        last = time.monotonic()
        if message is _ENDED:
            raise ClusterError(
                f"The process that talks to the Ray cluster {ended(child.wait())}; its last words are in the log.",
                "Is the cluster still there? `ray status` says.",
            )
        if isinstance(message, Exception):
            raise message
        if message is None:
            return
        yield message


def _write(stream: IO[bytes] | None, work: Work, parts: Iterable[Any], heard: Heard) -> None:
    """Hand the work over: in a thread, since a driver that is still connecting reads nothing yet."""
    try:
        with suppress(BrokenPipeError), cast("IO[bytes]", stream) as pipe:  # it ended: see what it said
            for part in itertools.chain([work], parts, [None]):
                pickle.dump(part, pipe)
    except NextmaskError as error:  # such as a bucket that is away: it is known what to do about it
        heard.put(error)
    except Exception as error:
        logger.exception("the cluster's work cannot be handed over")
        heard.put(NextmaskError(f"The cluster's work cannot be handed over: {type(error).__name__}: {error}"))


def _read(stream: IO[bytes], heard: Heard) -> None:
    try:
        while True:
            heard.put(pickle.load(stream))  # noqa: S301 (written by our own child)
    except (EOFError, pickle.UnpicklingError, OSError):
        heard.put(_ENDED)
    except Exception as error:
        logger.exception("the cluster's answer cannot be read")
        heard.put(ClusterError(f"The cluster's answer cannot be read: {type(error).__name__}: {error}"))
