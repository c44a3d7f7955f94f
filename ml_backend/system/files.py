"""Files by key: those that an installation must not lose, in a folder or, with `bucket`, in an object store.

A key is the path of a file below MODEL_DIR, with slashes: `projects/7/masks/12-0f3a.png`. Database and records name
files by their keys only, so that MODEL_DIR may be moved.

A reader, or a power failure, sees a file whole or not at all, and so it sees what was written together. POSIX only
(flock; a folder that can be flushed).
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
from collections.abc import Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from ml_backend.system.whole_files import write_once

UNFINISHED = ".unfinished-"
"""Prefix of the names of files and folders that are being written; the holder of the lock may remove them."""


class State(NamedTuple):
    """What is known of a file without reading it: its bytes, and what is another value when the file is another."""

    size: int
    mark: Hashable


class Files(Protocol):
    """Files by key, for any number of readers, and one writer at a time of what is not named after its content.

    A file that is missing raises FileNotFoundError. What else a disk refuses is another OSError; a bucket that cannot
    be used raises FilesUnavailable.
    """

    def __hash__(self) -> int:
        """Return the same number for equal files: what is read of them may be remembered."""

    @property
    def where(self) -> str:
        """The folder, or the address of the bucket, for messages."""

    def below(self, folder: str) -> Files:
        """Return the files below a folder, whose keys begin there."""

    # -- reading ------------------------------------------------------------------------------------------------------
    def read(self, key: str) -> bytes:
        """Return the content of a file."""

    def local(self, key: str) -> Path:
        """Return a path on this machine that has the content of a file."""

    def lasting(self, key: str, folder: Path) -> Path:
        """Return a path on this machine that stays: the file's own, or in a folder a copy of it, since caches forget.

        Args:
            folder: of copies; they are named after the file, which has to be named after its content.
        """

    def state(self, key: str) -> State:
        """Return what is known of a file without reading it."""

    def changes(self, folder: str) -> Hashable:
        """Return what is another value when files of a folder came or went, where that is known without a list."""

    def digest(self, key: str) -> str | None:
        """Return the SHA-256 of a file as it is now; None where the store itself vouches for what it keeps."""

    def names(self, folder: str = "") -> list[str]:
        """Return the names of files and folders in a folder, sorted; none where there is no such folder."""

    # -- writing ------------------------------------------------------------------------------------------------------
    def write(self, key: str, content: bytes) -> None:
        """Write or replace a file, and wait until it cannot get lost."""

    def write_once(self, key: str, content: bytes) -> str:
        """Write a file that is named after its content, unless it is there; return the key."""

    def write_together(self, folder: str, contents: Iterable[tuple[str, bytes]]) -> None:
        """Write files into a folder of their own; they appear together, in place of an earlier folder.

        Args:
            contents: name and content of each, asked for one at a time; the last one makes the others valid.
        """

    def remove(self, key: str) -> None:
        """Remove a file, if it is there."""

    def remove_together(self, folder: str) -> None:
        """Remove a folder, if it is there, so that nobody sees a part of it."""

    def writing(self, folder: str) -> AbstractContextManager[None]:
        """Let one process at a time write below a folder, and remove there what a killed writer left."""

    def working_copy(self, key: str) -> AbstractContextManager[Path]:
        """Yield a path on this machine with a file's content, if it has any; what is changed there is kept."""

    def highest(self, key: str) -> int:
        """Return the highest number that was taken under a key; 0 when none was."""

    def take(self, key: str, number: int) -> bool:
        """Take a number under a key, for ever; return whether nobody has it. Called while `writing`."""


