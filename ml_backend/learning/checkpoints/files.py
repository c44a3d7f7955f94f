"""Files that a reader, or a power failure, sees whole or not at all; and the states of networks in them.

POSIX only (flock; a folder that can be flushed).
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

READING_ERRORS = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading a damaged file into a record may raise."""
UNFINISHED = ".unfinished-"
"""Prefix of the names of files and folders that are being written; the holder of the lock may remove them."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for the lock on a file, and hold it: the kernel lets go of it, also when the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sha256(path: Path) -> str:
    """Return the digest of a file; it is read once as long as it is the same file.

    Raises:
        OSError: it cannot be read.
    """
    status = path.stat()
    return _sha256(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _sha256(path: Path, _inode: int, _size: int, _modified: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def serialise(state: Mapping[str, Tensor]) -> bytes:
    """Return a network's state, on any device, in the safetensors format."""
    from safetensors.torch import save  # torch is slow to import and status pages do without it

    # cloned, because safetensors refuses tensors that share memory or are laid out channels-last
    data: bytes = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()})
    return data


def is_number(name: str) -> bool:
    """Whether a name is that of a version: a positive decimal number without leading zeros."""
    return name.isascii() and name.isdigit() and len(name) < 12 and not name.startswith("0")


def read_number(path: Path) -> int | None:
    """Read a file that holds a number; None where it is missing or holds anything else."""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if is_number(text) else None


def write_number(path: Path, number: int) -> None:
    """Replace a file that holds a number so that a reader, or a power failure, sees the old or the new number."""
    temporary = path.with_name(f".{path.name}")  # always the same name: the lock is held
    write_file(temporary, f"{number}\n".encode())
    temporary.replace(path)
    flush_folder(path.parent)


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


def now() -> str:
    """Return the current time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
