"""Projects: what is known of each, who woke them, and who works on them."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from ml_backend.errors import LeaseLost
from ml_backend.store.tables import GONE, PROJECTS, Lease, Project
from ml_backend.store.transactions import Connections

_SKEW_SECONDS = 1.0
"""How far the clocks of workers on several machines may differ."""


class Projects(Connections):
    """Reads and writes of projects and their leases."""

    # -- projects and wake-ups ----------------------------------------------------------------------------------------
    def wake(self, project_id: int, *, train: bool = False, manage: bool = False, **fields: Any) -> None:
        """Note that a project wants to be looked at; unknown projects become known.

        Args:
            train: also train, even when too little is new.
            manage: take a project up again that was disconnected.
            fields: columns to set besides, such as `extra_params`.
        """
        now = time.time()
        if not (train or manage or fields) and self._is_waiting(project_id):
            return  # thousands of webhooks at once must not queue for the write lock to say the same
        with self._write() as connection:
            values = {"id": project_id, "wakes": 1, "dirty_since": now, "train_requested_at": now if train else None}
            changes: dict[str, Any] = {
                "wakes": PROJECTS.c.wakes + 1,
                "dirty_since": sa.func.coalesce(PROJECTS.c.dirty_since, now),
                **({"train_requested_at": now, "retry_at": None} if train else {}),
                **({"managed": True} if manage else {}),
                **fields,
            }
            statement = self._insert(PROJECTS).values(**values, **fields)
            connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changes))

    def _is_waiting(self, project_id: int) -> bool:
        """Whether a project was woken and no look has begun since: one that begins from now on sees what is there."""
        here = sa.and_(PROJECTS.c.id == project_id, PROJECTS.c.wakes > PROJECTS.c.wakes_handled)
        with self._read() as connection:
            waiting = sa.select(PROJECTS.c.id).where(here, PROJECTS.c.lease_owner.is_(None))
            return connection.execute(waiting).first() is not None

    def project(self, project_id: int) -> Project | None:
        """Return a project, or None when it is unknown."""
        return next(iter(self._projects(PROJECTS.c.id == project_id)), None)

    def projects(self) -> list[Project]:
        """Return all managed projects, by id."""
        return self._projects(PROJECTS.c.managed)

    def gone_projects(self) -> list[Project]:
        """Return the projects that were deleted in Label Studio, by id."""
        return self._projects(sa.and_(sa.not_(PROJECTS.c.managed), PROJECTS.c.state == GONE))

    def _projects(self, condition: sa.ColumnElement[bool]) -> list[Project]:
        with self._read() as connection:
            rows = connection.execute(sa.select(PROJECTS).where(condition).order_by(PROJECTS.c.id))
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
        """Take a project that was woken, or that nobody looked at for `interval` seconds; None when there is none.

        A lease that ends further ahead than any lease can was taken before the clock was set back: it counts as
        expired.

        Args:
            only: take that project whether it is due or not.
            busy: projects that the caller itself works on: their leases only look expired, where the clock was set.
        """
        with self._read() as connection:  # most looks find nothing: they must not queue for the write lock
            now = time.time()
            if connection.execute(_due(now, lease_seconds, interval, only, busy)).first() is None:
                return None
        with self._write() as connection:
            now = time.time()  # after the wait for the lock: leases that others took meanwhile lie in no future
            row = connection.execute(_due(now, lease_seconds, interval, only, busy)).first()
            if row is None:
                return None
            taken = sa.update(PROJECTS).where(PROJECTS.c.id == row.id, _free(now, lease_seconds))
            count = connection.execute(taken.values(lease_owner=owner, lease_expires=now + lease_seconds)).rowcount
        return Lease(row.id, owner, row.wakes) if count else None

    def heartbeat(self, lease: Lease, *, lease_seconds: float) -> None:
        """Extend a lease.

        Raises:
            LeaseLost: it expired and another worker took the project, or the project is gone.
        """
        held = sa.and_(PROJECTS.c.id == lease.project_id, PROJECTS.c.lease_owner == lease.owner)
        with self._write() as connection:
            extended = sa.update(PROJECTS).where(held).values(lease_expires=time.time() + lease_seconds)
            if not connection.execute(extended).rowcount:
                raise LeaseLost(f"The lease on project {lease.project_id} went to another worker.")

    def release(self, lease: Lease, *, handled: bool) -> None:
        """Give a lease back; with `handled`, wake-ups that came before it was taken are done with."""
        held = sa.and_(PROJECTS.c.id == lease.project_id, PROJECTS.c.lease_owner == lease.owner)
        values: dict[str, Any] = {"lease_owner": None, "lease_expires": None, "reconciled_at": time.time()}
        with self._write() as connection:
            if handled:
                woken_again = PROJECTS.c.wakes > lease.wakes
                values["wakes_handled"] = lease.wakes
                values["dirty_since"] = sa.case((woken_again, time.time()), else_=None)
            connection.execute(sa.update(PROJECTS).where(held).values(**values))


def _free(now: float, lease_seconds: float) -> sa.ColumnElement[bool]:
    expires = PROJECTS.c.lease_expires
    return sa.or_(expires.is_(None), expires <= now, expires > now + lease_seconds + _SKEW_SECONDS)


def _due(
    now: float, lease_seconds: float, interval: float, only: int | None, busy: Collection[int]
) -> sa.Select[tuple[int, int]]:
    """Select the project whose turn it is (id, wakes)."""
    looked_at = PROJECTS.c.reconciled_at
    due = sa.or_(
        PROJECTS.c.wakes > PROJECTS.c.wakes_handled,
        looked_at.is_(None),
        looked_at <= now - interval,
        looked_at > now + _SKEW_SECONDS,  # before the clock was set back
    )
    wanted = PROJECTS.c.id == only if only is not None else sa.and_(PROJECTS.c.managed, due)
    mine = PROJECTS.c.id.not_in(busy)
    oldest = sa.func.coalesce(PROJECTS.c.dirty_since, looked_at, 0.0)
    columns = sa.select(PROJECTS.c.id, PROJECTS.c.wakes)
    return columns.where(_free(now, lease_seconds), wanted, mine).order_by(oldest).limit(1)
