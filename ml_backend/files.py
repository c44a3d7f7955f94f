"""Files whose names carry their content's digest: written whole or not at all, and never changed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

PART = ".part"
"""End of the names of files that are being written."""


def write_once(path: Path, content: bytes) -> str:
    """Write a file where there is none yet; return its path as text."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=PART)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    return str(path)
