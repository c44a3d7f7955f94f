"""Files whose names carry their content's digest: written whole or not at all, and never changed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

PART = ".part"
"""End of the names of files that are being written."""


def write_once(path: Path, content: bytes) -> str:
    """Write a file where there is none yet, or one that a power failure left empty; return its path as text."""
    if not _has_size(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=PART)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)  # where the disk was full: no use to anybody
    return str(path)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
