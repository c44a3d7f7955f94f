"""A real PostgreSQL for the tests: Debian's package, run by an unprivileged user, with a database for each test.

Its clock can be set: `clock_timestamp()` of these databases is a function that a table tells what to answer.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from wiring import Clock

from ml_backend.demo.label_studio import free_port
from ml_backend.store import Store
from ml_backend.store.database import REVISION
from ml_backend.store.tables import METADATA

USER, PASSWORD = "nextmask", "database-password"
_TEMPLATE = "template_of_tests"
_START_SECONDS = 60.0
_OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "listen_addresses": "127.0.0.1",
    "lc_messages": "C",
}
_CLOCK = """
CREATE TABLE set_clock (shown float8, ahead float8 NOT NULL DEFAULT 0);
INSERT INTO set_clock DEFAULT VALUES;
GRANT ALL ON set_clock TO PUBLIC;
CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(to_timestamp(shown), pg_catalog.clock_timestamp()) + ahead * interval '1 s' FROM public.set_clock
$$;
"""
_EMPTY = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid();"
    + "".join(f"DELETE FROM {table.name};" for table in METADATA.sorted_tables)
    + "INSERT INTO meta (key, value) VALUES ('schema', '3'); UPDATE set_clock SET shown = NULL, ahead = 0;"
    + "UPDATE alembic_version SET version_num = NULL WHERE version_num <> '"
    + REVISION
    + "';"
)
"""As the template is; fails where a test has dropped a table or noted another schema."""


def missing() -> str:
    """Say what this machine lacks for tests with PostgreSQL; "" where all is there."""
    if programs() is None:
        return "PostgreSQL is not installed: apt-get install postgresql"
    if importlib.util.find_spec("psycopg") is None:
        return "its driver is not installed: pip install 'nextmask[postgres]'"
    return ""


def programs() -> Path | None:
    """Return the folder of initdb and postgres: Debian keeps them out of the path."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return folders[-1].parent if folders else None


