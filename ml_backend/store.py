"""The state: what is known of each project, and who works on it.

Everything here can be rebuilt from Label Studio and the checkpoints, so the database is never the only place of
something a person made. It holds what makes a reconcile cheap (which tasks changed), what makes it safe (leases), and
what was published (to measure what annotators changed).

SQLAlchemy Core on SQLite in WAL mode; PostgreSQL by its address. Rows leave this module as frozen dataclasses.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ml_backend.errors import LeaseLost, StoreError

SCHEMA_VERSION = 1
BUSY_SECONDS = 20.0
_metadata = sa.MetaData()

_meta = sa.Table("meta", _metadata, sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text))

_projects = sa.Table(
    "projects",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("managed", sa.Boolean, nullable=False, default=True),
    sa.Column("title", sa.Text, nullable=False, default=""),
    sa.Column("wakes", sa.Integer, nullable=False, default=0),
    sa.Column("wakes_handled", sa.Integer, nullable=False, default=0),
    sa.Column("dirty_since", sa.Float),
    sa.Column("reconciled_at", sa.Float),
    sa.Column("train_requested_at", sa.Float),
    sa.Column("state", sa.Text, nullable=False, default="waiting"),
    sa.Column("stage", sa.Text, nullable=False, default=""),
    sa.Column("stage_done", sa.Integer, nullable=False, default=0),
    sa.Column("stage_total", sa.Integer, nullable=False, default=0),
    sa.Column("error", sa.Text, nullable=False, default=""),
    sa.Column("error_at", sa.Float),
    sa.Column("decided_model", sa.Integer, nullable=False, default=0),
    sa.Column("train_error", sa.Text, nullable=False, default=""),
    sa.Column("failed_digest", sa.Text, nullable=False, default=""),
    sa.Column("retry_at", sa.Float),
    sa.Column("lease_owner", sa.Text),
    sa.Column("lease_expires", sa.Float),
    sa.Column("extra_params", sa.Text, nullable=False, default=""),
    sa.Column("label_config", sa.Text, nullable=False, default=""),
    sa.Column("labels_digest", sa.Text, nullable=False, default=""),
    sa.Column("cursor", sa.Text),
    sa.Column("published_version", sa.Text, nullable=False, default=""),
    sa.Column("ranking_version", sa.Text, nullable=False, default=""),
    sa.Column("ranking_number", sa.Integer, nullable=False, default=0),
    sa.Column("ranking_key", sa.Text, nullable=False, default=""),
    sa.Column("undo", sa.Text, nullable=False, default=""),
)

_tasks = sa.Table(
    "tasks",
    _metadata,
    sa.Column("project_id", sa.Integer, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    sa.Column("image", sa.Text, nullable=False, default=""),
    sa.Column("group_key", sa.Text, nullable=False, default=""),
    sa.Column("updated_at", sa.Text, nullable=False, default=""),
    sa.Column("status", sa.Text, nullable=False, default="unlabelled"),
    sa.Column("error", sa.Text, nullable=False, default=""),
    sa.Column("annotation_id", sa.Integer),
    sa.Column("label_digest", sa.Text, nullable=False, default=""),
    sa.Column("mask_file", sa.Text, nullable=False, default=""),
    sa.Column("held_out", sa.Boolean, nullable=False, default=False),
    sa.Column("lead_time", sa.Float),
    sa.Column("regions", sa.Integer, nullable=False, default=0),
    sa.Column("vertices", sa.Integer, nullable=False, default=0),
    sa.Column("shown_version", sa.Text, nullable=False, default=""),
    sa.Column("agreement", sa.Float),
    sa.Index("tasks_by_status", "project_id", "status"),
)

_ranking = sa.Table(
    "ranking",
    _metadata,
    sa.Column("project_id", sa.Integer, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    sa.Column("priority", sa.Float, nullable=False),
    sa.Index("ranking_by_priority", "project_id", "priority"),
)

_published = sa.Table(
    "published",
    _metadata,
    sa.Column("project_id", sa.Integer, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("mask", sa.LargeBinary),
    sa.Column("published_at", sa.Float, nullable=False),
)

_versions = sa.Table(
    "published_versions",
    _metadata,
    sa.Column("project_id", sa.Integer, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("published_at", sa.Float, nullable=False),
    sa.Column("retired_at", sa.Float),
)


@dataclass(frozen=True)
class Project:
    """One Label Studio project as nextmask knows it. Times are seconds since the epoch."""

    id: int
    managed: bool
    title: str
    wakes: int
    wakes_handled: int
    dirty_since: float | None
    reconciled_at: float | None
    train_requested_at: float | None
    state: str
    stage: str
    stage_done: int
    stage_total: int
    error: str
    error_at: float | None
    decided_model: int
    train_error: str
    failed_digest: str
    retry_at: float | None
    lease_owner: str | None
    lease_expires: float | None
    extra_params: str
    label_config: str
    labels_digest: str
    cursor: str | None
    published_version: str
    ranking_version: str
    ranking_number: int
    ranking_key: str
    undo: str


@dataclass(frozen=True)
class Task:
    """One task. `status` is unlabelled, labelled, skipped or broken (its annotation cannot be read)."""

    project_id: int
    task_id: int
    image: str
    group_key: str = ""
    updated_at: str = ""
    status: str = "unlabelled"
    error: str = ""
    annotation_id: int | None = None
    label_digest: str = ""
    mask_file: str = ""
    held_out: bool = False
    lead_time: float | None = None
    regions: int = 0
    vertices: int = 0
    shown_version: str = ""
    agreement: float | None = None


@dataclass(frozen=True)
class Lease:
    """The right to work on a project until `expires`; `wakes` is what had been asked for when it was taken."""

    project_id: int
    owner: str
    wakes: int


class Store:
    """The database. Safe for several processes and threads at once.

    Args:
        url: SQLAlchemy address, `sqlite:///file` or `postgresql+psycopg://…`.

    Raises:
        StoreError: it cannot be opened, or was written by another schema version.
    """

    def __init__(self, url: str) -> None:
        self._engine = _open(url)
        self._insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    # -- projects and wake-ups ----------------------------------------------------------------------------------------
    def wake(self, project_id: int, *, train: bool = False, manage: bool = False, **fields: Any) -> None:
        """Note that a project wants to be looked at; unknown projects become known.

        Args:
            train: also train, even when too little is new.
            manage: take a project up again that was disconnected.
            fields: columns to set besides, such as `extra_params`.
        """
        now = time.time()
        with self._write() as connection:
            values = {"id": project_id, "wakes": 1, "dirty_since": now, "train_requested_at": now if train else None}
            changes: dict[str, Any] = {
                "wakes": _projects.c.wakes + 1,
                "dirty_since": sa.func.coalesce(_projects.c.dirty_since, now),
                **({"train_requested_at": now, "retry_at": None} if train else {}),
                **({"managed": True} if manage else {}),
                **fields,
            }
            statement = self._insert(_projects).values(**values, **fields)
            connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changes))

    def project(self, project_id: int) -> Project | None:
        """Return a project, or None when it is unknown."""
        return next(iter(self._projects(_projects.c.id == project_id)), None)

    def projects(self) -> list[Project]:
        """Return all managed projects, by id."""
        return self._projects(_projects.c.managed)

    def _projects(self, condition: sa.ColumnElement[bool]) -> list[Project]:
        with self._read() as connection:
            rows = connection.execute(sa.select(_projects).where(condition).order_by(_projects.c.id))
            return [Project(**row._mapping) for row in rows]

    def update_project(self, project_id: int, **fields: Any) -> None:
        """Set columns of a project."""
        with self._write() as connection:
            connection.execute(sa.update(_projects).where(_projects.c.id == project_id).values(**fields))

    def forget_project(self, project_id: int) -> None:
        """Drop everything known of a project; checkpoints and masks on disk stay."""
        with self._write() as connection:
            connection.execute(sa.delete(_projects).where(_projects.c.id == project_id))
            for table in (_tasks, _ranking, _published, _versions):
                connection.execute(sa.delete(table).where(table.c.project_id == project_id))

    # -- leases -------------------------------------------------------------------------------------------------------
    def acquire(self, owner: str, *, lease_seconds: float, interval: float, only: int | None = None) -> Lease | None:
        """Take a project that was woken, or that nobody looked at for `interval` seconds; None when there is none.

        A lease that ends further ahead than any lease can was taken before the clock was set back: it counts as
        expired. `only` takes that project whether it is due or not.
        """
        now = time.time()
        free = sa.or_(
            _projects.c.lease_expires.is_(None),
            _projects.c.lease_expires <= now,
            _projects.c.lease_expires > now + 2 * lease_seconds,
        )
        due = sa.or_(
            _projects.c.wakes > _projects.c.wakes_handled,
            _projects.c.reconciled_at.is_(None),
            _projects.c.reconciled_at <= now - interval,
            _projects.c.reconciled_at > now + interval,
        )
        wanted = _projects.c.id == only if only is not None else sa.and_(_projects.c.managed, due)
        oldest = sa.func.coalesce(_projects.c.dirty_since, _projects.c.reconciled_at, 0.0)
        query = sa.select(_projects.c.id, _projects.c.wakes).where(free, wanted).order_by(oldest).limit(1)
        with self._read() as connection:  # most looks find nothing: they must not queue for the write lock
            if connection.execute(query).first() is None:
                return None
        with self._write() as connection:
            row = connection.execute(query).first()
            if row is None:
                return None
            taken = sa.update(_projects).where(_projects.c.id == row.id, free)
            count = connection.execute(taken.values(lease_owner=owner, lease_expires=now + lease_seconds)).rowcount
        return Lease(row.id, owner, row.wakes) if count else None

    def heartbeat(self, lease: Lease, *, lease_seconds: float) -> None:
        """Extend a lease.

        Raises:
            LeaseLost: it expired and another worker took the project, or the project is gone.
        """
        held = sa.and_(_projects.c.id == lease.project_id, _projects.c.lease_owner == lease.owner)
        with self._write() as connection:
            extended = sa.update(_projects).where(held).values(lease_expires=time.time() + lease_seconds)
            if not connection.execute(extended).rowcount:
                raise LeaseLost(f"The lease on project {lease.project_id} went to another worker.")

    def release(self, lease: Lease, *, handled: bool) -> None:
        """Give a lease back; with `handled`, wake-ups that came before it was taken are done with."""
        held = sa.and_(_projects.c.id == lease.project_id, _projects.c.lease_owner == lease.owner)
        values: dict[str, Any] = {"lease_owner": None, "lease_expires": None, "reconciled_at": time.time()}
        with self._write() as connection:
            if handled:
                woken_again = _projects.c.wakes > lease.wakes
                values["wakes_handled"] = lease.wakes
                values["dirty_since"] = sa.case((woken_again, time.time()), else_=None)
            connection.execute(sa.update(_projects).where(held).values(**values))

    # -- tasks --------------------------------------------------------------------------------------------------------
    def put_tasks(self, tasks: Iterable[Task]) -> None:
        """Insert or replace tasks."""
        rows = [vars(task) for task in tasks]
        self._upsert(_tasks, rows, keys=("project_id", "task_id"))

    def task(self, project_id: int, task_id: int) -> Task | None:
        """Return one task, or None."""
        return next(iter(self._select_tasks(project_id, _tasks.c.task_id == task_id)), None)

    def tasks(self, project_id: int, *, status: str | None = None) -> list[Task]:
        """Return a project's tasks by id, all or those of one status."""
        return self._select_tasks(project_id, sa.true() if status is None else _tasks.c.status == status)

    def _select_tasks(self, project_id: int, condition: sa.ColumnElement[bool]) -> list[Task]:
        query = sa.select(_tasks).where(_tasks.c.project_id == project_id, condition).order_by(_tasks.c.task_id)
        with self._read() as connection:
            return [Task(**row._mapping) for row in connection.execute(query)]

    def count_tasks(self, project_id: int) -> dict[str, int]:
        """Return how many tasks a project has, by status."""
        query = sa.select(_tasks.c.status, sa.func.count()).where(_tasks.c.project_id == project_id)
        with self._read() as connection:
            return {row[0]: row[1] for row in connection.execute(query.group_by(_tasks.c.status))}

    def set_task_error(self, project_id: int, task_id: int, error: str) -> None:
        """Note why a task cannot be used ("" when it can again)."""
        with self._write() as connection:
            one = sa.and_(_tasks.c.project_id == project_id, _tasks.c.task_id == task_id)
            connection.execute(sa.update(_tasks).where(one).values(error=error))

    def delete_tasks(self, project_id: int, task_ids: Iterable[int]) -> None:
        """Drop tasks that Label Studio no longer has."""
        with self._write() as connection:
            for chunk in _chunks(list(task_ids), 500):
                for table in (_tasks, _ranking, _published):
                    here = sa.and_(table.c.project_id == project_id, table.c.task_id.in_(chunk))
                    connection.execute(sa.delete(table).where(here))

    # -- ranking ------------------------------------------------------------------------------------------------------
    def put_ranking(self, project_id: int, entries: Mapping[int, float], **fields: Any) -> None:
        """Replace a project's ranking (task id -> priority) and set columns of the project, in one transaction."""
        rows = [{"project_id": project_id, "task_id": task, "priority": value} for task, value in entries.items()]
        with self._write() as connection:
            connection.execute(sa.delete(_ranking).where(_ranking.c.project_id == project_id))
            if rows:
                connection.execute(sa.insert(_ranking), rows)
            if fields:
                connection.execute(sa.update(_projects).where(_projects.c.id == project_id).values(**fields))

    def ranked(self, project_id: int, *, limit: int | None = None) -> list[tuple[Task, float]]:
        """Return the unlabelled tasks of the ranking with their priorities, best first."""
        here = sa.and_(_ranking.c.project_id == _tasks.c.project_id, _ranking.c.task_id == _tasks.c.task_id)
        query = (
            sa.select(_tasks, _ranking.c.priority)
            .join(_ranking, here)
            .where(_tasks.c.project_id == project_id, _tasks.c.status == "unlabelled")
            .order_by(_ranking.c.priority.desc(), _tasks.c.task_id)
            .limit(limit)
        )
        with self._read() as connection:
            rows = [dict(row._mapping) for row in connection.execute(query)]
        return [(Task(**row), priority) for row in rows for priority in [row.pop("priority")]]

    def priorities(self, project_id: int, task_ids: Sequence[int]) -> dict[int, float]:
        """Return the priorities of those of the tasks that the ranking holds."""
        found: dict[int, float] = {}
        with self._read() as connection:
            for chunk in _chunks(list(task_ids), 500):
                here = sa.and_(_ranking.c.project_id == project_id, _ranking.c.task_id.in_(chunk))
                rows = connection.execute(sa.select(_ranking.c.task_id, _ranking.c.priority).where(here))
                found.update({row[0]: row[1] for row in rows})
        return found

    # -- what was published -------------------------------------------------------------------------------------------
    def put_published(self, project_id: int, version: str, rows: Iterable[tuple[int, float, bytes | None]]) -> None:
        """Keep what annotators are shown: (task id, score, PNG of the predicted mask or None)."""
        now = time.time()
        keys = {"project_id": project_id, "version": version, "published_at": now}
        values = [keys | {"task_id": task, "score": score, "mask": mask} for task, score, mask in rows]
        if not values:
            return
        self._upsert(_published, values, keys=("project_id", "version", "task_id"))
        with self._write() as connection:
            # Noted before it is served: where a crash keeps it from ever being, it must be pruned all the same.
            connection.execute(self._insert(_versions).values(**keys).on_conflict_do_nothing())

    def published_mask(self, project_id: int, version: str, task_id: int) -> bytes | None:
        """Return the PNG of the mask that was shown with this version, or None."""
        table = _published.c
        here = sa.and_(table.project_id == project_id, table.version == version, table.task_id == task_id)
        with self._read() as connection:
            return connection.execute(sa.select(table.mask).where(here)).scalar()

    def queue_length(self, project_id: int, version: str) -> int:
        """Return how many unlabelled tasks carry that version's prediction."""
        here = sa.and_(_published.c.project_id == _tasks.c.project_id, _published.c.task_id == _tasks.c.task_id)
        query = sa.select(sa.func.count()).select_from(_tasks).join(_published, here)
        query = query.where(_tasks.c.project_id == project_id, _tasks.c.status == "unlabelled")
        with self._read() as connection:
            return int(connection.execute(query.where(_published.c.version == version)).scalar_one())

    def mark_published(self, project_id: int, version: str) -> None:
        """Make `version` the one that is shown; the one before starts to retire."""
        now = time.time()
        here = _versions.c.project_id == project_id
        others = sa.and_(here, _versions.c.version != version, _versions.c.retired_at.is_(None))
        row = {"project_id": project_id, "version": version, "published_at": now, "retired_at": None}
        with self._write() as connection:
            connection.execute(sa.update(_versions).where(others).values(retired_at=now))
            statement = self._insert(_versions).values(**row)
            keys = ["project_id", "version"]
            connection.execute(statement.on_conflict_do_update(index_elements=keys, set_={"retired_at": None}))
            mine = _projects.c.id == project_id
            connection.execute(sa.update(_projects).where(mine).values(published_version=version))

    def retired_versions(self, project_id: int, *, before: float) -> list[str]:
        """Return versions that were retired before that time (seconds since the epoch), longest ago first."""
        here = sa.and_(_versions.c.project_id == project_id, _versions.c.retired_at < before)
        query = sa.select(_versions.c.version).where(here).order_by(_versions.c.retired_at, _versions.c.version)
        with self._read() as connection:
            return list(connection.execute(query).scalars())

    def versions(self, project_id: int) -> list[str]:
        """Return the published versions whose predictions the host still holds, newest first."""
        here = _versions.c.project_id == project_id
        query = sa.select(_versions.c.version).where(here).order_by(_versions.c.published_at.desc())
        with self._read() as connection:
            return list(connection.execute(query).scalars())

    def forget_version(self, project_id: int, version: str) -> None:
        """Drop what is kept of a pruned version; what annotators made of it stays with the tasks."""
        with self._write() as connection:
            for table in (_versions, _published):
                here = sa.and_(table.c.project_id == project_id, table.c.version == version)
                connection.execute(sa.delete(table).where(here))

    # -- plumbing -----------------------------------------------------------------------------------------------------
    def secret(self, key: str, make: str) -> str:
        """Return the value kept under a key; `make` is kept when there is none yet."""
        with self._write() as connection:
            connection.execute(self._insert(_meta).values(key=key, value=make).on_conflict_do_nothing())
            return str(connection.execute(sa.select(_meta.c.value).where(_meta.c.key == key)).scalar_one())

    def note(self, key: str) -> str | None:
        """Return a note of an earlier run, or None."""
        with self._read() as connection:
            return connection.execute(sa.select(_meta.c.value).where(_meta.c.key == key)).scalar()

    def set_note(self, key: str, value: str) -> None:
        """Keep a note for later runs."""
        self._upsert(_meta, [{"key": key, "value": value}], keys=("key",))

    def _upsert(self, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, keys: Sequence[str]) -> None:
        if not rows:
            return
        statement = self._insert(table)
        changes = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
        with self._write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes), list(rows))

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        """A transaction that takes SQLite's write lock at once: an upgrade from a read lock could not wait for it."""
        with self._engine.connect().execution_options(immediate=True) as connection, connection.begin():
            yield connection


