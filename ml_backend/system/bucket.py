"""Files in an object store, by fsspec: S3 and what speaks its protocol, Google's and Azure's.

An object store has neither locks nor renames. A single object appears whole, or not at all; of files that were written
together, the last makes the others valid: a folder without its record is not there yet. Numbers are taken by objects
that can be made once only. There is one writer, the holder of the project's lease, as with a folder.

What is read is kept in a bounded folder on this machine, under names that change with the content.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import logging
import re
import threading
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from ml_backend.errors import DiskFull, FilesUnavailable, NextmaskError
from ml_backend.system.bounded_folder import BoundedFolder, touch
from ml_backend.system.disk import naming_full_disk
from ml_backend.system.files import State, is_number
from ml_backend.system.whole_files import write_once

logger = logging.getLogger(__name__)

LISTED_SECONDS = 2.0
"""How long a list of objects is believed; who misses an object in it asks again."""
FAILED_SECONDS = 5.0
"""How long a bucket that could not be listed is not asked for a list again."""
_LEFT_SECONDS = 3600.0
"""Age from which files without their record are what a killed writer left."""
AT_ONCE = 64_000_000
"""Bytes that are fetched with one request."""
_ATTEMPTS: Final = 3
_SAME_FOR_EVER: Final = re.compile(r"-[0-9a-f]{20}\.\w+$", re.ASCII)
"""End of the names of files that are named after their content."""
_RECORD: Final = ".json"
_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60}},
}
"""Options of drivers; credentials and addresses come from the environment, or from where the driver looks for them."""


@dataclass(frozen=True)
class _Object:
    size: int
    mark: str
    written_at: float | None


@dataclass(frozen=True)
class Bucket:
    """Files in an object store. See `Files`; all that fails for another reason than a missing file is FilesUnavailable.

    Attributes:
        url: of the bucket and a prefix in it, such as `s3://bucket/nextmask`.
        cache: folder on this machine for what was read.
        cache_bytes: bytes that it holds; what was used least recently leaves.
        prefix: of the keys.
    """

    url: str
    cache: Path
    cache_bytes: int
    prefix: str = ""

    @property
    def where(self) -> str:
        """The address."""
        return f"{self.url}/{self.prefix}".rstrip("/")

    def below(self, folder: str) -> Bucket:
        """Return the files below a folder."""
        return Bucket(self.url, self.cache, self.cache_bytes, self._full(folder))

    # -- reading ------------------------------------------------------------------------------------------------------
    def read(self, key: str) -> bytes:
        """Return the content of a file, from this machine where it was read before.

        A disk without room for it keeps nobody from reading.
        """
        for _ in range(_ATTEMPTS):
            try:
                path = self.local(key)
            except DiskFull:
                break
            with suppress(FileNotFoundError):  # evicted by another process
                return path.read_bytes()
        return b"".join(self._fetched(key, None))

    def local(self, key: str) -> Path:
        """Return a path on this machine that has the content of a file.

        Raises:
            DiskFull: there is no room for it.
        """
        state = None if _SAME_FOR_EVER.search(key) else self.state(key)
        file = self._store.kept.file(self._name(key, state))
        if not touch(file):
            with naming_full_disk(self.cache), self._store.kept.adding(file) as target:
                for part in self._fetched(key, state):
                    target.write(part)
        return file

    def lasting(self, key: str, folder: Path) -> Path:
        """Return a copy of a file in a folder."""
        return Path(write_once(folder / f"copy-{key.rpartition('/')[2]}", self.read(key)))

    def changes(self, folder: str) -> Hashable:  # noqa: ARG002 (that of `Files`)
        """Return None: all files would have to be listed."""
        return None

    def state(self, key: str) -> State:
        """Return what is known of a file without reading it."""
        found = self._find(key)
        if found is None:
            raise _missing(self._full(key))
        return State(found.size, (found.size, found.mark))

    def digest(self, key: str) -> str | None:  # noqa: ARG002 (that of `Files`)
        """Return None: object stores check what they keep."""
        return None

    def names(self, folder: str = "") -> list[str]:
        """Return the names of files and folders in a folder, sorted; what is without its record is left out."""
        inside = f"{self._full(folder)}/".lstrip("/")
        found = [key.removeprefix(inside) for key in self._store.listed(_root(inside)) if key.startswith(inside)]
        unfinished = _without_record(found)
        return sorted({name.partition("/")[0] for name in found} - unfinished)

    # -- writing ------------------------------------------------------------------------------------------------------
    def write(self, key: str, content: bytes) -> None:
        """Write or replace a file."""
        with self._naming_problems(key, writes=True):
            self._store.system.pipe_file(self._path(key), content)
        self._store.forget(self._full(key))

    def write_once(self, key: str, content: bytes) -> str:
        """Write a file that is named after its content; return the key. It is kept here, too: it is read soon."""
        self.write(key, content)
        if _SAME_FOR_EVER.search(key):
            file = self._store.kept.file(self._name(key, None))
            with suppress(OSError), self._store.kept.adding(file) as target:
                target.write(content)
        return key

    def write_together(self, folder: str, contents: Iterable[tuple[str, bytes]]) -> None:
        """Write files into a folder of their own; readers see them with the last one."""
        self.remove_together(folder)
        for name, content in contents:
            self.write(f"{folder}/{name}", content)

    def remove(self, key: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError), self._naming_problems(key):
            self._store.system.rm_file(self._path(key))
        self._store.forget(self._full(key))

    def remove_together(self, folder: str) -> None:
        """Remove a folder, its record first."""
        inside = f"{self._full(folder)}/"
        self._store.forget(inside)
        keys = [key for key in self._store.listed(_root(inside)) if key.startswith(inside)]
        for key in sorted(keys, key=lambda key: (not key.endswith(_RECORD), key)):
            self._top.remove(key)

    @contextmanager
    def writing(self, folder: str) -> Iterator[None]:
        """Remove what a killed writer left an hour ago; the lease of the project lets one process at a time write."""
        inside = f"{self._full(folder)}/"
        self._store.forget(inside)
        objects = {key: it for key, it in self._store.listed(_root(inside)).items() if key.startswith(inside)}
        for name in _without_record([key.removeprefix(inside) for key in objects]):
            left = {key: it for key, it in objects.items() if key.startswith(f"{inside}{name}/")}
            if all(it.written_at is not None and time.time() - it.written_at > _LEFT_SECONDS for it in left.values()):
                for key in left:
                    self._top.remove(key)
        yield

    def highest(self, key: str) -> int:
        """Return the highest number that was taken under a key; 0 when none was."""
        folder, _, name = self._full(key).rpartition("/")
        names = self._top.names(folder)
        taken = [found.removeprefix(f"{name}.") for found in names if found.startswith(f"{name}.")]
        if name in names:  # as a folder has it: this was copied from one
            taken.append(self.read(key).decode("ascii", "replace").strip())
        return max((int(number) for number in taken if is_number(number)), default=0)

    def take(self, key: str, number: int) -> bool:
        """Make the object of a number, unless it is there."""
        path = self._path(f"{key}.{number}")
        with self._naming_problems(key, writes=True):
            try:
                self._store.system.pipe_file(path, f"{number}\n".encode(), mode="create")
            except OSError:  # stores call it by different names that an object exists
                if self._store.system.exists(path):
                    return False
                raise
        self._store.forget(self._full(key))
        return True

    @contextmanager
    def working_copy(self, key: str) -> Iterator[Path]:
        """Yield a path on this machine with a file's content, if it has any; what is changed there goes back."""
        path = self.cache / "work" / hashlib.sha256(f"{self.url} {self._full(key)}".encode()).hexdigest()
        with naming_full_disk(self.cache):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.write_bytes(self.read(key))
            except FileNotFoundError:
                path.unlink(missing_ok=True)
        before = path.stat().st_mtime_ns if path.exists() else None
        try:
            yield path
        finally:
            if path.exists() and path.stat().st_mtime_ns != before:
                try:
                    self.write(key, path.read_bytes())
                except FilesUnavailable as error:  # what is learned there can be learned again
                    logger.warning("%s is not kept: %s", key, error)
            path.unlink(missing_ok=True)

    def try_out(self) -> None:
        """Write, list, read and remove small objects, one of which is to be made once only.

        Raises:
            FilesUnavailable: one of these cannot be done.
        """
        key = f"nextmask-doctor-{uuid4().hex}"
        self.write(key, b"nextmask")
        try:
            self.names()
            if b"".join(self._fetched(key, None)) != b"nextmask":
                raise FilesUnavailable(f"{self.where} answers with other content than was written to it.")
            self.take(key, 1)
            if self.take(key, 1):
                raise FilesUnavailable(
                    f"{self.where} lets two writers make the same object: it passes over If-None-Match.",
                    "Take a store with conditional writes, else two workers could write one model version.",
                )
        finally:
            self.remove(key)
            self.remove(f"{key}.1")

    # -- inside -------------------------------------------------------------------------------------------------------
    @property
    def _store(self) -> _Store:
        return _open(self.url, self.cache, self.cache_bytes)

    @property
    def _top(self) -> Bucket:
        return Bucket(self.url, self.cache, self.cache_bytes)

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{key}".strip("/")

    def _path(self, key: str) -> str:
        return f"{self._store.root}/{self._full(key)}"

    def _name(self, key: str, state: State | None) -> str:
        """Return the name under which a file is kept on this machine."""
        return hashlib.sha256(f"{self.url} {self._full(key)} {state and state.mark}".encode()).hexdigest()

    def _find(self, key: str) -> _Object | None:
        full = self._full(key)
        root = _root(full.rpartition("/")[0])
        found = self._store.listed(root).get(full)
        if found is None:  # perhaps it is new
            self._store.forget(full)
            found = self._store.listed(root).get(full)
        return found

    def _fetched(self, key: str, state: State | None) -> Iterator[bytes]:
        """Yield the content of a file, in parts where it is known to be large."""
        path, size = self._path(key), state.size if state else 0
        if size <= AT_ONCE:
            with self._naming_problems(key):
                content = self._store.system.cat_file(path)
            yield content
            return
        for start in range(0, size, AT_ONCE):
            with self._naming_problems(key):
                part = self._store.system.cat_file(path, start=start, end=min(start + AT_ONCE, size))
            yield part

    def _naming_problems(self, key: str, *, writes: bool = False) -> Any:
        return _naming_problems(self.url, self._full(key), writes=writes)


