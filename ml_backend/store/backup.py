"""Backup and restore of MODEL_DIR as an archive.

A backup is taken while server and worker run. Apart from the database and the number that was given last to a version,
files never change, so the archive only has to hold all files that the database names. So the database is copied, the
files are added, and both steps are repeated when a named file was removed meanwhile.

Images and pictures are left out, since they can be fetched or drawn again. The last member lists all others with their
digests, so that an incomplete archive is recognised.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Final, cast

import zstandard

from ml_backend import __version__
from ml_backend.errors import BackupError
from ml_backend.settings import Settings
from ml_backend.store import Store, file_name
from ml_backend.store.database import parse, shown_url

FORMAT: Final = 1
SUFFIXES: Final = (".tar.zst", ".tar.gz")
_DATABASE: Final = "nextmask.sqlite3"
_MANIFEST: Final = "manifest.json"
_MEMBER: Final = re.compile(r"projects/[1-9]\d{0,11}(/[\w.-]+)+", re.ASCII)
_LEFT_OUT: Final = re.compile(r"(^|/)(\.[^/]*|lock|[^/]*\.part)(/|$)")
"""Hidden and partial files are being written; locks belong to processes."""
_ATTEMPTS: Final = 20
_CHUNK: Final = 1 << 20
_RESTORING: Final = ".restoring"
_LOCK: Final = ".restore-lock"
_POINTERS: Final = ("current", "last_number")

Progress = Callable[[int, int], None]
"""Called with the number of files done, and of all files (0: unknown)."""


# -- backup -----------------------------------------------------------------------------------------------------------
def backup(settings: Settings, file: Path, *, progress: Progress) -> int:
    """Write an archive of MODEL_DIR; it appears complete or not at all.

    Args:
        settings: of the installation.
        file: the new archive; its ending is one of SUFFIXES.
        progress: called during the work.

    Returns:
        Number of files in the archive.

    Raises:
        BackupError: the name has another ending or exists, the database is no SQLite file, or the disk refuses.
    """
    folder = _folder_of(
        settings,
        "Run {dump} first, and {copy} after it: what changes in between is read again from Label Studio once both are "
        "restored.",
        dump=("pg_dump --format=custom --file=state.dump {name}", "sqlite3 {file} '.backup state.sqlite3'"),
        copy=("tar -C {folder} -cf projects.tar projects", "copy {bucket}/projects with the bucket's own tools"),
    )
    database = folder / _DATABASE
    if not file.name.endswith(SUFFIXES):
        raise BackupError(f"{file}: the name of a backup ends with {' or '.join(SUFFIXES)}.")
    if file.exists():
        raise BackupError(f"{file} exists already: choose another name, or remove it.")
    if not database.exists():
        raise BackupError(f"There is nothing to back up in MODEL_DIR = {folder}.")
    unfinished, copy = file.with_name(f".{file.name}.part"), file.with_name(f".{file.name}.sqlite3")
    try:
        with unfinished.open("wb") as target:
            with _compressed(target, file.name) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
                count = _Writer(archive, folder, copy, progress).write()
            target.flush()
            os.fsync(target.fileno())
        unfinished.rename(file)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"The backup cannot be written to {file}: {error}.") from error
    finally:
        for path in (unfinished, copy):
            path.unlink(missing_ok=True)
    return count


@dataclass
class _Writer:
    archive: tarfile.TarFile
    folder: Path
    copy: Path
    progress: Progress
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    def write(self) -> int:
        for name, content in self._gather().items():
            self._add(name, io.BytesIO(content), len(content))
        with self.copy.open("rb") as database:
            self._add(_DATABASE, database, self.copy.stat().st_size)
        about = {
            "format": FORMAT,
            "nextmask": __version__,
            "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "files": self.files,
        }
        content = json.dumps(about).encode()
        count = len(self.files)
        self._add(_MANIFEST, io.BytesIO(content), len(content))
        return count

    def _gather(self) -> dict[str, bytes]:
        """Add files until all that the copied database and the pointers name are added; return the pointers."""
        for _ in range(_ATTEMPTS):
            pointers = self._pointers()
            self._copy_database()
            self._add_files()
            if self._is_complete(pointers):
                return pointers
        raise BackupError("Files are removed faster than they can be copied: try again when less is going on.")

    def _copy_database(self) -> None:
        self.copy.unlink(missing_ok=True)
        database = self.folder / _DATABASE
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(self.copy)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # a single file, without a log beside it

    def _pointers(self) -> dict[str, bytes]:
        pointers = {}
        for name in _POINTERS:
            for path in sorted(self.folder.glob(f"projects/*/model/{name}")):
                pointers[self._name(path)] = path.read_bytes()
        return pointers

    def _add_files(self) -> None:
        groups = self._groups()
        for done, group in enumerate(groups):
            self.progress(done, len(groups))
            self._add_group(group)
        self.progress(len(groups), len(groups))

    def _groups(self) -> list[list[Path]]:
        """Return files in groups: all files of a version or committee are added, or none."""
        groups: dict[Path, list[Path]] = {}
        for path in sorted(_walk(self.folder / "projects")):
            name = self._name(path)
            if name in self.files or path.name in _POINTERS or _LEFT_OUT.search(name) or not _is_file(path):
                continue
            belongs = path.parent if path.parent.parent.name in {"versions", "committees"} else path
            groups.setdefault(belongs, []).append(path)
        return list(groups.values())

    def _add_group(self, paths: Iterable[Path]) -> None:
        with ExitStack() as stack:
            try:  # an open file can be read after it is removed
                opened = [(self._name(path), stack.enter_context(path.open("rb"))) for path in paths]
            except FileNotFoundError:
                return
            for name, file in opened:
                self._add(name, file, os.fstat(file.fileno()).st_size)

    def _add(self, name: str, file: IO[bytes], size: int) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o600
        hashed = _Hashed(file)
        self.archive.addfile(member, hashed)
        self.files[name] = {"size": size, "sha256": hashed.digest.hexdigest()}

    def _is_complete(self, pointers: dict[str, bytes]) -> bool:
        with closing(sqlite3.connect(self.copy)) as connection:
            rows = connection.execute("SELECT project_id, mask_file, effort_file FROM tasks").fetchall()
            pointers = pointers | _serving(connection)
        wanted = {name for project, *paths in rows for path in paths if (name := file_name(path, project))}
        for name, content in pointers.items():
            if name.endswith("/current"):
                number = content.decode("ascii", "replace").strip()
                wanted.add(f"{name.removesuffix('current')}versions/{number}/version.json")
        missing = wanted - self.files.keys()
        # Files that were missing before, too, are lost: repeating does not help.
        before, self.gone = self.gone, missing
        return missing <= before

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _serving(connection: sqlite3.Connection) -> dict[str, bytes]:
    """Return the numbers of the versions that serve as the files that 0.1 has for them, by name."""
    keys = "SELECT substr(key, 9), value FROM meta WHERE substr(key, 1, 8) = 'serving_'"
    rows = connection.execute(keys).fetchall()
    return {f"projects/{project}/model/current": str(number).encode() for project, number in rows}


def _walk(folder: Path) -> Iterator[Path]:
    """Iterate over the files below a folder that others change: what is removed meanwhile is passed over."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a folder that cannot be read would be left out without a word
            raise error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names)


