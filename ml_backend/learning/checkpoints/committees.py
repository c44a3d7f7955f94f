"""Committees of networks, each belonging to a version; and the members of a committee that is being trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ml_backend.errors import CheckpointError
from ml_backend.learning.checkpoints.files import READING_ERRORS, now, serialise
from ml_backend.system.files import Files, is_number

if TYPE_CHECKING:
    from torch import Tensor

_FORMAT = 1
COMMITTEES: Final = "committees"
_RECORD = "committee.json"
_PARTS = ".parts-"
_MEMBER = ".safetensors"
_KEPT = 2
"""Committees that stay: that of the published version, and the previous committee for a rollback."""


class Committees:
    """The committees of a project's versions. Any number of processes may read while one writes.

    Args:
        files: of the project's model; they are in a folder of these, with the members of unfinished ones.
    """

    def __init__(self, files: Files) -> None:
        self._files = files

    # -- reading -----------------------------------------------------------------------------------------------------

    def record(self, number: int) -> dict[str, Any] | None:
        """Return the record of a version's committee: as given to `put`, with `members` and `created_at`.

        None without a committee, or where a file of it is missing or not what was written.
        """
        files = self._files.below(f"{COMMITTEES}/{number}")
        try:
            content = json.loads(files.read(_RECORD))
            whole = content["format"] == _FORMAT and all(
                files.state(_member(index)).size and files.digest(_member(index)) in {None, digest}
                for index, digest in enumerate(content["sha256"])
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
        files = self._files.below(f"{COMMITTEES}/{number}")
        states = [_read(files, _member(index)) for index in range(record["members"])]
        whole = [state for state in states if state is not None]
        return whole if len(whole) == len(states) else None

    # -- writing -----------------------------------------------------------------------------------------------------

    def put(self, number: int, states: Sequence[Mapping[str, Tensor]], record: Mapping[str, Any]) -> None:
        """Write the committee of a version, replacing an earlier committee of it.

        Its parts are removed, and so are the committees of all other versions but the newest.

        Args:
            states: the members' `state_dict()`, on any device.
            record: what the committee was trained on and how, as JSON values.

        Raises:
            CheckpointError: the disk refuses (full, read-only, …).
        """
        try:
            with self._files.writing(COMMITTEES):
                self._files.write_together(f"{COMMITTEES}/{number}", _contents(states, record))
                self._remove_parts()
                self._remove_old(number)
        except OSError as error:
            raise CheckpointError(f"A committee cannot be written to {self._files.where}: {error}.") from error

    def _remove_old(self, written: int) -> None:
        numbers = sorted(int(name) for name in self._files.names(COMMITTEES) if is_number(name))
        others = [number for number in numbers if number != written]
        for number in others[: len(others) - (_KEPT - 1)]:
            self._files.remove_together(f"{COMMITTEES}/{number}")

    def _remove_parts(self) -> None:
        for name in self._files.names(COMMITTEES):
            if name.startswith(_PARTS):
                self._files.remove_together(f"{COMMITTEES}/{name}")

    # -- members of a committee that is being trained ----------------------------------------------------------------

    def keep_part(self, number: int, index: int, state: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Keep a member that is ready until the committee is; parts of another record are removed.

        Raises:
            CheckpointError: the disk refuses.
        """
        parts = f"{COMMITTEES}/{_PARTS}{number}"
        try:
            with self._files.writing(COMMITTEES):
                if not self._has_parts(number, record):
                    self._remove_parts()
                    self._files.write(f"{parts}/{_RECORD}", _json(dict(record)))
                self._files.write(f"{parts}/{_member(index)}", serialise(state))
        except OSError as error:
            raise CheckpointError(f"A committee cannot be written to {self._files.where}: {error}.") from error

    def parts(self, number: int, record: Mapping[str, Any]) -> dict[int, dict[str, Tensor]]:
        """Return index -> state of the members that were kept for a committee of exactly this record."""
        if not self._has_parts(number, record):
            return {}
        files = self._files.below(f"{COMMITTEES}/{_PARTS}{number}")
        indices = [name.removesuffix(_MEMBER) for name in files.names() if name.endswith(_MEMBER)]
        states = {int(index): _read(files, _member(index)) for index in indices if index.isdigit()}
        return {index: state for index, state in states.items() if state is not None}

    def _has_parts(self, number: int, record: Mapping[str, Any]) -> bool:
        try:
            written: object = json.loads(self._files.read(f"{COMMITTEES}/{_PARTS}{number}/{_RECORD}"))
        except READING_ERRORS:
            return False
        return bool(written == json.loads(_json(dict(record))))


def _contents(states: Iterable[Mapping[str, Tensor]], record: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of a committee's files, one network in memory at a time; the record comes last."""
    digests = []
    for index, state in enumerate(states):
        member = serialise(state)
        digests.append(hashlib.sha256(member).hexdigest())
        yield _member(index), member
    yield _RECORD, _json({"format": _FORMAT, "record": dict(record) | {"created_at": now()}, "sha256": digests})


def _member(index: int | str) -> str:
    return f"{index}{_MEMBER}"


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1, allow_nan=False).encode()


def _read(files: Files, key: str) -> dict[str, Tensor] | None:
    """Read a state onto the CPU, or return None where the file cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        state: dict[str, Tensor] = load(files.read(key))
    except (OSError, SafetensorError):
        return None
    return state
