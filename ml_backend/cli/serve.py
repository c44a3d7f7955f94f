"""Commands that run nextmask: serve, worker."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from pydantic import SecretStr

from ml_backend.errors import ConfigurationError, NextmaskError
from ml_backend.settings import Settings, load_settings
from ml_backend.system.logs import configure, hide
from ml_backend.system.memory import share_heaps

if TYPE_CHECKING:
    from ml_backend.server.worker_process import WorkerProcess

logger = logging.getLogger(__name__)

commands = typer.Typer()
GRACE_SECONDS = 5
_INTERRUPTED, _NOT_STARTED = 130, 3
_METHODS = ("strategy", "strategy_options", "architecture", "encoder", "network_options")
_METHODS_SECONDS = 60.0
"""What takes longer, on a slow machine, is met by the worker instead."""


@commands.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (NEXTMASK_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (NEXTMASK_PORT).")] = None,
    worker: Annotated[bool, typer.Option(help="Run a worker beside the server.")] = True,
) -> None:
    """Run the server that Label Studio talks to, and a worker beside it."""
    from ml_backend.server.worker_process import WorkerProcess

    settings = load_settings(host=host, port=port)
    configure_logging(settings)
    share_heaps()
    _check(settings)
    has_started = _run_server(settings, WorkerProcess(settings) if worker else None)
    _end(0 if has_started else _NOT_STARTED)


def _check(settings: Settings) -> None:
    """Refuse settings that a server cannot work with, before anything is started.

    Raises:
        ConfigurationError: what is wrong, and what to do.
    """
    from ml_backend.projects.services import label_studio_of

    settings.check_serving()
    label_studio_of(settings)
    _check_methods(settings)
    _check_port(settings)
    _look_at_sam(settings)


def _look_at_sam(settings: Settings) -> None:
    """Say in the log what keeps SAM 2 from answering clicks; the project's own network answers them meanwhile."""
    from ml_backend.learning.refinement.sam_files import sam_files

    if settings.sam:
        try:
            sam_files(settings.sam)
        except ConfigurationError as error:
            logger.warning("%s Until then the project's own network answers clicks.", error)


def _check_methods(settings: Settings) -> None:
    """Refuse a strategy or a network that cannot be made; the defaults can.

    A process of its own looks, which takes PyTorch along: a server that predicts nothing yet does without.
    """
    from ml_backend.doctor.torch_setup import probe

    fields = Settings.model_fields
    if all(getattr(settings, name) == fields[name].get_default(call_default_factory=True) for name in _METHODS):
        return
    answers = probe(settings, _METHODS_SECONDS)
    for part in ("strategy", "network"):
        if error := answers.get(part, {}).get("error"):
            raise ConfigurationError(error)


def _run_server(settings: Settings, child: WorkerProcess | None) -> bool:
    """Serve until a signal comes; return whether the server had started."""
    import uvicorn

    from ml_backend.projects.running_server import announce
    from ml_backend.server.app import create_app

    application = create_app(settings, worker=child)
    store = application.state.services.store

    class Server(uvicorn.Server):
        """Says where it listens; ends its worker and long requests while it waits for the others, not afterwards."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                with suppress(NextmaskError):  # a full disk, say: commands take the port of their settings then
                    announce(store, settings)
                threading.Thread(target=_look_at_label_studio, args=(settings,), daemon=True).start()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            application.state.services.stopping.set()
            if child is not None:  # in a thread: a signal may come in the middle of anything
                threading.Thread(target=child.end, daemon=True).start()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        ws="none",  # nothing here speaks WebSocket
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = Server(config)
    try:
        server.run()
    except KeyboardInterrupt:
        _end(_INTERRUPTED)
    return server.started


def _look_at_label_studio(settings: Settings) -> None:
    """Say in the log what keeps Label Studio and this server apart: whoever starts it looks there now."""
    from ml_backend.doctor.diagnosis import look_at_label_studio

    found = look_at_label_studio(settings)
    if found is not None:
        logger.warning("%s", found)


@commands.command()
def worker(parent: Annotated[int | None, typer.Option(hidden=True)] = None) -> None:
    """Reconcile projects: read labels, train, rank, publish the queue."""
    from ml_backend.cli.installation import installation
    from ml_backend.system.processes import die_with
    from ml_backend.worker.worker import Worker

    settings = load_settings()
    configure_logging(settings)
    share_heaps()
    if parent is not None:
        # Ctrl-C reaches the whole process group; the server decides when its worker ends.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        die_with(parent)
    work = Worker(installation())
    signal.signal(signal.SIGTERM, lambda *_: work.stop())
    if parent is None:
        signal.signal(signal.SIGINT, lambda *_: work.stop())
    work.run()
    _end(0)


def _end(code: int) -> NoReturn:
    """End the process at once: what it had to do is done, and to take torch apart takes seconds on a busy machine.

    It would also wait for a thread in which a prediction hangs, whose request was answered.
    """
    logging.shutdown()
    os._exit(code)


def _check_port(settings: Settings) -> None:
    """Raise before a worker is started where the port is in use or not ours."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise ConfigurationError(
                f"nextmask cannot listen on NEXTMASK_HOST = {settings.host!r}, NEXTMASK_PORT = {settings.port}"
                f" ({error.strerror}): stop the program that uses the port, or choose another one with --port."
            ) from None


def configure_logging(settings: Settings) -> None:
    """Log to standard error, one line per event."""
    hide(*(value.get_secret_value() for _, value in settings if isinstance(value, SecretStr)))
    configure(settings.log_level, settings.log_format)
