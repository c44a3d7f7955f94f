"""Reads and writes of events: what happened to projects, for people to read later."""

from __future__ import annotations

import logging
from collections.abc import Collection

import sqlalchemy as sa

from ml_backend.errors import StoreUnavailable
from ml_backend.store.tables import EVENTS, Event
from ml_backend.store.transactions import Connections

logger = logging.getLogger(__name__)

KEPT_EVENTS = 2000
"""Events kept of each project."""
_EVENT_CHARACTERS = 2000


class Events(Connections):
    """Events of projects."""

    def add_event(self, project_id: int, kind: str, text: str, *, level: str = "info") -> None:
        """Store an event, and delete the oldest of the project beyond KEPT_EVENTS.

        An event that cannot be stored (disk full, database locked or away) is logged instead, so that work goes on.

        Args:
            project_id: Label Studio's.
            kind: see `Event`.
            text: a sentence or two; longer texts are cut.
            level: info, warning or error.
        """
        row = {"project_id": project_id, "at": self._now(), "kind": kind, "level": level, "text": _storable(text)}
        newest = sa.select(EVENTS.c.id).where(EVENTS.c.project_id == project_id).order_by(EVENTS.c.id.desc())
        first_old = newest.offset(KEPT_EVENTS).limit(1).scalar_subquery()
        old = sa.and_(EVENTS.c.project_id == project_id, EVENTS.c.id <= first_old)
        try:
            with self._write() as connection:
                connection.execute(sa.insert(EVENTS).values(**row))
                connection.execute(sa.delete(EVENTS).where(old))
        except (sa.exc.SQLAlchemyError, StoreUnavailable) as error:
            reason = str(error).splitlines()[0]
            logger.warning("project=%s event=%s cannot be kept: %s", project_id, kind, reason)

    def events(
        self,
        project_id: int | None,
        *,
        limit: int = 100,
        before: int | None = None,
        levels: Collection[str] | None = None,
    ) -> list[Event]:
        """Return events, newest first.

        Args:
            project_id: whose events; None: of all projects.
            limit: at most so many events.
            before: id of an event; only older events.
            levels: only events of these levels; None: of all levels.
        """
        query = sa.select(EVENTS).order_by(EVENTS.c.id.desc()).limit(limit)
        if project_id is not None:
            query = query.where(EVENTS.c.project_id == project_id)
        if before is not None:
            query = query.where(EVENTS.c.id < before)
        if levels is not None:
            query = query.where(EVENTS.c.level.in_(levels))
        with self._read() as connection:
            return [Event(**row._mapping) for row in connection.execute(query)]


def _storable(text: str) -> str:
    """Return a text without characters that databases refuse, cut to _EVENT_CHARACTERS."""
    text = text.encode("utf-8", "replace").decode().replace("\0", "")
    return text if len(text) <= _EVENT_CHARACTERS else f"{text[: _EVENT_CHARACTERS - 1]}…"
