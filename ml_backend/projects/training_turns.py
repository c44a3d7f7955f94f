"""Turns to train: a single training on each device at a time, in the order in which projects asked, in all processes.

Nothing blocks: a project whose turn has not come continues with its queue, and is woken when it has. A project that
blocked instead would keep its worker's thread from all other projects for as long as a training takes.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ml_backend.errors import (
    ConfigurationError,
    StoreUnavailable,
    TrainingError,
    TrainingWaits,
)
from ml_backend.projects.signs_of_life import worker_name
from ml_backend.settings import ALL_DEVICES, Settings
from ml_backend.store import DeviceLease, Store
from ml_backend.system.heartbeat import extended

if TYPE_CHECKING:
    from ml_backend.learning.networks import Device

logger = logging.getLogger(__name__)

Discover = Callable[[str], "Sequence[Device]"]
"""Returns the devices that NEXTMASK_DEVICE means on this machine."""


def discover(name: str) -> Sequence[Device]:
    """Return the devices that NEXTMASK_DEVICE means on this machine.

    Raises:
        ConfigurationError: this machine has no such device.
    """
    from ml_backend.learning import networks  # takes torch with it

    return networks.discover(name)


@dataclass(frozen=True)
class Turn:
    """The right to train on a device.

    Attributes:
        device: its name, as trainings and networks take it.
        check: raises TrainingWaits where the device went to another worker: this process stood still for long.
    """

    device: str
    check: Callable[[], None]


class TrainingTurns:
    """The turns of an installation, and its devices. Safe to use from many threads and processes.

    Args:
        store: keeps the leases.
        settings: of the installation.
        discover: finds the devices of this machine, once.
    """

    def __init__(self, store: Store, settings: Settings, discover: Discover = discover) -> None:
        self._store, self._wanted, self._lease_seconds = store, settings.device, settings.lease_seconds
        self._discover = discover
        self._found: Sequence[Device] | None = None

    def devices(self) -> Sequence[Device]:
        """Return the devices of this machine that trainings and networks may use.

        Raises:
            ConfigurationError: this machine has none of them.
        """
        if self._found is None:
            self._found = self._discover(self._wanted)
        return self._found

    def device_for(self, project_id: int, *, avoid_trainings: bool = False) -> str:
        """Return the device on which a project's network predicts: of several, projects are spread over all.

        Args:
            avoid_trainings: take one that does not train, where there is one. A project's device may change then.
        """
        if self._wanted != ALL_DEVICES:
            return self._wanted
        devices = self.devices()
        if avoid_trainings:
            held = {lease.key for lease in self._store.held_devices()}
            devices = [device for device in devices if device.key not in held] or devices
        return devices[project_id % len(devices)].name

    @contextmanager
    def take(self, project_id: int) -> Iterator[Turn]:
        """Hold a device for as long as a training takes. Projects that wait are woken when they may train.

        Raises:
            TrainingWaits: all devices train, or other projects asked earlier; this project keeps its place.
            TrainingError: this machine has no such device.
        """
        try:
            devices = [(device.key, device.name) for device in self.devices()]
        except ConfigurationError as error:  # as any training that fails
            raise TrainingError(str(error)) from error
        holder = f"{worker_name()}:{uuid.uuid4().hex[:8]}"
        lease = self._store.take_device(project_id, devices, holder, lease_seconds=self._lease_seconds)
        if lease is None:
            self._wake_next()  # it may have been woken when it was not first yet, and sleep
            raise TrainingWaits(f"Project {project_id} waits for its turn to train.")
        logger.info("project=%s device=%s taken", project_id, lease.name)
        try:
            extend = partial(self._store.keep_device, lease, lease_seconds=self._lease_seconds)
            with extended(extend, lease_seconds=self._lease_seconds, name=f"device-{lease.name}") as lost:
                yield Turn(lease.name, partial(_check, lease, lost))
        finally:
            with suppress(StoreUnavailable):  # it runs out
                self._store.free_device(lease)
                self._wake_next()

    @property
    def is_awaited(self) -> bool:
        """Whether a project waits for its turn."""
        return bool(self._store.waiting_to_train())

    def leave(self, project_id: int) -> None:
        """Give up a place in the queue: whoever is behind it need not wait any more."""
        if self._store.leave_line(project_id):
            self._wake_next()

    def _wake_next(self) -> None:
        """Wake as many of the projects that wait longest as devices of this machine are free."""
        held = {lease.key for lease in self._store.held_devices()}
        free = sum(device.key not in held for device in self.devices())
        for project_id in self._store.waiting_to_train()[:free]:
            self._store.wake(project_id)


def _check(lease: DeviceLease, lost: threading.Event) -> None:
    if lost.is_set():
        raise TrainingWaits(f"{lease.name} went to another worker: project {lease.project_id} trains later.")


def held_words(store: Store) -> list[str]:
    """Say of each device that trains what it trains, who holds it, and since when."""
    now = store.time()
    return [
        f"{lease.name} of {lease.worker} trains project {lease.project_id}, since {max(0.0, now - lease.since):.0f} s"
        for lease in store.held_devices()
    ]
