"""Files that are named after the digest of their content: written as a whole or not at all, and never changed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

PART = ".part"
"""End of the names of files that are not complete."""


def write_once(path: Path, content: bytes) -> str:
    """Write a file unless it exists with the same size (a power failure may leave it empty); return its path as text.

    Raises:
        OSError: the disk refuses.
    """
    if not _has_size(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=PART)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)  # only there when the disk was full
    return str(path)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