class _Hashed:
    """A file that is digested while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


# -- restore ----------------------------------------------------------------------------------------------------------
def restore(settings: Settings, file: Path, *, progress: Progress) -> int:
    """Restore a backup into an empty MODEL_DIR, completely or not at all.

    Args:
        settings: of the installation.
        file: the archive.
        progress: called during the work.

    Returns:
        Number of restored files.

    Raises:
        BackupError: MODEL_DIR is not empty, the archive is damaged or no backup, or the disk refuses.
        StoreError: a later release made the backup.
    """
    folder = _folder_of(
        settings,
        "Stop nextmask, then {copy} and {dump}.",
        dump=("run pg_restore --dbname={name} state.dump into an empty database", "put state.sqlite3 back as {file}"),
        copy=("run tar -C {folder} -xf projects.tar", "copy projects back to {bucket}/projects"),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            _refuse_files(folder)
            made = folder / _RESTORING
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            try:
                count = _extract(file, made, progress)
                _put(made, folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
    except (OSError, tarfile.TarError, zstandard.ZstdError, EOFError, sqlite3.Error) as error:
        raise BackupError(f"{file} cannot be restored to MODEL_DIR = {folder}: {error}.") from error
    return count


def _extract(file: Path, made: Path, progress: Progress) -> int:
    """Unpack an archive into the folder `made` and check all of it; return the number of files."""
    written: dict[str, dict[str, Any]] = {}
    about: dict[str, Any] | None = None
    with _members(file) as archive:
        for member in archive:
            if about is not None:
                raise BackupError(f"{file} goes on after its list of files: it is no backup of nextmask.")
            content = archive.extractfile(member) if member.isfile() else None
            if content is None or not _is_ours(member, made):
                raise BackupError(f"{file} holds {member.name[:200]!r}, which no backup of nextmask does.")
            if member.name == _MANIFEST:
                about = _manifest(file, content.read())
            else:
                written[member.name] = _write(content, made / member.name)
                progress(len(written), 0)
    if about is None or about["files"] != written:
        raise BackupError(f"{file} is damaged: what it holds is not what was written into it. Take another backup.")
    if _DATABASE not in written:
        raise BackupError(f"{file} holds no state database: it is no backup of nextmask.")
    _check_database(made / _DATABASE)
    return len(written)


def _is_ours(member: tarfile.TarInfo, made: Path) -> bool:
    if member.name not in {_MANIFEST, _DATABASE} and not _MEMBER.fullmatch(member.name):
        return False
    if any(part in {".", ".."} for part in member.name.split("/")):
        return False
    try:
        tarfile.data_filter(member, str(made))
    except tarfile.FilterError:
        return False
    return True


def _write(content: IO[bytes], path: Path) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as target:
        while chunk := content.read(_CHUNK):
            target.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        target.flush()
        os.fsync(target.fileno())
    return {"size": size, "sha256": digest.hexdigest()}


def _manifest(file: Path, content: bytes) -> dict[str, Any]:
    try:
        about = json.loads(content)
        known = about["format"] == FORMAT and isinstance(about["files"], dict)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise BackupError(f"{file} has another form than this release writes ({FORMAT}): use the one that made it.")
    manifest: dict[str, Any] = about
    return manifest


def _check_database(path: Path) -> None:
    """Check the database, and upgrade it; no worker holds a lease any more."""
    with closing(sqlite3.connect(path)) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
    if verdict != "ok":
        raise BackupError(f"The state database in the backup is damaged: {verdict}.")
    store = Store(f"sqlite:///{path}")
    try:
        store.forget_leases()
    finally:
        store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")  # without a log beside it that would have to move, too


def _put(made: Path, folder: Path) -> None:
    """Move the checked files to their place; the database last, since it makes the folder an installation."""
    if (made / "projects").exists():
        (made / "projects").rename(folder / "projects")
    if (folder / _DATABASE).exists():
        raise BackupError(f"A nextmask was started in MODEL_DIR = {folder}: stop it, empty the folder and try again.")
    (made / _DATABASE).rename(folder / _DATABASE)


def _refuse_files(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir() if path.name not in {_RESTORING, _LOCK, "lost+found"})
    if names:
        shown = ", ".join(names[:5])
        raise BackupError(
            f"MODEL_DIR = {folder} is not empty ({shown}): a backup is restored into an empty folder. "
            "Stop nextmask if it runs there, and move the folder away."
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse a second restore into the same folder at the same time."""
    path = folder / _LOCK
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"Another restore is under way in MODEL_DIR = {folder}.") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


