"""A cache folder of bounded size: the files used least recently are deleted.

The names of files are digests of their content or source: a file never changes, and no text from outside is part of a
path.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ml_backend.system.whole_files import PART

_PART_SECONDS = 3600.0  # a partial file older than this was left by a process that died
_KEPT_SHARE = 0.9  # an eviction reads the whole folder, so it makes room for several files


class BoundedFolder:
    """A cache folder, safe to use from many threads and processes.

    Args:
        path: of the folder; it is made when needed.
        suffix: end of the names of its files.
        max_bytes: when the folder is larger, the files used least recently are deleted.
        in_use: returns the names of the files that this process must not delete now.
    """

    def __init__(
        self, path: Path, *, suffix: str, max_bytes: int, in_use: Callable[[], Collection[str]] = tuple
    ) -> None:
        self.path = path
        self._suffix, self._max_bytes, self._in_use = suffix, max_bytes, in_use
        self._lock = threading.Lock()
        self._room: int | None = None  # bytes that may be added before the folder is read again

    def file(self, key: str) -> Path:
        """Return the path of the file of a key, whether it exists or not."""
        return self.path / f"{key}{self._suffix}"

    @contextmanager
    def adding(self, file: Path) -> Iterator[IO[bytes]]:
        """Yield a file to write. At the end of the block it gets its name; after an error it is removed.

        Raises:
            OSError: the disk refuses.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path, suffix=PART)
        os.close(handle)
        part = Path(name)
        try:
            with part.open("wb") as target:
                yield target
            size = part.stat().st_size
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
        self._make_room(size, file.name)

    def _make_room(self, added: int, newest: str) -> None:
        """Count the bytes added; read the folder when it may be full, or when other processes may have added much."""
        with self._lock:
            if self._room is not None:
                self._room -= added
                if self._room >= 0:
                    return
            total = self._evict({newest, *self._in_use()})
            self._room = min(self._max_bytes - total, self._max_bytes // 20)

    def _evict(self, keep: Collection[str]) -> int:
        """Delete the files used least recently until the rest fits; return the bytes that stay."""
        files = sorted(self._stored())
        total = sum(size for _, size, _ in files)
        if total <= self._max_bytes:
            return total
        for _, size, file in files:
            if total <= _KEPT_SHARE * self._max_bytes:
                break
            if file.name not in keep:
                file.unlink(missing_ok=True)
                total -= size
        return total

    def _stored(self) -> Iterator[tuple[int, int, Path]]:
        """Yield last use (ns), bytes and path of each file; remove partial files of dead processes."""
        with os.scandir(self.path) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    status = entry.stat()
                    if entry.name.endswith(self._suffix):
                        yield status.st_mtime_ns, status.st_size, Path(entry.path)
                    elif entry.name.endswith(PART) and time.time() - status.st_mtime > _PART_SECONDS:
                        Path(entry.path).unlink(missing_ok=True)


def touch(file: Path) -> bool:
    """Mark a file as used now; return whether it exists and may be changed."""
    now = time.time_ns()
    try:
        os.utime(file, ns=(now, now))
    except OSError:
        return False
    return True