@dataclass
class Cluster:
    """A PostgreSQL that listens on this machine only.

    Attributes:
        folder: its data; it belongs to the user that runs it.
    """

    folder: Path
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None
    _free: list[str] = field(default_factory=list)

    @cached_property
    def _programs(self) -> Path:
        found = programs()
        assert found
        return found

    @cached_property
    def _as_user(self) -> dict[str, Any]:
        """Run as another user where we are root, whom PostgreSQL refuses."""
        if os.getuid() != 0:
            return {}
        for name in ("postgres", "nobody"):
            with suppress(KeyError):
                user = pwd.getpwnam(name)
                return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        raise AssertionError("there is no user to run PostgreSQL")

    # -- the process --------------------------------------------------------------------------------------------------
    def make(self) -> None:
        """Make its files."""
        if self._as_user:
            os.chown(self.folder, self._as_user["user"], self._as_user["group"])
        words = self.folder / "password"
        words.write_text(PASSWORD)
        words.chmod(0o644)
        options = ["--auth=scram-sha-256", f"--pwfile={words}", f"--username={USER}", "--encoding=UTF8"]
        self.run("initdb", "--no-sync", "--no-locale", *options, "--pgdata", str(self.data))

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        """Start it, and wait until it answers; it ends with the thread that calls this, even by kill -9."""
        settings = {**_OPTIONS, "port": str(self.port), "unix_socket_directories": str(self.folder)}
        command = [str(self._programs / "postgres"), "-D", str(self.data)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, preexec_fn=_end_with_parent, **self._as_user
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.05)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self._address(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    @property
    def is_stopped(self) -> bool:
        return self._process is None

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends sessions and then itself, SIGQUIT everything at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        self.stop(how)
        self.start()

    def run(self, program: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs to its end, as its user."""
        environment = {**os.environ, "PGPASSWORD": PASSWORD, "PGHOST": "127.0.0.1", "PGPORT": str(self.port)}
        command = [str(self._programs / program), *arguments]
        kept: dict[str, Any] = {"capture_output": True, "text": True, "cwd": self.folder, "env": environment}
        done = subprocess.run(command, **kept, **self._as_user, **options)
        assert done.returncode == 0, done.stderr
        return done

    # -- its databases ------------------------------------------------------------------------------------------------
    def url(self, database: str, *, user: str = USER, password: str = PASSWORD, port: int = 0) -> str:
        """Return the address of a database, as NEXTMASK_DATABASE_URL takes it."""
        return f"postgresql+psycopg://{user}:{password}@127.0.0.1:{port or self.port}/{database}"

    def _address(self, database: str = "postgres") -> str:
        return self.url(database).replace("+psycopg", "")

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute a statement, and return its rows."""
        import psycopg

        with closing(psycopg.connect(self._address(database), autocommit=True)) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def make_template(self) -> None:
        """Make a database with nextmask's tables, which those of tests are copies of."""
        self.execute(f"CREATE DATABASE {_TEMPLATE}")
        Store(self.url(_TEMPLATE)).close()
        self.execute(_CLOCK, _TEMPLATE)

    @contextmanager
    def database(self, *, empty: bool = False) -> Iterator[str]:
        """Make a database for a test, or empty one of an earlier test; yields its address."""
        reused = None if empty or not self._free else self._free.pop()
        name = reused or f"test_{secrets.token_hex(6)}"
        if not reused:
            self.execute(f"CREATE DATABASE {name}" + ("" if empty else f" TEMPLATE {_TEMPLATE}"))
            # Our clock is found before the real one.
            self.execute(f"ALTER DATABASE {name} SET search_path TO public, pg_catalog")
        try:
            yield self.url(name)
        finally:
            if empty or not self._emptied(name):
                self.execute(f"DROP DATABASE {name} WITH (FORCE)")
            else:
                self._free.append(name)

    def _emptied(self, name: str) -> bool:
        """Empty a database for the next test, which is quicker than another one; False where its tables are changed."""
        import psycopg

        try:
            self.execute(_EMPTY, name)
        except psycopg.Error:
            return False
        return True


def set_database_clock(url: str, *, shown: float | None = None, ahead: float = 0.0) -> None:
    """Let a database's clock stand still at a time, or be ahead of the machine's by so many seconds."""
    import psycopg

    with closing(psycopg.connect(url.replace("+psycopg", ""), autocommit=True)) as connection:
        connection.execute("UPDATE public.set_clock SET shown = %s, ahead = %s", (shown, ahead))


class DatabaseClock(Clock):
    """A clock that a database shows, too."""

    def __init__(self, url: str) -> None:
        self._url = url
        super().__init__()

    @property
    def now(self) -> float:  # type: ignore[override]
        return self._now

    @now.setter
    def now(self, now: float) -> None:
        self._now = now
        set_database_clock(self._url, shown=now)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG


def require() -> None:
    """Skip a test where PostgreSQL or its driver is missing; continuous integration has to have both."""
    reason = missing()
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Make a cluster of its own, and remove it at the end."""
    require()
    folder = Path(tempfile.mkdtemp(prefix="nextmask-postgresql-"))  # pytest's folders are ours alone
    cluster = Cluster(folder)
    try:
        cluster.make()
        cluster.start()
        cluster.make_template()
        yield cluster
    finally:
        cluster.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_postgresql() -> Iterator[Cluster]:
    """A PostgreSQL for all tests of this process that leave it running."""
    with running_cluster() as cluster:
        yield cluster


def on_both(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a folder with SQLite and with PostgreSQL: its conftest.py calls this pytest_generate_tests.

    Tests about SQLite's file say so by a mark: `@pytest.mark.sqlite("why")`.
    """
    if "database_url" in metafunc.fixturenames:
        alone = metafunc.definition.get_closest_marker("sqlite")
        metafunc.parametrize("database_url", ["sqlite"] if alone else ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the state database of this test, as settings have it: empty with SQLite in MODEL_DIR."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return ""
    url = str(request.getfixturevalue("postgresql_url"))
    monkeypatch.setenv("NEXTMASK_DATABASE_URL", url)
    return url


@pytest.fixture
def postgresql(shared_postgresql: Cluster) -> Cluster:
    return shared_postgresql


@pytest.fixture
def postgresql_url(shared_postgresql: Cluster) -> Iterator[str]:
    """The address of a database with nextmask's tables, for this test alone."""
    with shared_postgresql.database() as url:
        yield url


@pytest.fixture
def empty_postgresql_url(shared_postgresql: Cluster) -> Iterator[str]:
    """The address of a database without tables."""
    with shared_postgresql.database(empty=True) as url:
        yield url


@pytest.fixture(scope="module")
def own_postgresql() -> Iterator[Cluster]:
    """A PostgreSQL that the tests of a module may stop."""
    with running_cluster() as cluster:
        yield cluster
