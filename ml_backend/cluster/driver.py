"""The driver: connects to the cluster, lets it work, and tells the worker what comes of it.

Reads pickled objects from standard input (`process.Work`, the parts of the work, None) and writes others to standard
output: messages, None at the end, or the exception that ended it.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any

from ml_backend.cluster.process import Work
from ml_backend.errors import ClusterError, NextmaskError
from ml_backend.system import logs
from ml_backend.system.processes import die_with

logger = logging.getLogger(__name__)

Send = Callable[[Any], None]


def main() -> None:
    """Do the work on standard input; arguments: the parent's process id, and how it logs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    die_with(int(sys.argv[1]))
    logs.configure_child(sys.argv[2])
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what Ray prints must not mix with the messages

    def send(message: Any) -> None:
        pickle.dump(message, channel)
        channel.flush()

    try:
        serve(sys.stdin.buffer, send)
        send(None)
    except NextmaskError as error:
        send(error)
    except Exception as error:
        logger.exception("the cluster's work failed")
        first = (str(error).strip().splitlines() or [""])[0][:300]
        send(ClusterError(f"The Ray cluster failed: {type(error).__name__}: {first}."))
    channel.flush()
    os._exit(0)  # Ray says good-bye for seconds, and nobody listens any more


def serve(stream: IO[bytes], send: Send) -> None:
    """Do what a stream asks for."""
    work: Work = pickle.load(stream)  # noqa: S301 (written by our own parent)
    from ml_backend.cluster import connection, scoring, training

    cluster = connection.connect(work.address, work.device, fetches=work.fetches)
    logger.info("cluster nodes=%s processes=%s gpus=%s", cluster.nodes, cluster.processes, cluster.gpus)
    run = scoring.run if work.kind == "score" else training.run
    run(cluster, work.detail, _parts(stream), send)


def _parts(stream: IO[bytes]) -> Iterator[Any]:
    while (part := pickle.load(stream)) is not None:  # noqa: S301 (written by our own parent)
        yield part