# -- both -------------------------------------------------------------------------------------------------------------
def _folder_of(settings: Settings, remedy: str, *, dump: tuple[str, str], copy: tuple[str, str]) -> Path:
    """Return the folder of an installation that is in one; refuse any other, whose parts have tools of their own.

    Args:
        remedy: what to do with others.
        dump: how PostgreSQL's state is copied there, and how SQLite's.
        copy: how files in a folder are, and how those of a bucket.

    Raises:
        BackupError: state or files are elsewhere.
    """
    if isinstance(settings.model_dir, Path) and not settings.database_url:
        return settings.model_dir
    url, bucket = parse(settings.effective_database_url), str(settings.model_dir)
    is_bucket, is_sqlite = not isinstance(settings.model_dir, Path), url.get_backend_name() == "sqlite"
    steps = remedy.format(dump=dump[is_sqlite], copy=copy[is_bucket])
    names = {"name": url.database or "NAME", "file": url.database, "folder": settings.local_folder, "bucket": bucket}
    where = f"MODEL_DIR = {bucket} is a bucket" if is_bucket else f"The state is in {shown_url(url)}"
    raise BackupError(f"{where}, which has tools of its own.", steps.format(**names))


@contextmanager
def _compressed(target: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    if name.endswith(".gz"):
        # Level 1: weights hardly get smaller, and masks are compressed already.
        with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=1) as stream:
            yield cast("IO[bytes]", stream)
    else:
        with zstandard.ZstdCompressor(level=3).stream_writer(target, closefd=False) as writer:
            yield writer


@contextmanager
def _members(file: Path) -> Iterator[tarfile.TarFile]:
    with file.open("rb") as source:
        start = source.read(4)
        source.seek(0)
        if start[:2] == b"\x1f\x8b":
            with tarfile.open(fileobj=source, mode="r|gz") as archive:
                yield archive
        elif start == b"\x28\xb5\x2f\xfd":
            with (
                zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True) as stream,
                tarfile.open(fileobj=stream, mode="r|") as archive,
            ):
                yield archive
        else:
            raise BackupError(f"{file} is no archive of nextmask ({' or '.join(SUFFIXES)}).")


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
