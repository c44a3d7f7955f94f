"""Room under MODEL_DIR: whether a failure means that there is none, and the error that says so."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_backend.errors import DiskFull

RESERVE = 32 * 1024 * 1024
"""Bytes that must be free before a project is worked on: what is left over is for the state, which says why not."""
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
    """Return how many bytes may still be written below a folder, which need not be there yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def disk_full(folder: Path, needed: int = RESERVE) -> DiskFull:
    """Return the error to raise: what is to be freed, and where."""
    short = max(needed, RESERVE) - free_bytes(folder)
    what = f"free {short:,} bytes" if short > 0 else f"give it more than {max(needed, RESERVE):,} free bytes"
    return DiskFull(f"Disk full: {what} under MODEL_DIR = {folder}. Work goes on by itself then.", needed=needed)


def shortage(folder: Path, needed: int = RESERVE) -> DiskFull | None:
    """Return the error where fewer bytes are free than `needed`, else None."""
    return disk_full(folder, needed) if free_bytes(folder) < needed else None


@contextmanager
def naming_full_disk(folder: Path, needed: int = RESERVE) -> Iterator[None]:
    """Raise DiskFull in the place of errors that mean it.

    SQLite says only "disk I/O error" where its shared memory cannot grow: without free room, that means it, too.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        in_vain = _SQLITE_ERROR in str(error).partition("\n")[0] and free_bytes(folder) < RESERVE
        if not is_full(error) and not in_vain:
            raise
        raise disk_full(folder, needed) from error
