"""What belongs to nextmask on this machine: settings, folder, state database, server, worker."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import requests
import sqlalchemy as sa
from urllib3.util import parse_url

from ml_backend import __version__
from ml_backend.doctor.findings import Finding, note, ok, problem, skipped, warning
from ml_backend.doctor.running import Missing
from ml_backend.errors import ConfigurationError, StoreError
from ml_backend.projects.connection import SECRET_HEADER
from ml_backend.settings import Settings
from ml_backend.store import Project, Store
from ml_backend.system.disk import free_bytes

LEAST_FREE: Final = 200_000_000
"""Bytes that a first version, its training and the state database take."""
_LOCK_SECONDS = 3.0
_LIFE_SECONDS = 30.0


# -- settings --------------------------------------------------------------------------------------------------------
def judge_settings(settings: Settings, complaints: Sequence[str]) -> Iterator[Finding]:
    """Say which settings stop the start of every other command."""
    for complaint in complaints:
        why = "No command but this one starts with it."
        yield problem("settings", complaint, why, "Correct it in the environment or in .env: docs/configuration.md")
    try:
        settings.check_serving()
    except ConfigurationError as error:
        yield problem("settings", str(error), "nextmask serve refuses to start.", "Set them in the environment or .env")
        return
    if not complaints:
        yield ok("settings", "all valid")


# -- folder ----------------------------------------------------------------------------------------------------------
def judge_folder(settings: Settings) -> Iterator[Finding]:
    """Say whether MODEL_DIR can be written, and holds what is to come."""
    folder = settings.model_dir
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        yield problem("folder", f"MODEL_DIR = {folder}: {there} is a file", "State has no place.", "Set MODEL_DIR")
        return
    owner = there.stat().st_uid
    mine = os.geteuid()
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".doctor-") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield _unwritable(folder, there, error, owner, mine)
        return
    if owner != mine:
        found = f"MODEL_DIR = {folder} belongs to user {owner}, this is user {mine}"
        why = "Files that one user makes the other may not be able to change."
        yield warning("folder", found, why, f"Run all commands as user {owner}, or: chown -R {mine} {folder}")
    yield from _judge_room(settings, there)


def _unwritable(folder: Path, there: Path, error: OSError, owner: int, mine: int) -> Finding:
    found = f"MODEL_DIR = {folder} cannot be written: {error.strerror} (owner: user {owner}; this is user {mine})"
    why = "Nothing can be trained, and no state kept."
    files = os.statvfs(there)
    if files.f_files and not files.f_favail:
        return problem("disk", f"{found}; no file can be made: all {files.f_files} inodes of its disk are used", why,
                       "Delete files, or set MODEL_DIR to a folder on another disk")  # fmt: skip
    if free_bytes(there) < LEAST_FREE:
        remedy = "Free some space, or set MODEL_DIR to a folder on another disk"
        return problem("disk", f"{found}; {_size(free_bytes(there))} are free", why, remedy)
    return problem("folder", found, why, f"chown -R {mine} {folder}, or set MODEL_DIR to a folder of your own")


def _judge_room(settings: Settings, there: Path) -> Iterator[Finding]:
    folder, free = settings.model_dir, free_bytes(there)
    need = max(
        LEAST_FREE, settings.minimum_free_bytes, 2 * max(map(_bytes_in, folder.glob("projects/*/model/*")), default=0)
    )
    cached = _bytes_in(folder / "images")
    growth = max(0, settings.image_cache_bytes - cached)
    shown = f"MODEL_DIR = {folder}: {_size(free)} free"
    cure = "Free some space, or set MODEL_DIR to a folder on another disk"
    if free < need:
        found = f"{shown}; the next model version takes up to {_size(need)}"
        yield problem("disk", found, "The next training fails.", cure)
    elif free < need + growth:
        found = f"{shown}; the image cache ({_size(cached)} now) may grow to {_size(settings.image_cache_bytes)}"
        why = "Once the disk is full, trainings fail."
        yield warning("disk", found, why, f"Lower NEXTMASK_IMAGE_CACHE_BYTES to {int(cached + (free - need) / 2)}")
    else:
        made = "" if folder.exists() else ", made at the first start"
        yield ok("disk", f"{shown}{made}")


def _bytes_in(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(root, name).lstat().st_size
            except OSError:  # deleted meanwhile
                continue
    return total


# -- state database --------------------------------------------------------------------------------------------------
def judge_database(settings: Settings) -> Iterator[Finding]:
    """Say whether the state database can be used; it is not made, upgraded or written to."""
    path = _database_file(settings)
    if path is None:
        shown = sa.make_url(settings.effective_database_url).render_as_string(hide_password=True)
        Store(settings.effective_database_url).close()
        yield ok("database", shown)
    elif not path.exists():
        yield note("database", f"{path} is not there yet; it is made at the first start")
    else:
        yield from _judge_sqlite(path)


def open_store(settings: Settings) -> Store:
    """Open the state as it is.

    Raises:
        Missing: there is none yet, or it cannot be used as it is.
    """
    path = _database_file(settings)
    if path is not None and not path.exists():
        raise Missing("nothing was connected from here yet")
    if path is not None and (bad := next((one for one in _judge_sqlite(path) if one.level != "ok"), None)):
        raise Missing("the state database cannot be used" if bad.level == "problem" else "it is to be upgraded first")
    return Store(settings.effective_database_url)


def _database_file(settings: Settings) -> Path | None:
    try:
        url = sa.make_url(settings.effective_database_url)
    except sa.exc.ArgumentError:
        return None  # Store says so, without the password that it may hold
    return Path(url.database) if url.drivername.startswith("sqlite") and url.database else None


def _judge_sqlite(path: Path) -> Iterator[Finding]:
    away = f"Stop nextmask, and restore a backup, or move {path} away: labels stay in Label Studio and are read again"
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=_LOCK_SECONDS)) as connection:
            connection.isolation_level = None
            damage = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            if damage != "ok":
                yield problem("database", f"{path} is damaged: {damage}", "Nothing is trained or ranked.", away)
                return
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            yield _judge_schema(path, connection)
    except sqlite3.Error as error:
        if "locked" in str(error):
            found = f"{path} has been locked by another program for more than {_LOCK_SECONDS:g} s"
            remedy = f"Find it with: fuser {path}. A backup program or a file manager must not hold it"
            yield problem("database", found, "Neither labels nor rankings can be written down.", remedy)
        else:
            yield problem("database", f"{path} cannot be used: {error}", "Nothing is trained or ranked.", away)


def _judge_schema(path: Path, connection: sqlite3.Connection) -> Finding:
    """Let the store open a copy of the tables, without what is in them but the schema's version."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        with closing(sqlite3.connect(copy)) as target:
            for (statement,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"):
                target.execute(statement)
            for table, rows in _schema_of(connection).items():
                for row in rows:
                    target.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
            target.commit()
        before = _schema_at(copy)
        try:
            Store(f"sqlite:///{copy}").close()
        except StoreError as error:
            remedy = "Install the release of nextmask that wrote it, or a later one; or set MODEL_DIR to another folder"
            return problem("database", str(error).replace(str(copy), str(path)), "No command works with it.", remedy)
        if _schema_at(copy) != before:
            return note("database", f"{path} is of an earlier release; it is upgraded at the next start")
    return ok("database", str(path))


def _schema_at(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        return _schema_of(connection)


def _schema_of(connection: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """Return the rows that tell the schema's version; only those: others may be secrets."""
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    wanted = {"meta": " WHERE key = 'schema'", "alembic_version": ""}
    return {
        table: sorted(connection.execute(f"SELECT * FROM {table}{which}"))  # noqa: S608 (names of ours)
        for table, which in wanted.items()
        if table in there
    }


# -- server ----------------------------------------------------------------------------------------------------------
def judge_server(settings: Settings, store: Store | None, secret: str, *, patience: float = 5.0) -> Iterator[Finding]:
    """Say whether `nextmask serve` answers where Label Studio calls it, and is of this installation.

    Args:
        store: the state, to compare with what the server knows; None where there is none.
        secret: of the webhooks; "" where there is none yet.
        patience: seconds to wait for each answer.
    """
    yield from _judge_address(settings)
    url = settings.effective_backend_url
    health = _health(url, patience)
    if isinstance(health, str) and settings.backend_url:
        local = f"http://{'127.0.0.1' if settings.host in ('0.0.0.0', '::') else settings.host}:{settings.port}"  # noqa: S104
        here = _health(local, patience)
        if not isinstance(here, str):
            found = f"nextmask answers at {local}, and from this machine not at NEXTMASK_BACKEND_URL = {url} ({health})"
            yield note("server", found, "Only Label Studio must reach it; the checks of projects tell.")
            url, health = local, here
    if isinstance(health, str):
        why = "Label Studio gets no masks, no webhook arrives, and connect is refused."
        remedy = "Start it: nextmask serve. Where it runs elsewhere, set NEXTMASK_BACKEND_URL to its address"
        yield problem("server", f"nextmask serve does not answer at {url}: {health}", why, remedy)
        return
    if "model_class" not in health:
        why = "Label Studio calls that address for masks, and sends webhooks there."
        remedy = "Stop that program, or choose another port: nextmask serve --port 9091 with NEXTMASK_PORT=9091"
        yield problem("server", f"At {url} answers something that is not nextmask", why, remedy)
        return
    if health.get("version") != __version__:
        found = f"nextmask {health.get('version')} serves at {url}; this command is of {__version__}"
        yield warning("server", found, "Two releases may not agree on the state.", "Restart nextmask serve")
    yield _judge_identity(settings, url, store, secret, patience)


def _judge_address(settings: Settings) -> Iterator[Finding]:
    url = settings.effective_backend_url
    host = parse_url(url).host or ""
    if "." not in host and ":" not in host:
        found = f"NEXTMASK_BACKEND_URL = {url}: the host name {host!r} has no dot"
        why = "Label Studio accepts no webhook to such a name, and its own attempt to make one fails without a word."
        remedy = (
            "Use an IP address, or give the host an alias with a dot: NEXTMASK_BACKEND_URL=http://nextmask.local:9090"
        )
        yield problem("backend address", found, why, remedy)


def _health(url: str, patience: float) -> dict[str, object] | str:
    """Return what /health says, {} when it is no object, or in words why there is no answer."""
    try:
        answer = requests.get(f"{url}/health", timeout=patience, allow_redirects=False)
        found = answer.json() if answer.ok else {}
    except requests.Timeout:
        return f"no answer within {patience:g} s"
    except requests.exceptions.JSONDecodeError:
        return {}
    except requests.RequestException as error:
        return "connection refused" if "refused" in repr(error) else f"no connection ({type(error).__name__})"
    return found if isinstance(found, dict) else {}


def _judge_identity(settings: Settings, url: str, store: Store | None, secret: str, patience: float) -> Finding:
    user, password = settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()
    pair = (user, password) if user else None
    why = "Then commands and server do not work on the same projects."
    same = f"Start server and commands with the same environment or .env file (here MODEL_DIR = {settings.model_dir})"
    versions = requests.get(f"{url}/versions", auth=pair, timeout=patience)
    if versions.status_code == 401:
        shown = "these BASIC_AUTH_USER and BASIC_AUTH_PASS" if user else "calls without BASIC_AUTH_USER"
        return problem("server", f"nextmask at {url} refuses {shown} (401)", why, same)
    if user and secret:
        hook = requests.post(f"{url}/webhook", headers={SECRET_HEADER: secret}, timeout=patience)
        if hook.status_code == 401:  # an empty body that was let in is a 400
            found = f"nextmask at {url} does not know the webhook secret of this MODEL_DIR"
            return problem("server", found, f"{why} Webhooks are refused.", same)
    published = {one.published_version for one in store.projects() if one.published_version} if store else set()
    if versions.ok and not published <= set(versions.json().get("versions", [])):
        found = f"nextmask at {url} does not know the versions {', '.join(sorted(published))} of this MODEL_DIR"
        return problem("server", found, why, same)
    return ok("server", f"nextmask {__version__} answers at {url}")


# -- worker ----------------------------------------------------------------------------------------------------------
def judge_worker(projects: Sequence[Project], seen: float | None, now: float | None = None) -> Finding:
    """Say whether a worker runs, by the signs of life that it leaves in the state every few seconds.

    Args:
        projects: the connected ones.
        seen: when the last sign was given, in seconds since the epoch; None where none ever was.
        now: in seconds since the epoch.
    """
    moment = time.time() if now is None else now
    if seen is None and not projects:
        return skipped("worker", "no project is connected, and no worker has run yet")
    if seen is not None and abs(moment - seen) <= _LIFE_SECONDS:
        return ok("worker", f"gave a sign of life {abs(moment - seen):.0f} s ago")
    held = [one for one in projects if one.lease_owner]
    found = "No worker has run yet" if seen is None else f"No worker gave a sign of life for {_duration(moment - seen)}"
    if seen is not None and seen > moment:
        found = f"The last sign of life of a worker is {_duration(seen - moment)} ahead of this machine's clock"
    if held:
        found += f"; the last one ({held[0].lease_owner}) ended while it worked on project {held[0].id}"
    why = "Without a worker nothing is read, trained, ranked or published."
    remedy = "Start nextmask serve without --no-worker, or beside it: nextmask worker. Its log says why it ended"
    return problem("worker", found, why, remedy)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _size(count: float) -> str:
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count:.0f} bytes"
