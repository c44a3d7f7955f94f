"""Free space below MODEL_DIR: how much there is, which errors mean that there is none, and the error to raise then."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_backend.errors import DiskFull

RESERVE = 32 * 1024 * 1024
"""Bytes that must be free before work on a project begins, so that the database can still store why it does not."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SQLITE_FULL = "database or disk is full"
_SQLITE_ERROR = "disk I/O error"


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, means that a disk, quota or limit is used up."""
    while error is not None:
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in _FULL):
            return True
        if _SQLITE_FULL in str(error).partition("\n")[0]:
            return True
        error = error.__cause__ or error.__context__
    return False


def free_bytes(folder: Path) -> int:
    """Return the free bytes below a folder, which need not exist."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def disk_full(folder: Path, needed: int = RESERVE) -> DiskFull:
    """Return an error that says how many bytes to free below a folder.

    Args:
        folder: MODEL_DIR.
        needed: bytes that the failed work needs.
    """
    short = max(needed, RESERVE) - free_bytes(folder)
    what = f"free {short:,} bytes" if short > 0 else f"give it more than {max(needed, RESERVE):,} free bytes"
    return DiskFull(f"Disk full: {what} under MODEL_DIR = {folder}. Work goes on by itself then.", needed=needed)


def shortage(folder: Path, needed: int = RESERVE) -> DiskFull | None:
    """Return the error of `disk_full` when fewer than `needed` bytes are free below a folder; else None."""
    return disk_full(folder, needed) if free_bytes(folder) < needed else None


@contextmanager
def naming_full_disk(folder: Path, needed: int = RESERVE) -> Iterator[None]:
    """Raise DiskFull in place of errors that mean a full disk.

    SQLite reports "disk I/O error" when its shared memory cannot grow. With little free space, that means a full disk,
    too.

    Args:
        folder: MODEL_DIR.
        needed: bytes that the work needs.

    Raises:
        DiskFull: the disk, quota or limit is used up.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        no_room = _SQLITE_ERROR in str(error).partition("\n")[0] and free_bytes(folder) < RESERVE
        if not is_full(error) and not no_room:
            raise
        raise disk_full(folder, needed) from error
