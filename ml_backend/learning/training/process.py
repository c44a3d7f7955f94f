"""Training in a process of its own, so that running out of memory, or crashing, ends the training and nothing else.

The child runs the interpreter anew (no fork of a process with threads and an open database), reads the job from its
standard input, writes a JSON message per line, and ends itself when its parent is gone, however that ended.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TypeAlias, cast

from ml_backend.errors import NextmaskError, TrainingError
from ml_backend.learning.training.job import Job, Progress
from ml_backend.system import logs
from ml_backend.system.disk import disk_full, is_full
from ml_backend.system.processes import NOTHING, die_with, end, ended, listen

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 1800.0
"""A training that tells no progress for so long hangs: a single step takes seconds, on slow machines a minute."""
_HEARTBEAT_SECONDS = 2.0
_PROGRESS_SECONDS = 0.25
_EXIT_SECONDS = 3.0
_NICENESS = 10  # serving goes first
_MEMORY_REMEDY = "lower NEXTMASK_BATCH_SIZE or NEXTMASK_INPUT_SIZE, or give the machine more memory"

Send = Callable[[dict[str, Any]], None]
Lines: TypeAlias = "queue.SimpleQueue[bytes]"


# -- the parent's side -----------------------------------------------------------------------------------------------


def run(
    job: Job,
    *,
    progress: Callable[[Progress], None],
    heartbeat: Callable[[], None],
    silence: float = SILENCE_SECONDS,
) -> int:
    """Train in a child process and wait for it.

    Args:
        progress: called a few times per second at most.
        heartbeat: called every 2 s while the child runs.
        silence: seconds without any progress after which the child is ended: it hangs.

    An exception that `progress` or `heartbeat` raises (LeaseLost, KeyboardInterrupt) ends the child, and passes on.

    Returns:
        number of the new version, or of the version of the job's committee.

    Raises:
        TrainingError: the child failed, was killed, or hung; the caller is not affected.
        DiskFull: the disk has no room for the new version.
    """
    heard = time.monotonic()
    with _child(job) as (child, lines):
        for message in _messages(lines, heartbeat):
            if message:
                heard = time.monotonic()
            elif time.monotonic() - heard > silence:
                raise TrainingError(
                    f"Training was ended: nothing was heard of it for {silence / 60:g} minutes. Where a single step "
                    "takes so long, lower NEXTMASK_INPUT_SIZE or NEXTMASK_BATCH_SIZE."
                )
            if "progress" in message:
                progress(Progress(**message["progress"]))
            elif message:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(_EXIT_SECONDS)
                if message.get("disk_full"):
                    raise disk_full(job.local_folder)
                return _result(message)
        raise TrainingError(f"The training process {_cause(child.wait())}. The model that serves is not affected.")


@contextmanager
def _child(job: Job) -> Iterator[tuple[subprocess.Popen[bytes], Lines]]:
    """Start the child and hand it the job; whatever happens, it is gone at the end."""
    start = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
    command = [sys.executable, "-c", start, str(os.getpid()), logs.child_options()]
    lines: Lines = queue.SimpleQueue()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # noqa: S603 (no shell, our own interpreter)
        logger.info("training process %d started", child.pid)
        reader = threading.Thread(target=_read_lines, args=(child.stdout, lines), daemon=True)
        reader.start()
        try:
            with (
                suppress(BrokenPipeError),
                cast("IO[bytes]", child.stdin) as stream,
            ):  # ended already: see its exit code
                stream.write(job.to_json().encode())
            yield child, lines
        finally:
            end(child, seconds=_EXIT_SECONDS)  # nothing is lost: a version is written whole or not at all
            reader.join(_EXIT_SECONDS)


def _messages(lines: Lines, heartbeat: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """Yield the child's messages until it closes its output, and an empty message whenever none came for a while."""
    for line in listen(lines, heartbeat, every=_HEARTBEAT_SECONDS):
        if line is NOTHING:
            yield {}
        elif line.endswith(b"\n"):
            yield json.loads(line)
        else:  # the end; half a line where it was killed while it wrote
            return


def _read_lines(stream: IO[bytes], lines: Lines) -> None:
    for line in stream:
        lines.put(line)
    lines.put(b"")


def _result(message: dict[str, Any]) -> int:
    """Return the version's number, or raise the error that the child reports."""
    if "version" in message:
        return int(message["version"])
    raise TrainingError(message["error"], message.get("skipped"))


def _cause(code: int) -> str:
    if code >= 0:
        return f"{ended(code)} and no result; the log has its last words"
    hint = f", most likely by the system for want of memory: {_MEMORY_REMEDY}" if -code == signal.SIGKILL else ""
    return f"{ended(code)}{hint}"


# -- the child's side ------------------------------------------------------------------------------------------------


def main() -> None:
    """Train the job on standard input; arguments: the parent's process id, and how it logs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    die_with(int(sys.argv[1]))
    logs.configure_child(sys.argv[2])
    os.nice(_NICENESS)
    # OpenMP's threads spin while they wait: on a machine that also serves, a step then takes several times as long
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not mix with the messages

    def send(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")

    sys.exit(serve(sys.stdin.buffer.read().decode(), send))


def serve(text: str, send: Send) -> int:
    """Train the job given as JSON, send how it goes and how it ended; return the exit code."""
    try:
        from ml_backend.learning.training import train

        version = train(Job.from_json(text), _sender(send))
    except NextmaskError as error:
        skipped = error.skipped if isinstance(error, TrainingError) else {}
        send({"error": str(error), "disk_full": is_full(error), "skipped": skipped})
        return 1
    except Exception as error:
        if is_full(error):
            send({"error": str(error), "disk_full": True})
            return 1
        logger.exception("training failed")  # on standard error, which is the parent's; clients see the message only
        send({"error": explained(error)})
        return 1
    send({"version": version.number})
    return 0


def _sender(send: Send) -> Callable[[Progress], None]:
    """Send progress a few times per second at most, and always the end of a stage."""
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_SECONDS or progress.done == progress.total:
            last = now
            send({"progress": vars(progress)})

    return report


def explained(error: Exception) -> str:
    """Say in words why a training ended that was not expected to."""
    from ml_backend.learning.networks import is_out_of_memory  # torch takes seconds to import

    first = (str(error).splitlines() or [""])[0]
    if is_out_of_memory(error):
        return f"Training ran out of memory ({first}): {_MEMORY_REMEDY}."
    return f"Training failed: {type(error).__name__}: {first}. The log has the details."
