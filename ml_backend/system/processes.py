"""Child processes: what they import, what is heard of them, and that they end, at the latest when their parent does."""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def guard_imports() -> None:
    """Let Python in child processes import what it imports here, and nothing from the working directory.

    `python -m`, `python -c` and multiprocessing look there first: a folder `strategies` or a file `json.py` that
    somebody has there would be run. Where nextmask itself lies there (`python -m ml_backend` in a clone), children are
    told so.
    """
    home = str(Path(__file__).parents[2])
    if not sys.flags.safe_path and sys.path[0] == home and home not in sys.path[1:]:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), home]))
    os.environ["PYTHONSAFEPATH"] = "1"


def ended(code: int) -> str:
    """Say how a process ended.

    >>> ended(1), ended(-9), ended(-99)
    ('ended with exit code 1', 'was ended by SIGKILL', 'was ended by signal 99')
    """
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name if -code in set(signal.Signals) else f'signal {-code}'}"


def die_with(parent: int) -> None:
    """End this process when its parent ends, even by a kill.

    Linux does so at once; elsewhere a thread checks every second.

    Args:
        parent: process id of the parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


NOTHING: Final = object()
"""Told by `listen` where nothing came for a while."""


def listen(heard: queue.SimpleQueue[Any], heartbeat: Callable[[], None], *, every: float) -> Iterator[Any]:
    """Yield what a thread hears of a child, without an end, and `NOTHING` whenever nothing came for a while.

    Args:
        heartbeat: called before anything is awaited, and so often while the child works; what it raises passes on.
        every: seconds between two calls.
    """
    due = time.monotonic()
    while True:
        if time.monotonic() >= due:
            heartbeat()
            due = time.monotonic() + every
        try:
            item = heard.get(timeout=max(0.0, due - time.monotonic()))
        except queue.Empty:
            item = NOTHING
        yield item


def end(child: subprocess.Popen[bytes], *, seconds: float) -> None:
    """End a child if it still runs: ask it to, and kill it where it has not ended after so many seconds."""
    child.terminate()
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def start_of(pid: int) -> str | None:
    """Return a text that tells a process from an earlier one of the same number; None where there is none.

    It is the moment of its start where the system keeps one (Linux), else empty.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # it is there, and another user's
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return fields[19]
