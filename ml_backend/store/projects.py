"""Reads and writes of projects: their state, wake-ups, and the leases of workers on them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from ml_backend.errors import LeaseLost
from ml_backend.store.tables import GONE, PROJECTS, Lease, Project
from ml_backend.store.transactions import Connections

_SKEW_SECONDS = 1.0
"""A time that is further ahead was written before the clock was set back."""


class Projects(Connections):
    """Projects, their wake-ups and their leases."""

    # -- projects and wake-ups ----------------------------------------------------------------------------------------
    def wake(self, project_id: int, *, train: bool = False, manage: bool = False, **fields: Any) -> None:
        """Ask for a look at a project; an unknown project is added.

        Args:
            project_id: Label Studio's.
            train: also ask for a training, even with few new labels.
            manage: work again on a project that was disconnected.
            fields: further columns to set, such as `extra_params`.
        """
        if not (train or manage or fields) and self._is_waiting(project_id):
            return  # thousands of webhooks at once must not wait for the write lock for nothing
        now = self._now()
        with self._write() as connection:
            requested = {"train_requested_at": now} if train else {}
            values = {"id": project_id, "wakes": 1, "dirty_since": now, **requested}
            changes: dict[str, Any] = {
                "wakes": PROJECTS.c.wakes + 1,
                "dirty_since": sa.func.coalesce(PROJECTS.c.dirty_since, now),
                **({**requested, "retry_at": None} if train else {}),
                **({"managed": True} if manage else {}),
                **fields,
            }
            statement = self._insert(PROJECTS).values(**values, **fields)
            connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changes))

    def _is_waiting(self, project_id: int) -> bool:
        """Whether a project was woken and no look has begun since: the next look sees everything up to now."""
        here = sa.and_(PROJECTS.c.id == project_id, PROJECTS.c.wakes > PROJECTS.c.wakes_handled)
        with self._read() as connection:
            waiting = sa.select(PROJECTS.c.id).where(here, PROJECTS.c.lease_owner.is_(None))
            return connection.execute(waiting).first() is not None

    def project(self, project_id: int) -> Project | None:
        """Return a project; None when it is unknown."""
        return next(iter(self._projects(PROJECTS.c.id == project_id)), None)

    def projects(self) -> list[Project]:
        """Return all managed projects, by id."""
        return self._projects(PROJECTS.c.managed)

    def gone_projects(self) -> list[Project]:
        """Return the projects that were deleted in Label Studio, by id."""
        return self._projects(sa.and_(sa.not_(PROJECTS.c.managed), PROJECTS.c.state == GONE))

    def _projects(self, condition: sa.ColumnElement[bool]) -> list[Project]:
        expires = sa.func.coalesce(PROJECTS.c.lease_expires, 0.0)
        held = sa.and_(PROJECTS.c.lease_owner.is_not(None), expires > self._now()).label("is_held")
        with self._read() as connection:
            rows = connection.execute(sa.select(PROJECTS, held).where(condition).order_by(PROJECTS.c.id))
            return [Project(**row._mapping) for row in rows]

    def update_project(self, project_id: int, **fields: Any) -> None:
        """Set columns of a project."""
        with self._write() as connection:
            connection.execute(sa.update(PROJECTS).where(PROJECTS.c.id == project_id).values(**fields))

    # -- leases -------------------------------------------------------------------------------------------------------
    def acquire(
        self,
        owner: str,
        *,
        lease_seconds: float,
        interval: float,
        only: int | None = None,
        busy: Collection[int] = (),
    ) -> Lease | None:
        """Take the lease of a project that was woken, or that had no look for `interval` seconds.

        A lease that ends later than any lease can was taken before the clock was set back, and counts as expired.

        Args:
            owner: name of the worker.
            lease_seconds: length of a lease.
            interval: seconds between looks at a project that was not woken.
            only: take this project, whether it is due or not.
            busy: projects that the caller works on: a clock that was set can make their leases look expired.

        Returns:
            None when no project is due and free.
        """
        with self._read() as connection:  # usually no project is due: no need to wait for the write lock
            if connection.execute(_due(self._now(), lease_seconds, interval, only, busy)).first() is None:
                return None
        with self._write() as connection:
            now = self._now()  # made after the wait for the lock, during which others may have taken leases
            due = _due(now, lease_seconds, interval, only, busy)
            # PostgreSQL has no lock for all: a project that another worker is about to take is left to it.
            row = connection.execute(due.with_for_update(skip_locked=only is None)).first()
            if row is None:
                return None
            taken = sa.update(PROJECTS).where(PROJECTS.c.id == row.id, _free(now, lease_seconds))
            count = connection.execute(taken.values(lease_owner=owner, lease_expires=now + lease_seconds)).rowcount
        return Lease(row.id, owner, row.wakes) if count else None

    def heartbeat(self, lease: Lease, *, lease_seconds: float) -> None:
        """Extend a lease by `lease_seconds` from now.

        Raises:
            LeaseLost: the lease expired and another worker took the project, or the project is gone.
        """
        held = sa.and_(PROJECTS.c.id == lease.project_id, PROJECTS.c.lease_owner == lease.owner)
        with self._write() as connection:
            extended = sa.update(PROJECTS).where(held).values(lease_expires=self._now() + lease_seconds)
            if not connection.execute(extended).rowcount:
                raise LeaseLost(f"The lease on project {lease.project_id} went to another worker.")

    def release(self, lease: Lease, *, handled: bool) -> None:
        """End a lease; with `handled`, the wake-ups from before the lease are done."""
        held = sa.and_(PROJECTS.c.id == lease.project_id, PROJECTS.c.lease_owner == lease.owner)
        values: dict[str, Any] = {"lease_owner": None, "lease_expires": None, "reconciled_at": self._now()}
        with self._write() as connection:
            if handled:
                woken_again = PROJECTS.c.wakes > lease.wakes
                values["wakes_handled"] = lease.wakes
                values["dirty_since"] = sa.case((woken_again, self._now()), else_=None)
            connection.execute(sa.update(PROJECTS).where(held).values(**values))


def _free(now: sa.ColumnElement[float], lease_seconds: float) -> sa.ColumnElement[bool]:
    expires = PROJECTS.c.lease_expires
    return sa.or_(expires.is_(None), expires <= now, expires > now + lease_seconds + _SKEW_SECONDS)


def _due(
    now: sa.ColumnElement[float], lease_seconds: float, interval: float, only: int | None, busy: Collection[int]
) -> sa.Select[tuple[int, int]]:
    """Select id and wakes of the due project that has waited longest."""
    looked_at = PROJECTS.c.reconciled_at
    due = sa.or_(
        PROJECTS.c.wakes > PROJECTS.c.wakes_handled,
        looked_at.is_(None),
        looked_at <= now - interval,
        looked_at > now + _SKEW_SECONDS,  # looked at before the clock was set back
    )
    wanted = PROJECTS.c.id == only if only is not None else sa.and_(PROJECTS.c.managed, due)
    mine = PROJECTS.c.id.not_in(busy)
    oldest = sa.func.coalesce(PROJECTS.c.dirty_since, looked_at, 0.0)
    columns = sa.select(PROJECTS.c.id, PROJECTS.c.wakes)
    return columns.where(_free(now, lease_seconds), wanted, mine).order_by(oldest).limit(1)