class _Store:
    """An open bucket: its driver, what was listed, and what is kept of it on this machine."""

    def __init__(self, url: str, cache: Path, cache_bytes: int) -> None:
        scheme = url.partition("://")[0]
        with _naming_problems(url, ""):
            import fsspec

            self.system, root = fsspec.core.url_to_fs(url, use_listings_cache=False, **_OPTIONS.get(scheme, {}))
        self.root = str(root).rstrip("/")
        self.kept = BoundedFolder(cache, suffix=".file", max_bytes=cache_bytes)
        self._url = url
        self._lists: dict[str, tuple[float, dict[str, _Object]]] = {}
        self._failed: tuple[float, FilesUnavailable | None] = (0.0, None)
        self._lock = threading.Lock()

    def listed(self, folder: str) -> dict[str, _Object]:
        """Return the objects below a folder by their keys."""
        with self._lock:
            listed_at, objects = self._lists.get(folder, (-LISTED_SECONDS, {}))
            if time.monotonic() - listed_at < LISTED_SECONDS:
                return objects
            failed_at, failure = self._failed
            if failure is not None and time.monotonic() - failed_at < FAILED_SECONDS:
                raise FilesUnavailable(failure.cause, failure.remedy)  # many may ask, and each would wait
            try:
                with _naming_problems(self._url, folder):
                    found = self.system.find(f"{self.root}/{folder}".rstrip("/"), detail=True)
            except FileNotFoundError:
                found = {}
            except FilesUnavailable as error:
                self._failed = (time.monotonic(), error)
                raise
            objects = {path[len(self.root) :].strip("/"): _object(info) for path, info in found.items()}
            self._lists[folder] = (time.monotonic(), objects)
            return objects

    def forget(self, key: str) -> None:
        """Let lists that would hold a key be asked for anew."""
        with self._lock:
            for folder in [folder for folder in self._lists if not folder or f"{key}/".startswith(f"{folder}/")]:
                del self._lists[folder]


