"""Files that pictures are drawn from, kept in one folder up to a number of bytes.

A name is the digest of all that a file was made of, so files never change, and nothing that comes from outside is part
of a path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

_SUFFIX, _PART_SUFFIX = ".picture", ".part"
_PART_SECONDS = 3600.0  # a partial file older than this was left by a process that died
_KEPT_SHARE = 0.9  # an eviction makes room for many files: each one reads the whole folder


def key_of(*parts: str | int | None) -> str:
    """Return the name of what is made of these parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


class PictureCache:
    """Files by key; safe for several threads, and for a second process in the same folder.

    Args:
        max_bytes: files used least recently are deleted beyond this many bytes.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._lock = threading.Lock()
        self._room: int | None = None  # bytes that may be added before the folder is read again

    def get(self, key: str) -> bytes | None:
        """Return a file, and note that it was used; None where it is not there."""
        path = self._folder / f"{key}{_SUFFIX}"
        now = time.time_ns()
        try:
            content = path.read_bytes()
            os.utime(path, ns=(now, now))
        except OSError:
            return None
        return content

    def put(self, key: str, content: bytes) -> None:
        """Keep a file. A disk that refuses is no reason to show nothing: it is logged."""
        try:
            self._write(self._folder / f"{key}{_SUFFIX}", content)
        except OSError as error:
            logger.warning("a picture cannot be kept in %s: %s", self._folder, error.strerror or error)

    def made(self, key: str, make: Callable[[], bytes]) -> bytes:
        """Return a file, made where it is not there."""
        content = self.get(key)
        if content is None:
            content = make()
            self.put(key, content)
        return content

    def _write(self, path: Path, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._folder, suffix=_PART_SUFFIX)
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        with self._lock:
            self._make_room(len(content), path.name)

    def _make_room(self, added: int, newest: str) -> None:
        """Count what was added; read the folder when it may be full, or when another process may have added much."""
        if self._room is not None:
            self._room -= added
            if self._room >= 0:
                return
        files = sorted(self._stored())
        total = sum(size for _, size, _ in files)
        if total > self._max_bytes:
            for _, size, path in files:
                if total <= _KEPT_SHARE * self._max_bytes:
                    break
                if path.name != newest:
                    path.unlink(missing_ok=True)
                    total -= size
        self._room = min(self._max_bytes - total, self._max_bytes // 20)

    def _stored(self) -> Iterator[tuple[int, int, Path]]:
        """Yield last use, bytes and path of each file; remove what dead processes left."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    status = entry.stat()
                    if entry.name.endswith(_SUFFIX):
                        yield status.st_mtime_ns, status.st_size, Path(entry.path)
                    elif entry.name.endswith(_PART_SUFFIX) and time.time() - status.st_mtime > _PART_SECONDS:
                        Path(entry.path).unlink(missing_ok=True)
