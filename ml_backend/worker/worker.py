"""The worker: takes leases on projects and reconciles them.

A worker that dies leaves nothing behind but a lease that runs out; the next one takes the project over.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError

from ml_backend.errors import (
    ConfigurationError,
    DiskFull,
    LabelStudioNotFound,
    LeaseLost,
    NextmaskError,
    StoreUnavailable,
)
from ml_backend.projects.services import Services
from ml_backend.projects.signs_of_life import (
    SETTLED_SECONDS,
    forget_failure,
    forget_killed_workers,
    give_sign,
    take_back_sign,
    worker_name,
)
from ml_backend.settings import ALL_DEVICES
from ml_backend.store import GONE, Lease
from ml_backend.system.disk import disk_full, is_full
from ml_backend.system.heartbeat import extended
from ml_backend.system.logs import begin, belonging_to
from ml_backend.system.memory import release_freed_memory
from ml_backend.worker.reconcile import reconcile

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
SHOW_SECONDS = 5.0
STOP_SECONDS = 5.0
"""A stop waits so long for the steps at hand: a training ends within 3 s, a request to a host that hangs does not."""
_EVENTS_LOOKED_AT = 50
FULL_SECONDS = 5.0
"""Pause while the state cannot be written."""
AWAY_SECONDS = 60.0
"""A state database that is restarted is waited for so long, in the middle of a training, too."""
COMPLAIN_SECONDS = 60.0
THREADS = 2
"""Projects looked after at once, so that one project's long training never starves the queue of another; with several
devices that train, one more than those."""


class Worker:
    """Reconciles projects until told to stop."""

    def __init__(self, services: Services) -> None:
        self._services, self._settings = services, services.settings
        self._stop = threading.Event()
        self._leases: set[Lease] = set()
        self._complained = -math.inf
        services.store.wait_for_database(AWAY_SECONDS)

    def stop(self) -> None:
        """End after the step at hand; a training is ended at once and started again by the next worker."""
        self._services.store.wait_for_database(0.0)
        self._stop.set()

    def run(self) -> bool:
        """Work until `stop` is called.

        Returns:
            Whether all work ended. Where a request hangs, its thread is left behind, and its lease is given back.
        """
        number = self.threads
        threads = [threading.Thread(target=self._loop, name=f"project-{n}", daemon=True) for n in range(number)]
        showing = threading.Thread(target=self._show, name="sign-of-life", daemon=True)
        for thread in (*threads, showing):
            thread.start()
        logger.info("worker started threads=%s interval=%ss", number, self._settings.reconcile_seconds)
        self._stop.wait()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for lease in list(self._leases):
            logger.warning("project=%s its work does not end; the next worker takes it over", lease.project_id)
            with suppress(StoreUnavailable):  # its lease runs out
                self._services.store.release(lease, handled=False)
        showing.join(max(0.0, deadline - time.monotonic()))
        with suppress(NextmaskError, SQLAlchemyError):  # its silence shows that it is gone
            take_back_sign(self._services.store)
        return not any(thread.is_alive() for thread in threads)

    @property
    def threads(self) -> int:
        """Return how many projects to look after at once: one more than there are devices that train, two at least."""
        if self._settings.device != ALL_DEVICES:
            return THREADS
        try:
            return max(THREADS, 1 + len(self._services.turns.devices()))
        except ConfigurationError:  # each training says so; what needs no network goes on
            return THREADS

    def _show(self) -> None:
        """Give signs of life."""
        started, settled, tidied = time.monotonic(), False, False
        while not self._stop.is_set():
            try:
                give_sign(self._services.store)
                if not tidied:
                    forget_killed_workers(self._services.store)
                    tidied = True
                if not settled and time.monotonic() - started > SETTLED_SECONDS:
                    forget_failure(self._services.store)
                    settled = True
            except (DiskFull, StoreUnavailable) as error:
                self._complain(error)
            except Exception:  # a locked database, say: the next one may succeed
                logger.exception("the worker could not give a sign of life; it goes on")
            self._stop.wait(SHOW_SECONDS)

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                worked = self.run_once()
            except (DiskFull, StoreUnavailable) as error:
                self._complain(error)
                worked = False
                self._stop.wait(FULL_SECONDS)
            except Exception:  # the loop must outlive anything: a locked database, say
                logger.exception("the worker could not look for work; it goes on")
                worked = False
            if not worked:
                self._stop.wait(POLL_SECONDS)

    def run_once(self, only: int | None = None) -> bool:
        """Reconcile one project that is due; return whether there was one.

        Args:
            only: take this project, due or not.

        Raises:
            NextmaskError: only with `only`: why the project could not be reconciled.
        """
        settings = self._settings
        lease = self._services.store.acquire(
            _owner(),
            lease_seconds=settings.lease_seconds,
            interval=settings.reconcile_seconds,
            only=only,
            busy=[lease.project_id for lease in list(self._leases)],
        )
        if lease is None:
            return False
        started = time.monotonic()
        self._leases.add(lease)
        try:
            with belonging_to(project=lease.project_id):
                error = self._work(lease, trial=only is None)
        finally:
            self._leases.discard(lease)
            release_freed_memory()
        seconds = time.monotonic() - started
        logger.debug("project=%s reconciled seconds=%.2f", lease.project_id, seconds)
        if error is not None and only is not None:
            raise error
        return True

    def _work(self, lease: Lease, *, trial: bool) -> NextmaskError | None:
        """Reconcile under a lease, note what went wrong, and give the lease back."""
        handled = False
        problem: NextmaskError | None = None
        try:
            failed_before = self._is_failed(lease.project_id)
            with self._heartbeat(lease) as check:
                reconcile(self._services, lease.project_id, check, trial=trial)
            handled = True
            if failed_before and not self._is_failed(lease.project_id):
                self._services.store.add_event(lease.project_id, "recovered", "Work on the project has resumed.")
        except (LeaseLost, StoreUnavailable, _Stopped) as error:  # the project stays due
            logger.info("project=%s left: %s", lease.project_id, error)
            problem = error
        except NextmaskError as error:
            handled, problem = True, error
            self._note(lease, error)
        except Exception as error:
            handled = True
            if is_full(error):
                problem = disk_full(self._settings.local_folder)
                self._note(lease, problem)
                return problem
            logger.exception("project=%s reconcile failed", lease.project_id)
            problem = NextmaskError(f"Unexpected {type(error).__name__}; the log has the details.")
            self._note(lease, problem)
        finally:
            self._services.store.release(lease, handled=handled)
        return problem

    def _complain(self, error: NextmaskError) -> None:
        """Log once a minute what cannot be put into the state, which `nextmask status` finds by itself."""
        now = time.monotonic()
        if now - self._complained >= COMPLAIN_SECONDS:
            self._complained = now
            logger.error("%s", error)

    def _note(self, lease: Lease, error: NextmaskError) -> None:
        logger.warning("project=%s reconcile failed: %s", lease.project_id, error)
        store = self._services.store
        if not self._holds(lease):
            return
        store.update_project(lease.project_id, state="failed", stage="", error=str(error), error_at=time.time())
        if not self._is_told(lease.project_id, str(error)):
            store.add_event(lease.project_id, "failed", str(error), level="error")
        if isinstance(error, LabelStudioNotFound) and self._services.client.is_gone(lease.project_id):
            store.update_project(lease.project_id, managed=False, state=GONE)
            text = "The project is gone from Label Studio; its model versions stay on disk."
            store.add_event(lease.project_id, "gone", text, level="warning")
            logger.info("project=%s is gone from Label Studio; its versions stay on disk", lease.project_id)

    def _is_failed(self, project_id: int) -> bool:
        project = self._services.store.project(project_id)
        return project is not None and bool(project.error)

    def _is_told(self, project_id: int, error: str) -> bool:
        """Whether an event has said so since the project last worked: it is looked at every minute.

        Numbers do not count: the next look may name another port or request.
        """
        recent = self._services.store.events(project_id, limit=_EVENTS_LOOKED_AT)
        since = itertools.takewhile(lambda event: event.kind != "recovered", recent)
        told = (event.text for event in since if event.kind in {"failed", "training_failed"})
        return _without_numbers(error) in map(_without_numbers, told)

    def _holds(self, lease: Lease) -> bool:
        """Whether the project is still ours to write to; a lease that ran out and that nobody took is extended."""
        store = self._services.store
        try:
            project = store.project(lease.project_id)
        except StoreUnavailable:  # this very statement was cut off by a restart, which must not end a training
            project = store.project(lease.project_id)
        if project is None or not project.managed or project.lease_owner != lease.owner:
            return False
        if not project.is_held:
            try:
                store.heartbeat(lease, lease_seconds=self._settings.lease_seconds)
            except LeaseLost:
                return False
        return True

    @contextmanager
    def _heartbeat(self, lease: Lease) -> Iterator[Callable[[], None]]:
        """Extend the lease from a thread; yields the check that tells the work to end."""
        seconds = self._settings.lease_seconds

        def extend() -> None:
            begin(project=lease.project_id)
            self._services.store.heartbeat(lease, lease_seconds=seconds)

        def check() -> None:
            # Asked anew each time: a project that was disconnected is to be left before the next write, and a process
            # that was stopped for longer than its lease wakes up in the middle of one.
            if lost.is_set() or not self._holds(lease):
                raise LeaseLost(f"Project {lease.project_id} was disconnected, or another worker took it.")
            if self._stop.is_set():
                raise _Stopped("the worker is stopping")

        name = f"heartbeat-{lease.project_id}"
        with extended(extend, lease_seconds=seconds, name=name, away=self._complain) as lost:
            yield check


class _Stopped(NextmaskError):
    """The worker was told to stop; the project stays due."""


def _without_numbers(text: str) -> str:
    return re.sub(r"\b(0x[0-9a-f]+|\d+)", "#", text)


def _owner() -> str:
    return f"{worker_name()}:{uuid.uuid4().hex[:8]}"
