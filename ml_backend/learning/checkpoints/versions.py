"""Versions of a project's model, and the pointer to the one that serves."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_backend.errors import CheckpointError, shown
from ml_backend.learning.checkpoints.committees import Committees
from ml_backend.learning.checkpoints.files import (
    READING_ERRORS,
    UNFINISHED,
    exclusive,
    flush_folder,
    is_number,
    now,
    read_number,
    serialise,
    sha256,
    write_file,
    write_number,
)

if TYPE_CHECKING:
    from torch import Tensor

_FORMAT = 1
_WEIGHTS = "weights.safetensors"
_RECORD = "version.json"


@dataclass(frozen=True)
class VersionRecord:
    """What is known about a version beside its weights, as JSON.

    Attributes:
        classes: index -> class name, as in `LabelMap.classes`.
        data_digest: that of the training job: the same digest need not be trained again.
        labels: task id -> digest of the label that was used, held-out ones included.
        skipped: task id -> why its label could not be used.
        held_out: the ids among `labels` that measured, and did not train.
        pseudo_labels: ids of tasks that trained with a predicted mask; none of them is among `labels`.
        measures: held-out measures in [0, 1], None where nothing measured: miou, mean_dice, pixel_accuracy, parent_miou
            (the parent on the same labels), iou and dice by class name; counts: pixels, trained, held_out, skipped;
            effort: iterations, best_iteration, seconds, images_at_once (fewer than a batch where memory was short).
        settings: what is needed to build the network again, and how it was trained.
        accepted: whether the gate lets it be published; `reason` says why, or why not.
        number, created_at: given by `Checkpoints.create`.
    """

    classes: tuple[str, ...]
    label_map_digest: str
    data_digest: str
    parent: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    held_out: tuple[str, ...] = ()
    measures: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    accepted: bool = True
    reason: str = ""
    pseudo_labels: tuple[str, ...] = ()
    number: int = 0
    created_at: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VersionRecord:
        """Rebuild a record from its JSON object (TypeError when it is of another shape)."""
        names = [item.name for item in dataclasses.fields(cls) if item.name in values]
        known: dict[str, Any] = {
            name: tuple(values[name]) if isinstance(values[name], list) else values[name] for name in names
        }
        return cls(**known)


@dataclass(frozen=True)
class Version:
    """A complete version on disk. `size` (bytes) and `sha256` are those that its weights were written with."""

    number: int
    path: Path
    record: VersionRecord
    size: int
    sha256: str

    @property
    def weights(self) -> Path:
        """The file with the network's state."""
        return self.path / _WEIGHTS


