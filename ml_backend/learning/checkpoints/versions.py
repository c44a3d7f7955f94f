"""Versions of a project's model, and the pointer to the published version."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ml_backend.errors import CheckpointError
from ml_backend.learning.checkpoints.committees import Committees
from ml_backend.learning.checkpoints.files import (
    UNFINISHED,
    exclusive,
    flush_folder,
    is_number,
    now,
    read_number,
    serialise,
    write_file,
    write_number,
)
from ml_backend.learning.checkpoints.records import (
    Version,
    VersionRecord,
    content_damage,
    examine,
    read_record,
    write_version,
)

if TYPE_CHECKING:
    from torch import Tensor


class Checkpoints:
    """The versions of a project's model. Any number of processes may read while one writes.

    Args:
        folder: holds everything in the package's drawing; made by the first `create`.

    Attributes:
        committees: the networks trained beside some of the versions.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._versions = self.folder / "versions"
        self._pointer = self.folder / "current"
        self._last_number = self.folder / "last_number"
        self._lock = self.folder / "lock"
        self._history = self.folder / "history"
        self.committees = Committees(self.folder / "committees", self._lock)

    # -- reading -----------------------------------------------------------------------------------------------------

    def versions(self) -> list[Version]:
        """Return the good versions, oldest first. Checks records and sizes; weights are hashed by `current` and
        `load_state` only, so that a long list stays cheap."""
        return [version for version in self._scan().values() if isinstance(version, Version)]

    def history(self) -> list[VersionRecord]:
        """Return the records of all versions, removed versions included, oldest first."""
        records = {version.number: version.record for version in self.versions()}
        for path in self._history.glob("*.json"):
            if is_number(path.stem) and int(path.stem) not in records:
                with suppress(OSError, ValueError, KeyError, TypeError):  # a damaged record is left out
                    records[int(path.stem)] = read_record(path)
        return [records[number] for number in sorted(records)]

    def damaged(self) -> dict[int, str]:
        """Return number -> what is wrong, for the folders that `versions` leaves out."""
        return {number: damage for number, damage in self._scan().items() if isinstance(damage, str)}

    def get(self, number: int) -> Version:
        """Return a version by its number.

        Raises:
            CheckpointError: there is no version of that number, or it is damaged.
        """
        version = examine(self._versions / str(number), number)
        if isinstance(version, str):
            raise CheckpointError(f"Version {number} cannot be used: {version}. {self._remedy()}")
        return version

    def latest(self) -> Version | None:
        """Return the newest good version, accepted or not."""
        return max(self.versions(), key=lambda version: version.number, default=None)

    def current(self) -> Version | None:
        """Return the version that serves, or None before the first is published.

        Where the pointer or its target is damaged, the newest accepted good version takes its place; an older version
        than the target is preferred, because newer versions were rolled back or never published.
        """
        if not self._pointer.exists():
            return None
        target = read_number(self._pointer)
        version = None if target is None else examine(self._versions / str(target), target)
        if isinstance(version, Version) and not content_damage(version):
            return version
        return next(self._fallbacks(target), None)

    def stand_in(self) -> str:
        """Return a sentence that says what damaged the published version and what serves instead, or ""."""
        if not self._pointer.exists():
            return ""
        target, current = read_number(self._pointer), self.current()
        if current is not None and current.number == target:
            return ""
        version = None if target is None else examine(self._versions / str(target), target)
        damage = content_damage(version) if isinstance(version, Version) else version or "its number is unreadable"
        named = "The version that should serve" if target is None else f"Version {target}, which should serve,"
        serves = "None serves" if current is None else f"Version {current.number} serves in its place"
        return f"{named} cannot be used: {damage}. {serves}; the next training makes a new one."

    def load_state(self, version: Version) -> dict[str, Tensor]:
        """Read a version's weights onto the CPU: name -> tensor.

        Raises:
            CheckpointError: the file is missing or is not what was written (size, SHA-256).
        """
        # torch is slow to import and status pages do without it
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            data = version.weights.read_bytes()
        except OSError as error:
            raise CheckpointError(f"Version {version.number} cannot be read: {error}. {self._remedy()}") from error
        if len(data) != version.size or hashlib.sha256(data).hexdigest() != version.sha256:
            raise CheckpointError(f"The weights of version {version.number} are damaged. {self._remedy()}")
        try:
            state: dict[str, Tensor] = load(data)
        except (SafetensorError, ValueError, KeyError) as error:
            raise CheckpointError(f"The weights of version {version.number} are damaged: {error}.") from error
        return state

    def files_of(self, number: int, *, committee: bool = False) -> dict[str, bytes]:
        """Read the files of a version, for another machine: path below `folder` -> content.

        Args:
            committee: read those of its committee as well.

        Raises:
            CheckpointError: they cannot be read.
        """
        folders = [self._versions / str(number), *([self.folder / "committees" / str(number)] if committee else [])]
        try:
            files = [file for folder in folders for file in sorted(folder.iterdir())]
            return {str(file.relative_to(self.folder)): file.read_bytes() for file in files}
        except OSError as error:
            raise CheckpointError(f"Version {number} cannot be read: {error}. {self._remedy()}") from error

    # -- writing -----------------------------------------------------------------------------------------------------

    def create(self, record: VersionRecord, state: Mapping[str, Tensor]) -> Version:
        """Write a new version under the next free number; does not publish it.

        Args:
            record: `number` and `created_at` are filled in here.
            state: the network's `state_dict()`, on any device.

        Raises:
            CheckpointError: the disk refuses (full, read-only, …).
        """
        weights = serialise(state)
        try:
            with self._writer_lock():
                number = self._next_number()
                return self._write(dataclasses.replace(record, number=number, created_at=now()), weights)
        except OSError as error:
            raise CheckpointError(f"A new version cannot be written to {self.folder}: {error}.") from error

    def publish(self, number: int) -> Version:
        """Publish a version: it serves from now on.

        Raises:
            CheckpointError: there is no version of that number, it is damaged, or the disk refuses.
        """
        version = self.get(number)
        if damage := content_damage(version):
            raise CheckpointError(f"Version {number} cannot be published: {damage}. {self._remedy()}")
        try:
            with self._writer_lock():
                write_number(self._pointer, number)
        except OSError as error:
            raise CheckpointError(f"Version {number} cannot be published: {error}.") from error
        return version

    def rollback(self, number: int | None = None) -> Version:
        """Publish an earlier version again: `number`, or the newest accepted version before the published version.

        Raises:
            CheckpointError: there is no such version.
        """
        if number is not None:
            return self.publish(number)
        current = self.current()
        earlier = None if current is None else next(self._fallbacks(current.number, newer=False), None)
        if earlier is None:
            shown = "none is published" if current is None else f"version {current.number} serves"
            raise CheckpointError(f"There is no earlier accepted version to go back to ({shown}). {self._remedy()}")
        return self.publish(earlier.number)

    def remove_old(self, keep: int, *, needed: Collection[int] = ()) -> list[int]:
        """Remove all but the newest versions; their records stay, in `history`.

        Never removed are the version that serves and its parent, the accepted version with the best held-out mIoU,
        and damaged versions, which a person may want to look at.

        Args:
            keep: number of the newest versions that stay.
            needed: numbers of other versions that stay.

        Returns:
            The numbers of the removed versions.

        Raises:
            CheckpointError: the disk refuses.
        """
        if len(self.versions()) <= keep:
            return []
        try:
            with self._writer_lock():
                versions = self.versions()
                stay = {version.number for version in versions[-keep:]} | {*needed} | self._indispensable(versions)
                old = [version for version in versions if version.number not in stay]
                for version in old:
                    self._remove(version)
                return [version.number for version in old]
        except OSError as error:
            raise CheckpointError(f"Old versions in {self.folder} cannot be removed: {error}.") from error

    # -- inside ------------------------------------------------------------------------------------------------------

    def _scan(self) -> dict[int, Version | str]:
        try:
            names = sorted(int(entry.name) for entry in self._versions.iterdir() if is_number(entry.name))
        except FileNotFoundError:
            return {}
        return {number: examine(self._versions / str(number), number) for number in names}

    def _fallbacks(self, target: int | None, *, newer: bool = True) -> Iterator[Version]:
        """Accepted good versions in the order in which they may stand in for `target`."""
        usable = [version for version in self.versions() if version.record.accepted and version.number != target]
        before = [version for version in usable if target is None or version.number < target]
        after = [version for version in usable if newer and version not in before]
        candidates = [*reversed(before), *reversed(after)]
        return (version for version in candidates if not content_damage(version))

    def _indispensable(self, versions: Sequence[Version]) -> set[int]:
        current = self.current()
        numbers = {read_number(self._pointer)}
        if current is not None:
            numbers |= {current.number, current.record.parent}
        accepted = [version for version in versions if version.record.accepted]
        measured = [version for version in accepted if version.record.measures.get("miou") is not None]
        best = max(measured, key=lambda version: float(version.record.measures["miou"]), default=None)
        return {number for number in (*numbers, best.number if best else None) if number is not None}

    def _remove(self, version: Version) -> None:
        """Keep the record, then take the folder away at once: a killed process leaves it whole, or out of sight."""
        self._history.mkdir(exist_ok=True)
        record = self._history / f"{version.number}.json"
        unfinished = record.with_name(f".{record.name}")
        write_file(unfinished, json.dumps(dataclasses.asdict(version.record), allow_nan=False).encode())
        unfinished.replace(record)
        flush_folder(self._history)
        version.path.rename(self._versions / f"{UNFINISHED}{version.number}-removed")
        flush_folder(self._versions)

    def _remedy(self) -> str:
        numbers = [str(version.number) for version in self.versions()]
        return f"Good versions here: {', '.join(numbers)}." if numbers else "No good version here: train again."

    @contextmanager
    def _writer_lock(self) -> Iterator[None]:
        self._versions.mkdir(parents=True, exist_ok=True)
        with exclusive(self._lock):
            self._remove_unfinished()
            try:
                yield
            finally:
                self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        """Remove what a killed or failed writer left; the holder of the lock is the only living writer."""
        for path in self._versions.glob(f"{UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _next_number(self) -> int:
        """Take a number; it stays taken when the version is never finished, or deleted later."""
        known = [int(path.name) for path in self._versions.iterdir() if is_number(path.name)]
        number = max([*known, read_number(self._last_number) or 0, read_number(self._pointer) or 0]) + 1
        write_number(self._last_number, number)
        return number

    def _write(self, record: VersionRecord, weights: bytes) -> Version:
        unfinished = self._versions / f"{UNFINISHED}{record.number}"
        unfinished.mkdir()
        write_version(unfinished, record, weights)
        flush_folder(unfinished)
        final = unfinished.rename(self._versions / str(record.number))
        flush_folder(self._versions)
        return self.get(int(final.name))
