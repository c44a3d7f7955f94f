"""Where the `nextmask serve` of this state listens: it says so in the store, and commands look there.

A port that was given to `serve --port` is known to no other command by its settings. Nothing is taken back when a
server ends: that would wait for the database, and a process that is gone does not count.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any, Final

from ml_backend.errors import StoreError, first_few
from ml_backend.projects.signs_of_life import workers
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.system.clock import boot_id
from ml_backend.system.processes import start_of

_KEY: Final = "server"


def announce(store: Store, settings: Settings) -> None:
    """Keep where this process, a server, listens.

    Args:
        settings: it was started with.
    """
    store.set_value(_KEY, json.dumps({"host": settings.host, "port": settings.port, "process": _process(os.getpid())}))


def with_running_server(settings: Settings, store: Store) -> Settings:
    """Return settings with host and port of the server that runs; the same where none runs on this machine.

    What a server left behind that has ended does not count: no such process is there.
    """
    kept = _kept(store)
    process = kept.get("process")
    if process is None or process != _process(int(process["pid"])):
        return settings
    return settings.model_copy(update={"host": str(kept["host"]), "port": int(kept["port"])})


def refuse_while_running(settings: Settings, store: Store) -> None:
    """Refuse what nobody may write to the state during.

    Args:
        settings: of the installation.

    Raises:
        StoreError: a worker of any machine, or a server of this one, runs.
    """
    stop = "Stop nextmask on all machines first: what it writes meanwhile would be lost."
    alive = [sign.worker for sign in workers(store) if sign.is_alive]
    if alive:
        raise StoreError(f"A worker runs, or ran a moment ago ({', '.join(first_few(alive))}).", stop)
    kept = _kept(store).get("process")
    if kept is not None and kept == _process(int(kept["pid"])):
        raise StoreError(f"nextmask serve runs (process {kept['pid']}), with MODEL_DIR = {settings.model_dir}.", stop)


def _kept(store: Store) -> dict[str, Any]:
    return dict(json.loads(store.value(_KEY) or "{}"))


def _process(pid: int) -> dict[str, Any] | None:
    """Name a process of this machine, or of this container; None where there is none of that number."""
    start = start_of(pid)
    return None if start is None else {"pid": pid, "start": start, "machine": f"{socket.gethostname()} {boot_id()}"}
