"""Leases on devices, one training on each at a time, and the projects that wait for one, in the order of asking.

Processes of all machines agree on both, by the database's clock: a worker that dies frees its device when its lease
ends, whatever the clocks of the machines say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from ml_backend.errors import LeaseLost
from ml_backend.store.tables import DEVICES, TURNS, DeviceLease
from ml_backend.store.transactions import Connections

PATIENCE_SECONDS: Final = 600.0
"""A project that did not ask again within this time loses its place: it was disconnected, or need not train."""
HEAD_START_SECONDS: Final = 5.0
"""A device that became free waits so long for the project that asked first; then anybody may have it. That project may
be looked at on another machine, whose devices all train."""
_SKEW_SECONDS: Final = 1.0
"""A lease that was extended further ahead was, before the clock was set back: it has ended."""


class Devices(Connections):
    """Devices that train, and whose turn it is."""

    def take_device(
        self, project_id: int, devices: Sequence[tuple[str, str]], holder: str, *, lease_seconds: float
    ) -> DeviceLease | None:
        """Take a device for a project, if its turn has come; else it has its place among those that wait.

        Args:
            project_id: Label Studio's.
            devices: key and name of each device that the caller can train on.
            holder: name of the caller, as no other has it.
            lease_seconds: length of the lease.

        Returns:
            None where no device is free, or those that are became so a moment ago, and projects wait that asked
            earlier.
        """
        with self._write() as connection:
            self._count_in(connection, "turns")  # whoever asks at the same time waits here
            now = connection.execute(sa.select(self._now())).scalar_one()
            asked = self._insert(TURNS).values(project_id=project_id, since=now, asked=now)
            connection.execute(asked.on_conflict_do_update(index_elements=["project_id"], set_={"asked": now}))
            gone = sa.or_(TURNS.c.asked < now - PATIENCE_SECONDS, TURNS.c.asked > now + _SKEW_SECONDS)
            connection.execute(sa.delete(TURNS).where(gone))
            waiting = list(connection.execute(_in_line()).scalars())
            held = set(connection.execute(sa.select(DEVICES.c.key).where(_is_held(now))).scalars())
            free = [(key, name) for key, name in devices if key not in held]
            if waiting.index(project_id) >= len(free):
                lately = sa.and_(DEVICES.c.expires > now - HEAD_START_SECONDS, DEVICES.c.expires <= now + _SKEW_SECONDS)
                kept = set(connection.execute(sa.select(DEVICES.c.key).where(lately)).scalars())
                free = [(key, name) for key, name in free if key not in kept]
            if not free:
                return None
            key, name = free[0]
            lease = DeviceLease(key, name, holder, project_id, now, now, now + lease_seconds)
            self._upsert_in(connection, DEVICES, [vars(lease)], keys=("key",))
            connection.execute(sa.delete(TURNS).where(TURNS.c.project_id == project_id))
        return lease

    def keep_device(self, lease: DeviceLease, *, lease_seconds: float) -> None:
        """Extend a lease by `lease_seconds` from now.

        Raises:
            LeaseLost: it ended, and another worker took the device.
        """
        with self._write() as connection:
            now = connection.execute(sa.select(self._now())).scalar_one()
            more = sa.update(DEVICES).where(_is_of(lease)).values(extended=now, expires=now + lease_seconds)
            if not connection.execute(more).rowcount:
                raise LeaseLost(f"The lease on {lease.name} went to another worker.")

    def free_device(self, lease: DeviceLease) -> None:
        """End a lease; nothing happens where another worker took the device."""
        with self._write() as connection:
            connection.execute(sa.update(DEVICES).where(_is_of(lease)).values(expires=self._now()))

    def held_devices(self) -> list[DeviceLease]:
        """Return the leases that have not ended, by name of the worker and of the device."""
        with self._read() as connection:
            now = connection.execute(sa.select(self._now())).scalar_one()
            held = [DeviceLease(**row._mapping) for row in connection.execute(sa.select(DEVICES).where(_is_held(now)))]
        return sorted(held, key=lambda lease: (lease.worker, lease.name))

    def waiting_to_train(self) -> list[int]:
        """Return the projects that wait for a device, those that asked first before the others."""
        with self._read() as connection:
            return list(connection.execute(_in_line()).scalars())

    def leave_line(self, project_id: int) -> bool:
        """Let a project wait no longer for a device; return whether it did."""
        if project_id not in self.waiting_to_train():
            return False
        with self._write() as connection:
            return bool(connection.execute(sa.delete(TURNS).where(TURNS.c.project_id == project_id)).rowcount)


def _in_line() -> sa.Select[Any]:
    return sa.select(TURNS.c.project_id).order_by(TURNS.c.since, TURNS.c.project_id)


def _is_held(now: float) -> sa.ColumnElement[bool]:
    return sa.and_(DEVICES.c.expires > now, DEVICES.c.extended <= now + _SKEW_SECONDS)


def _is_of(lease: DeviceLease) -> sa.ColumnElement[bool]:
    return sa.and_(DEVICES.c.key == lease.key, DEVICES.c.holder == lease.holder)