@functools.lru_cache(maxsize=16)
def _open(url: str, cache: Path, cache_bytes: int) -> _Store:
    return _Store(url, cache, cache_bytes)


def _root(folder: str) -> str:
    """Return the folder that is listed for one below it: masks or model of a project, `projects/7/model`."""
    return "/".join(folder.strip("/").split("/")[:3])


def _without_record(names: Iterable[str]) -> set[str]:
    """Return the numbered folders among paths, versions and committees, that have files and no record among them."""
    files: dict[str, list[str]] = {}
    for name in names:
        folder, slash, file = name.partition("/")
        if slash and "/" not in file and is_number(folder):
            files.setdefault(folder, []).append(file)
    return {folder for folder, inside in files.items() if not any(file.endswith(_RECORD) for file in inside)}


def _object(info: Mapping[str, Any]) -> _Object:
    marks = (info.get(name) for name in ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "created"))
    mark = next((str(mark) for mark in marks if mark), "")
    return _Object(int(info.get("size") or 0), mark, _written_at(info))


def _written_at(info: Mapping[str, Any]) -> float | None:
    """Return when an object was written, in seconds since the epoch; None where the driver does not tell."""
    told = (info.get(name) for name in ("LastModified", "last_modified", "updated", "created"))
    moment = next((moment for moment in told if moment), None)
    if isinstance(moment, str):
        with suppress(ValueError):
            moment = datetime.fromisoformat(moment)
    if isinstance(moment, float):
        return moment
    if not isinstance(moment, datetime):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


