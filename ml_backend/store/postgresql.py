"""PostgreSQL as the state database: its connections, how long they may wait, and what its errors mean.

A database that is away for a moment, because it is restarted or another machine takes its place, ends nothing: whoever
needs a connection waits a little for it. One that stays away is asked once a second, however many need it, and the
others are told at once.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

DRIVER: Final = "postgresql+psycopg"
_SHORT_NAMES: Final = frozenset({"postgresql", "postgres"})
_CONNECTION: Final[Mapping[str, object]] = {
    "application_name": "nextmask",
    "connect_timeout": 5,
    # A machine that vanished without a word is given up after half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
"""Parameters of connections; those that the address gives count instead."""
_LIMITS: Final[Mapping[str, str]] = {
    "statement_timeout": "120s",
    "lock_timeout": "20s",
    # A process that is stopped in the middle of a transaction must not keep its locks.
    "idle_in_transaction_session_timeout": "60s",
}
"""Limits of sessions; those that role, database or address give count instead."""
_PAUSE: Final = 0.2
_ATTEMPT_SECONDS: Final = 1.0
_AWAY: Final = re.compile("08|53|57P|40001|40P01|55P03|57014|25006|25P03")
"""Beginnings of SQLSTATEs after which the same call may succeed later."""
_REMEDIES: Final = (
    ("password authentication failed|no password supplied", "The user or the password is wrong: mend {setting}."),
    ('role ".*" does not exist', "Make the user (createuser --pwprompt NAME), or mend {setting}."),
    ('database ".*" does not exist', "Make the database (createdb --owner USER NAME), or mend {setting}."),
    (
        "no pg_hba.conf entry|rejects connection",
        "Let this machine in (pg_hba.conf of the database), or mend {setting}.",
    ),
    ("permission denied", "Make nextmask's user the owner of the database (ALTER DATABASE NAME OWNER TO USER)."),
    ("too many clients|remaining connection slots", "Raise max_connections: each process of nextmask takes up to 15."),
    ("starting up|shutting down|recovery", "It starts or stops: try again in a moment."),
    ("read-only", "It is a copy that cannot be written: mend {setting}."),
    ("resolve|translate host name|Name or service", "No machine has this name: mend {setting}."),
    ("refused|timeout|timed out|No such file|unreachable", "Start the database, or mend {setting}."),
    ("[Cc]an't load plugin", "nextmask works with sqlite:///FILE and postgresql+psycopg://…: mend {setting}."),
    ("(No module named|import of) '?psycopg", "Install the driver: pip install 'nextmask[postgres]'."),
    ("No module named", "nextmask works with sqlite:///FILE and postgresql+psycopg://…: mend {setting}."),
)


def with_driver(url: sa.URL) -> sa.URL:
    """Return an address with the driver that nextmask works with, where it names PostgreSQL alone.

    >>> str(with_driver(sa.make_url("postgres://host/name")))
    'postgresql+psycopg://host/name'
    """
    return url.set(drivername=DRIVER) if url.drivername in _SHORT_NAMES else url


class Patience:
    """Makes the connections of an engine, and waits for a database that is away.

    Attributes:
        seconds: how long an outage is waited for, from its beginning; afterwards it is told at once.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._began, self._tried, self._told = math.inf, -math.inf, ""

    def connect(self, dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
        """Return a new connection; the event `do_connect` of SQLAlchemy."""
        while True:
            self._tell_known_outage(dialect)
            try:
                connection = dialect.connect(*arguments, **options)
            except dialect.dbapi.OperationalError as error:
                if not self._waits(str(error)):
                    raise
                time.sleep(_PAUSE)
                continue
            with self._lock:
                self._began, self._tried, self._told = math.inf, -math.inf, ""
            return connection

    def _tell_known_outage(self, dialect: Any) -> None:
        """Raise where the outage has been waited for, and was seen a moment ago: thousands of calls may come."""
        with self._lock:
            now = time.monotonic()
            if self._told and now - self._began >= self.seconds and now - self._tried < _ATTEMPT_SECONDS:
                raise dialect.dbapi.OperationalError(self._told)
            self._tried = now

    def _waits(self, told: str) -> bool:
        with self._lock:
            now = time.monotonic()
            self._began, self._told = min(self._began, now), told
            return now - self._began < self.seconds


def make_engine(url: sa.URL, patience: Patience) -> sa.Engine:
    """Return an engine whose connections are tested before they are used, and wait for nothing without end."""
    options = {name: value for name, value in _CONNECTION.items() if name not in url.query}
    engine = sa.create_engine(url, pool_pre_ping=True, pool_timeout=10, connect_args=options)
    sa.event.listen(engine, "do_connect", patience.connect)
    sa.event.listen(engine, "connect", _set_limits)
    return engine


def _set_limits(connection: Any, _record: Any) -> None:
    for name, value in _LIMITS.items():
        connection.execute("SELECT set_config(%s, %s, false) WHERE current_setting(%s) = '0'", (name, value, name))
    connection.commit()


def is_away(error: BaseException) -> bool:
    """Whether an error says that the database cannot be used now, and that the same call may succeed later."""
    if isinstance(error, sa.exc.TimeoutError):  # all connections of the pool are in use
        return True
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    # Without a connection there is no state.
    known = _AWAY.match(state) if state else isinstance(error, sa.exc.OperationalError)
    return error.connection_invalidated or bool(known)


def reason_of(error: BaseException) -> str:
    """Return in one line what the database says of an error, without SQL, parameters and password."""
    text = str(getattr(error, "orig", None) or error).strip()
    lines = text.splitlines() or [type(error).__name__]
    return (lines[0] if not lines[0].startswith("Multiple connection attempts") else lines[-1].lstrip("- ")).rstrip(".")


def remedy_of(reason: str, setting: str) -> str:
    """Return what to do about an error, as a sentence.

    >>> remedy_of('FATAL:  database "labels" does not exist', "NEXTMASK_DATABASE_URL")
    'Make the database (createdb --owner USER NAME), or mend NEXTMASK_DATABASE_URL.'
    """
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, reason):
            return remedy.format(setting=setting)
    return f"Check {setting}."