@dataclass(frozen=True)
class Folder:
    """Files in a folder, which is made when the first is written. See `Files`."""

    root: Path

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.root)

    def below(self, folder: str) -> Folder:
        """Return the files below a folder."""
        return Folder(self.root / folder)

    def read(self, key: str) -> bytes:
        """Return the content of a file."""
        return self.local(key).read_bytes()

    def local(self, key: str) -> Path:
        """Return the path of a file."""
        return self.root / key

    def lasting(self, key: str, folder: Path) -> Path:  # noqa: ARG002 (that of `Files`)
        """Return the path of a file."""
        return self.local(key)

    def changes(self, folder: str) -> Hashable:
        """Return what moves whenever a file of a folder comes or goes; None where there is no such folder."""
        try:
            return self.state(folder).mark
        except FileNotFoundError:
            return None

    def state(self, key: str) -> State:
        """Return what is known of a file without reading it."""
        status = self.local(key).stat()
        return State(status.st_size, (status.st_ino, status.st_size, status.st_mtime_ns))

    def digest(self, key: str) -> str | None:
        """Return the SHA-256 of a file; it is read once as long as it is the same file."""
        return _sha256(self.local(key), self.state(key).mark)

    def names(self, folder: str = "") -> list[str]:
        """Return the names of files and folders in a folder, sorted."""
        try:
            return sorted(path.name for path in self.local(folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def write(self, key: str, content: bytes) -> None:
        """Write or replace a file, and wait until the disk has it."""
        path = self.local(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{UNFINISHED}{path.name}")  # always the same name: there is one writer
        write_file(temporary, content)
        temporary.replace(path)
        flush_folder(path.parent)

    def write_once(self, key: str, content: bytes) -> str:
        """Write a file that is named after its content, unless it is there; return the key."""
        write_once(self.local(key), content)
        return key

    def write_together(self, folder: str, contents: Iterable[tuple[str, bytes]]) -> None:
        """Write files into a folder under another name, and rename it."""
        final = self.local(folder)
        unfinished = final.with_name(f"{UNFINISHED}{final.name}")
        unfinished.mkdir(parents=True)
        for name, content in contents:
            write_file(unfinished / name, content)
        flush_folder(unfinished)
        self.remove_together(folder)
        unfinished.rename(final)
        flush_folder(final.parent)

    def remove(self, key: str) -> None:
        """Remove a file, if it is there."""
        self.local(key).unlink(missing_ok=True)

    def remove_together(self, folder: str) -> None:
        """Rename a folder out of sight, then remove it: a killed process leaves it whole, or unseen."""
        path = self.local(folder)
        gone = path.with_name(f"{UNFINISHED}{path.name}-removed")
        try:
            path.rename(gone)
        except FileNotFoundError:
            return
        flush_folder(path.parent)
        shutil.rmtree(gone, ignore_errors=True)

    @contextmanager
    def writing(self, folder: str) -> Iterator[None]:
        """Hold the lock of these files: the kernel lets go of it, also when the process is killed."""
        self.local(folder).mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._remove_unfinished(folder)
            try:
                yield
            finally:
                self._remove_unfinished(folder)

    def working_copy(self, key: str) -> AbstractContextManager[Path]:
        """Yield the path of a file."""
        return nullcontext(self.local(key))

    def _remove_unfinished(self, folder: str) -> None:
        """Remove what a killed or failed writer left; the holder of the lock is the only living writer."""
        for path in self.local(folder).glob(f"{UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def highest(self, key: str) -> int:
        """Return the number in a file; 0 where it is missing or holds anything else."""
        try:
            text = self.local(key).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return 0
        return int(text) if is_number(text) else 0

    def take(self, key: str, number: int) -> bool:
        """Write a number into a file."""
        self.write(key, f"{number}\n".encode())
        return True


@functools.lru_cache(maxsize=1024)
def _sha256(path: Path, _mark: Hashable) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def is_number(name: str) -> bool:
    """Whether a name is that of a version: a positive decimal number without leading zeros."""
    return name.isascii() and name.isdigit() and len(name) < 12 and not name.startswith("0")


def write_file(path: Path, data: bytes) -> None:
    """Write a file, and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Wait until the disk knows which files were made, renamed or removed in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