def _chunks(values: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _open(url: str) -> sa.Engine:
    parsed = _parse(url)
    try:
        if parsed.drivername.startswith("sqlite") and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(parsed)
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", _configure_sqlite)
            sa.event.listen(engine, "begin", _begin_sqlite)
        try:
            _create_schema(engine)
        except BaseException:
            engine.dispose()
            raise
    except (sa.exc.SQLAlchemyError, OSError, ImportError) as error:
        reason = str(error).splitlines()[0]  # the rest is a link
        shown = parsed.render_as_string(hide_password=True)
        raise StoreError(f"The state database {shown} cannot be opened: {reason}. Check {_setting(parsed)}.") from error
    return engine


def _parse(url: str) -> sa.URL:
    try:
        return sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        # The address may hold a password: it is not shown.
        raise StoreError(
            "The state database cannot be opened: NEXTMASK_DATABASE_URL is no SQLAlchemy address, such as "
            "postgresql+psycopg://user:password@host:5432/name."
        ) from None


def _setting(url: sa.URL) -> str:
    return "MODEL_DIR" if url.drivername.startswith("sqlite") else "NEXTMASK_DATABASE_URL"


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # Python's driver would begin transactions by itself, and late; we begin them (see _begin_sqlite).
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin_sqlite(connection: sa.Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _create_schema(engine: sa.Engine) -> None:
    with engine.connect().execution_options(immediate=True) as connection, connection.begin():
        _metadata.create_all(connection)
        found = connection.execute(sa.select(_meta.c.value).where(_meta.c.key == "schema")).scalar()
        if found is None:
            connection.execute(sa.insert(_meta).values(key="schema", value=str(SCHEMA_VERSION)))
        elif found != str(SCHEMA_VERSION):
            raise StoreError(
                f"The state database has schema {found}, this nextmask needs {SCHEMA_VERSION}. Use the nextmask that"
                " wrote it, or move MODEL_DIR away: labels stay in Label Studio and are read again."
            )
