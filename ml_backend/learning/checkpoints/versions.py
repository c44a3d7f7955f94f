"""Versions of a project's model, and the pointer to the published version."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ml_backend.errors import CheckpointError
from ml_backend.learning.checkpoints.committees import COMMITTEES, Committees
from ml_backend.learning.checkpoints.files import now, serialise
from ml_backend.learning.checkpoints.pointer import Pointer, PointerFile, files_in, target_of
from ml_backend.learning.checkpoints.records import (
    WEIGHTS,
    Version,
    VersionRecord,
    content_damage,
    examine,
    read_record,
    version_files,
)
from ml_backend.system.files import Files, Folder, is_number

if TYPE_CHECKING:
    from torch import Tensor


_VERSIONS: Final = "versions"
_HISTORY: Final = "history"
_LAST_NUMBER: Final = "last_number"


class Checkpoints:
    """The versions of a project's model. Any number of processes may read while one writes.

    Args:
        place: a folder, or files, for everything in the package's drawing; made by the first `create`.
        pointer: says which version serves; None: a file in the same place does.

    Attributes:
        files: everything in the package's drawing.
        committees: the networks trained beside some of the versions.
    """

    def __init__(self, place: Path | Files, pointer: Pointer | None = None) -> None:
        self.files = files_in(place)
        self._pointer = pointer or PointerFile(self.files)
        self.committees = Committees(self.files)

    @property
    def folder(self) -> Path:
        """The folder, where it is one."""
        if not isinstance(self.files, Folder):
            raise TypeError(f"{self.files.where} is no folder")
        return self.files.root

    # -- reading -----------------------------------------------------------------------------------------------------

    def versions(self) -> list[Version]:
        """Return the good versions, oldest first. Checks records and sizes; weights are hashed by `current` and
        `load_state` only, so that a long list stays cheap."""
        return [version for version in self._scan().values() if isinstance(version, Version)]

    def history(self) -> list[VersionRecord]:
        """Return the records of all versions, removed versions included, oldest first."""
        records = {version.number: version.record for version in self.versions()}
        for name in self.files.names(_HISTORY):
            stem = name.removesuffix(".json")
            if stem != name and is_number(stem) and int(stem) not in records:
                with suppress(OSError, ValueError, KeyError, TypeError):  # a damaged record is left out
                    records[int(stem)] = read_record(self.files, f"{_HISTORY}/{name}")
        return [records[number] for number in sorted(records)]

    def damaged(self) -> dict[int, str]:
        """Return number -> what is wrong, for the folders that `versions` leaves out."""
        return {number: damage for number, damage in self._scan().items() if isinstance(damage, str)}

    def get(self, number: int) -> Version:
        """Return a version by its number.

        Raises:
            CheckpointError: there is no version of that number, or it is damaged.
        """
        version = self._examine(number)
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
        if not self._pointer.get():
            return None
        target = target_of(self._pointer)
        version = None if target is None else self._examine(target)
        if isinstance(version, Version) and not content_damage(version):
            return version
        return next(self._fallbacks(target), None)

    def stand_in(self) -> str:
        """Return a sentence that says what damaged the published version and what serves instead, or ""."""
        if not self._pointer.get():
            return ""
        target, current = target_of(self._pointer), self.current()
        if current is not None and current.number == target:
            return ""
        version = None if target is None else self._examine(target)
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
            data = version.files.read(WEIGHTS)
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
        """Read the files of a version, for another machine: key -> content.

        Args:
            committee: read those of its committee as well.

        Raises:
            CheckpointError: they cannot be read.
        """
        content = dict[str, bytes]()
        for folder in [_VERSIONS, *([COMMITTEES] if committee else [])]:
            keys = [f"{folder}/{number}/{name}" for name in self.files.names(f"{folder}/{number}")]
            try:
                content |= {key: self.files.read(key) for key in keys}
            except OSError as error:
                raise CheckpointError(f"Version {number} cannot be read: {error}. {self._remedy()}") from error
            if not keys:
                raise CheckpointError(f"Version {number} cannot be read: {folder}/{number} is gone. {self._remedy()}")
        return content

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
            with self.files.writing(_VERSIONS):
                number = self._next_number()
                record = dataclasses.replace(record, number=number, created_at=now())
                self.files.write_together(f"{_VERSIONS}/{number}", version_files(record, weights))
                return self.get(number)
        except OSError as error:
            raise CheckpointError(f"A new version cannot be written to {self.files.where}: {error}.") from error

    def publish(self, number: int) -> Version:
        """Publish a version: it serves from now on.

        Raises:
            CheckpointError: there is no version of that number, it is damaged, or the disk refuses.
        """
        version = self.get(number)
        if damage := content_damage(version):
            raise CheckpointError(f"Version {number} cannot be published: {damage}. {self._remedy()}")
        try:
            self._pointer.set(number)
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
            with self.files.writing(_VERSIONS):
                versions = self.versions()
                stay = {version.number for version in versions[-keep:]} | {*needed} | self._indispensable(versions)
                old = [version for version in versions if version.number not in stay]
                for version in old:
                    self._remove(version)
                return [version.number for version in old]
        except OSError as error:
            raise CheckpointError(f"Old versions in {self.files.where} cannot be removed: {error}.") from error

    # -- inside ------------------------------------------------------------------------------------------------------

    def _scan(self) -> dict[int, Version | str]:
        return {number: self._examine(number) for number in self._numbers()}

    def _numbers(self) -> list[int]:
        return sorted(int(name) for name in self.files.names(_VERSIONS) if is_number(name))

    def _examine(self, number: int) -> Version | str:
        return examine(self.files.below(f"{_VERSIONS}/{number}"), number)

    def _fallbacks(self, target: int | None, *, newer: bool = True) -> Iterator[Version]:
        """Accepted good versions in the order in which they may stand in for `target`."""
        usable = [version for version in self.versions() if version.record.accepted and version.number != target]
        before = [version for version in usable if target is None or version.number < target]
        after = [version for version in usable if newer and version not in before]
        candidates = [*reversed(before), *reversed(after)]
        return (version for version in candidates if not content_damage(version))

    def _indispensable(self, versions: Sequence[Version]) -> set[int]:
        current = self.current()
        numbers = {target_of(self._pointer)}
        if current is not None:
            numbers |= {current.number, current.record.parent}
        accepted = [version for version in versions if version.record.accepted]
        measured = [version for version in accepted if version.record.measures.get("miou") is not None]
        best = max(measured, key=lambda version: float(version.record.measures["miou"]), default=None)
        return {number for number in (*numbers, best.number if best else None) if number is not None}

    def _remove(self, version: Version) -> None:
        """Keep the record, then take the folder away at once."""
        record = json.dumps(dataclasses.asdict(version.record), allow_nan=False).encode()
        self.files.write(f"{_HISTORY}/{version.number}.json", record)
        self.files.remove_together(f"{_VERSIONS}/{version.number}")

    def _remedy(self) -> str:
        numbers = [str(version.number) for version in self.versions()]
        return f"Good versions here: {', '.join(numbers)}." if numbers else "No good version here: train again."

    def _next_number(self) -> int:
        """Take a number; it stays taken when the version is never finished, or deleted later."""
        taken = (*self._numbers(), self.files.highest(_LAST_NUMBER), target_of(self._pointer) or 0)
        number = max(taken) + 1
        while not self.files.take(_LAST_NUMBER, number):
            number += 1
        return number