# -- what goes wrong -------------------------------------------------------------------------------------------------
@contextmanager
def _naming_problems(url: str, key: str, *, writes: bool = False) -> Iterator[None]:
    """Raise FilesUnavailable in place of whatever a driver raises, and FileNotFoundError for a missing object."""
    try:
        yield
    except NextmaskError:
        raise
    except FileNotFoundError as error:
        # Drivers say in words whether it is the object or the bucket, beside their names, which may hold such words.
        names = re.escape(key), re.escape(url.partition("://")[2].partition("/")[0])
        said = re.sub("|".join(filter(None, names)), "", str(error))
        if writes or re.search("bucket|container", said, re.IGNORECASE):
            raise _unavailable(url, error) from error
        raise _missing(key) from error
    except Exception as error:  # each driver has errors of its own
        raise _unavailable(url, error) from error


def _missing(key: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "No such file", key)


def _unavailable(url: str, error: Exception) -> FilesUnavailable:
    scheme, _, rest = url.partition("://")
    bucket, reason = f"{scheme}://{rest.partition('/')[0]}", _reason(error)
    kind = f"{type(error).__name__} {reason}".lower()
    if isinstance(error, ImportError):
        cause = f"MODEL_DIR = {url} needs a package that is not installed ({reason})."
        return FilesUnavailable(cause, f"Run: pip install 'nextmask[{scheme}]'")
    if isinstance(error, FileNotFoundError):
        cause = f"The bucket {bucket} of MODEL_DIR = {url} does not exist."
        return FilesUnavailable(cause, "Make it, or correct MODEL_DIR.")
    if "credential" in kind or "forbidden" in kind or isinstance(error, PermissionError):
        cause = f"MODEL_DIR = {url} may not be used: {reason}."
        remedy = (
            "Give nextmask credentials, in the environment or as a role, that may read, write, list and delete there."
        )
        return FilesUnavailable(cause, remedy)
    return FilesUnavailable(f"MODEL_DIR = {url} cannot be used now: {reason}.", "Work goes on by itself when it can.")


def _reason(error: Exception) -> str:
    """Return the first line of an error, without the queries of addresses, which may be signed."""
    first = (str(error).splitlines() or [""])[0] or type(error).__name__
    return re.sub(r"\?\S+", "?…", first)[:300].rstrip(".")