class Checkpoints:
    """The versions of one project. Any number of processes may read while one writes.

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
        return [found for found in self._scan().values() if isinstance(found, Version)]

    def history(self) -> list[VersionRecord]:
        """Return what is known of all versions, oldest first, those that were removed included."""
        records = {version.number: version.record for version in self.versions()}
        for path in self._history.glob("*.json"):
            if is_number(path.stem) and int(path.stem) not in records:
                with suppress(OSError, ValueError, KeyError, TypeError):  # a damaged one is left out
                    status = path.stat()
                    records[int(path.stem)] = _read_record(path, status.st_size, status.st_mtime_ns)
        return [records[number] for number in sorted(records)]

    def damaged(self) -> dict[int, str]:
        """Return number -> what is wrong, for the folders that `versions` leaves out."""
        return {number: found for number, found in self._scan().items() if isinstance(found, str)}

    def get(self, number: int) -> Version:
        """Return one version by number.

        Raises:
            CheckpointError: there is none of that number, or it is damaged.
        """
        found = _examine(self._versions / str(number), number)
        if isinstance(found, str):
            raise CheckpointError(f"Version {number} cannot be used: {found}. {self._remedy()}")
        return found

    def latest(self) -> Version | None:
        """Return the newest good version, accepted or not."""
        return max(self.versions(), key=lambda version: version.number, default=None)

    def current(self) -> Version | None:
        """Return the version that serves, or None before the first is published.

        When the pointer or its target is damaged, the newest accepted good version takes its place; one older than
        the target is preferred, because newer ones were rolled back or never published.
        """
        if not self._pointer.exists():
            return None
        target = read_number(self._pointer)
        found = None if target is None else _examine(self._versions / str(target), target)
        if isinstance(found, Version) and not _content_damage(found):
            return found
        return next(self._fallbacks(target), None)

    def stand_in(self) -> str:
        """Return what is wrong with the version that should serve, and which one does; empty where all is well."""
        if not self._pointer.exists():
            return ""
        target, current = read_number(self._pointer), self.current()
        if current is not None and current.number == target:
            return ""
        found = None if target is None else _examine(self._versions / str(target), target)
        damage = _content_damage(found) if isinstance(found, Version) else found or "nothing says which one it is"
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
        """Make a version the one that serves.

        Raises:
            CheckpointError: there is none of that number, it is damaged, or the disk refuses.
        """
        version = self.get(number)
        if damage := _content_damage(version):
            raise CheckpointError(f"Version {number} cannot be published: {damage}. {self._remedy()}")
        try:
            with self._writer_lock():
                write_number(self._pointer, number)
        except OSError as error:
            raise CheckpointError(f"Version {number} cannot be published: {error}.") from error
        return version

    def rollback(self, number: int | None = None) -> Version:
        """Publish an earlier version again: `number`, or the newest accepted one before the one that serves.

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
        """Remove versions but the newest; their records stay, in `history`.

        Never removed are the version that serves and the one that it was trained from, the accepted one with the best
        held-out mIoU, and damaged ones, which a person may want to look at.

        Args:
            keep: how many of the newest stay.
            needed: numbers of others that do.

        Returns:
            The numbers of those that were removed.

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
        return {number: _examine(self._versions / str(number), number) for number in names}

    def _fallbacks(self, target: int | None, *, newer: bool = True) -> Iterator[Version]:
        """Accepted good versions in the order in which they may stand in for `target`."""
        usable = [version for version in self.versions() if version.record.accepted and version.number != target]
        before = [version for version in usable if target is None or version.number < target]
        after = [version for version in usable if newer and version not in before]
        candidates = [*reversed(before), *reversed(after)]
        return (version for version in candidates if not _content_damage(version))

    def _indispensable(self, versions: Sequence[Version]) -> set[int]:
        current = self.current()
        numbers = {read_number(self._pointer)}
        if current is not None:
            numbers |= {current.number, current.record.parent}
        measured = [one for one in versions if one.record.accepted and one.record.measures.get("miou") is not None]
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
        """Remove what a killed or failed writer left; whoever holds the lock is the only living writer."""
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
        about = {"size": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
        content = {"format": _FORMAT, "record": dataclasses.asdict(record), "weights": about}
        write_file(unfinished / _WEIGHTS, weights)
        write_file(unfinished / _RECORD, json.dumps(content, indent=1, allow_nan=False).encode())
        flush_folder(unfinished)
        final = unfinished.rename(self._versions / str(record.number))
        flush_folder(self._versions)
        return self.get(int(final.name))


def _examine(path: Path, number: int) -> Version | str:
    """Return the version in that folder, or what is wrong with it (the weights' content is not read)."""
    try:
        status = (path / _RECORD).stat()
        version = _read_version(path, status.st_ino, status.st_size, status.st_mtime_ns)
        size = version.weights.stat().st_size
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing" if path.exists() else "there is no such version"
    except READING_ERRORS as error:
        return f"{_RECORD} cannot be read ({type(error).__name__}: {str(error)[:200]})"
    if version.number != number:
        return f"its record is that of version {shown(version.number)}"
    if size != version.size:
        return f"{_WEIGHTS} has {size} bytes instead of {shown(version.size)}"
    return version


@functools.lru_cache(maxsize=1024)
def _read_version(path: Path, _inode: int, _size: int, _modified: int) -> Version:
    """Parse a record once as long as its file is the same: it lists every label, so it may be large."""
    content = json.loads((path / _RECORD).read_bytes())
    if content["format"] != _FORMAT:
        raise ValueError(
            f"format {shown(content['format'])} instead of {_FORMAT}: written by another release of nextmask"
        )
    record = VersionRecord.from_dict(content["record"])
    return Version(record.number, path, record, int(content["weights"]["size"]), str(content["weights"]["sha256"]))


@functools.lru_cache(maxsize=1024)
def _read_record(path: Path, _size: int, _modified: int) -> VersionRecord:
    return VersionRecord.from_dict(json.loads(path.read_bytes()))


def _content_damage(version: Version) -> str:
    """Return what is wrong with the weights, or an empty string; the file is hashed once as long as it is the same."""
    try:
        digest = sha256(version.weights)
    except OSError as error:
        return f"{_WEIGHTS} cannot be read ({error})"
    return "" if digest == version.sha256 else f"the content of {_WEIGHTS} has changed"
