"""Files that pictures are drawn from, each under a digest of all that it was made of."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ml_backend.system.bounded_folder import BoundedFolder, touch

logger = logging.getLogger(__name__)

KEPT_BYTES: Final = 1_000_000_000
"""Of the files on disk."""


def key_of(*parts: str | int | None) -> str:
    """Return the name of a file that is made of these parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


class PictureCache:
    """Files by key; safe for several threads, and for a second process in the same folder.

    Args:
        max_bytes: files used least recently are deleted beyond this many bytes.
    """

    def __init__(self, folder: Path, *, max_bytes: int = KEPT_BYTES) -> None:
        self._folder = BoundedFolder(folder, suffix=".picture", max_bytes=max_bytes)

    def get(self, key: str) -> bytes | None:
        """Return a file, and mark it as used; None where it is not there."""
        file = self._folder.file(key)
        try:
            return file.read_bytes() if touch(file) else None
        except OSError:
            return None

    def put(self, key: str, content: bytes) -> None:
        """Keep a file. A disk that refuses is no reason to show nothing: it is logged."""
        try:
            with self._folder.adding(self._folder.file(key)) as file:
                file.write(content)
        except OSError as error:
            logger.warning("a picture cannot be kept in %s: %s", self._folder.path, error.strerror or error)

    def made(self, key: str, make: Callable[[], bytes]) -> bytes:
        """Return a file, made where it is not there."""
        content = self.get(key)
        if content is None:
            content = make()
            self.put(key, content)
        return content
