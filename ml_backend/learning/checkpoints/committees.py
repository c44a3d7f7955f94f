"""Committees of networks, each belonging to a version; and the members of a committee that is being trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_backend.errors import CheckpointError
from ml_backend.learning.checkpoints.files import (
    READING_ERRORS,
    UNFINISHED,
    exclusive,
    flush_folder,
    is_number,
    now,
    serialise,
    sha256,
    write_file,
)

if TYPE_CHECKING:
    from torch import Tensor

_FORMAT = 1
_RECORD = "committee.json"
_PARTS = ".parts-"
_KEPT = 2
"""Committees that stay: that of the published version, and the previous committee for a rollback."""


class Committees:
    """The committees of a project's versions. Any number of processes may read while one writes.

    Args:
        folder: holds them, and the members of unfinished ones; made when the first is written.
        lock: file whose lock a writer holds.
    """

    def __init__(self, folder: Path, lock: Path) -> None:
        self._folder, self._lock = folder, lock

    # -- reading -----------------------------------------------------------------------------------------------------

    def record(self, number: int) -> dict[str, Any] | None:
        """Return the record of a version's committee: as given to `put`, with `members` and `created_at`.

        None without a committee, or where a file of it is missing or not what was written.
        """
        path = self._folder / str(number)
        try:
            content = json.loads((path / _RECORD).read_bytes())
            whole = content["format"] == _FORMAT and all(
                sha256(_member(path, index)) == digest for index, digest in enumerate(content["sha256"])
            )
            record: dict[str, Any] = content["record"] | {"members": len(content["sha256"])}
        except READING_ERRORS:
            return None
        return record if whole else None

    def load(self, number: int) -> list[dict[str, Tensor]] | None:
        """Read the states of a version's committee onto the CPU; None as in `record`."""
        record = self.record(number)
        if record is None:
            return None
        path = self._folder / str(number)
        states = [_read(_member(path, index)) for index in range(record["members"])]
        whole = [state for state in states if state is not None]
        return whole if len(whole) == len(states) else None

    # -- writing -----------------------------------------------------------------------------------------------------

    def put(self, number: int, states: Sequence[Mapping[str, Tensor]], record: Mapping[str, Any]) -> Path:
        """Write the committee of a version, replacing an earlier committee of it; return its folder.

        Its parts are removed, and so are the committees of all other versions but the newest.

        Args:
            states: the members' `state_dict()`, on any device.
            record: what the committee was trained on and how, as JSON values.

        Raises:
            CheckpointError: the disk refuses (full, read-only, …).
        """
        final = self._folder / str(number)
        try:
            with exclusive(self._lock):
                self._folder.mkdir(exist_ok=True)
                self._remove(f"{UNFINISHED}*")
                unfinished = self._write(number, states, record)
                if final.exists():  # of another size, or damaged
                    final.rename(self._folder / f"{UNFINISHED}{number}-replaced")
                unfinished.rename(final)
                flush_folder(self._folder)
                self._remove(f"{UNFINISHED}*", f"{_PARTS}*")
                self._remove_old(number)
        except OSError as error:
            raise CheckpointError(f"A committee cannot be written to {self._folder}: {error}.") from error
        return final

    def _write(self, number: int, states: Sequence[Mapping[str, Tensor]], record: Mapping[str, Any]) -> Path:
        unfinished = self._folder / f"{UNFINISHED}{number}"
        unfinished.mkdir()
        for index, state in enumerate(states):
            write_file(_member(unfinished, index), serialise(state))
        digests = [sha256(_member(unfinished, index)) for index in range(len(states))]
        content = {"format": _FORMAT, "record": dict(record) | {"created_at": now()}, "sha256": digests}
        write_file(unfinished / _RECORD, _json(content))
        flush_folder(unfinished)
        return unfinished

    def _remove_old(self, written: int) -> None:
        numbers = sorted(int(path.name) for path in self._folder.iterdir() if is_number(path.name))
        others = [number for number in numbers if number != written]
        self._remove(*(str(number) for number in others[: len(others) - (_KEPT - 1)]))

    def _remove(self, *patterns: str) -> None:
        for pattern in patterns:
            for path in self._folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)

    # -- members of a committee that is being trained ----------------------------------------------------------------

    def keep_part(self, number: int, index: int, state: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Keep a member that is ready until the committee is; parts of another record are removed.

        Raises:
            CheckpointError: the disk refuses.
        """
        parts = self._folder / f"{_PARTS}{number}"
        try:
            with exclusive(self._lock):
                if not self._has_parts(number, record):
                    self._remove(f"{_PARTS}*")
                    parts.mkdir(parents=True)
                    write_file(parts / _RECORD, _json(dict(record)))
                temporary = parts / f"{UNFINISHED}{index}"
                write_file(temporary, serialise(state))
                temporary.rename(_member(parts, index))
                flush_folder(parts)
        except OSError as error:
            raise CheckpointError(f"A committee cannot be written to {self._folder}: {error}.") from error

    def parts(self, number: int, record: Mapping[str, Any]) -> dict[int, dict[str, Tensor]]:
        """Return index -> state of the members that were kept for a committee of exactly this record."""
        if not self._has_parts(number, record):
            return {}
        paths = (self._folder / f"{_PARTS}{number}").glob(_member(Path(), "*").name)
        states = {int(path.stem): _read(path) for path in sorted(paths)}
        return {index: state for index, state in states.items() if state is not None}

    def _has_parts(self, number: int, record: Mapping[str, Any]) -> bool:
        try:
            written: object = json.loads((self._folder / f"{_PARTS}{number}" / _RECORD).read_bytes())
        except READING_ERRORS:
            return False
        return bool(written == json.loads(_json(dict(record))))


def _member(folder: Path, index: int | str) -> Path:
    return folder / f"{index}.safetensors"


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1, allow_nan=False).encode()


def _read(path: Path) -> dict[str, Tensor] | None:
    """Read a state onto the CPU, or return None where the file cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        state: dict[str, Tensor] = load(path.read_bytes())
    except (OSError, SafetensorError):
        return None
    return state
