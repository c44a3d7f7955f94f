"""What the terminal shows: progress of long work, tables, and errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from rich.console import Console

from ml_backend.cli.installation import diagnosed
from ml_backend.errors import NextmaskError
from ml_backend.projects.services import Services
from ml_backend.store import Store
from ml_backend.system.progress import step

console = Console()
errors = Console(stderr=True)
_REFRESH_SECONDS = 0.25
_T = TypeVar("_T")


def watch(store: Store, project_id: int, done: Callable[[], bool]) -> None:
    """Show what happens to a project, whichever process does it, until `done` says so."""
    with step(errors, f"project {project_id}") as shown:
        while not done():
            project = store.project(project_id)
            if project is not None and project.stage:
                shown.update(project.stage_done, project.stage_total, project.stage, ends=project.stage_ends)
            time.sleep(_REFRESH_SECONDS)


def in_background(work: Callable[[], _T]) -> tuple[threading.Thread, list[_T | BaseException]]:
    """Run something in a thread; the list gets its result, or what it raised."""
    outcome: list[_T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 (handed to the caller, whatever it is)
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def reconcile_now(services: Services, project_id: int) -> None:
    """Reconcile a project with a progress bar: here if nobody works on it, else wait for the worker that does.

    Raises:
        NextmaskError: what went wrong; where Label Studio is the reason, what doctor finds.
    """
    from ml_backend.worker.worker import Worker

    worker = Worker(services)
    target = services.store.project(project_id)
    wakes = target.wakes if target else 0

    def work() -> None:
        while not worker.run_once(only=project_id):
            project = services.store.project(project_id)
            if project is None or (project.wakes_handled >= wakes and project.lease_owner is None):
                return
            time.sleep(_REFRESH_SECONDS)

    thread, outcome = in_background(work)
    try:
        watch(services.store, project_id, lambda: not thread.is_alive())
    except KeyboardInterrupt:
        worker.stop()
        thread.join()
        raise
    if outcome and isinstance(outcome[0], BaseException):
        with diagnosed(services, project_id):
            raise outcome[0]
    project = services.store.project(project_id)
    if project is not None and project.error:
        raise NextmaskError(project.error)
