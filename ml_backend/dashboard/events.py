"""The page of events: what happened to a project, newest first."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from ml_backend.dashboard.pages import ProjectId, project_of
from ml_backend.dashboard.rendering import render
from ml_backend.store import Store

PER_PAGE: Final = 50
Level = Literal["all", "warning", "error"]
_LEVELS: Final[dict[str, tuple[str, ...] | None]] = {"all": None, "warning": ("warning", "error"), "error": ("error",)}


def add_pages(router: APIRouter, store: Store) -> None:
    """Add `/projects/{project_id}/events`."""

    @router.get("/projects/{project_id}/events")
    def events(
        request: Request,
        project_id: ProjectId,
        level: Level = "all",
        before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    ) -> Response:
        project = project_of(store, project_id)
        rows = store.events(project_id, limit=PER_PAGE + 1, before=before, levels=_LEVELS[level])
        return render(
            request,
            "events.html",
            project=project,
            tab="events",
            level=level,
            before=before,
            events=rows[:PER_PAGE],
            older=rows[PER_PAGE - 1].id if len(rows) > PER_PAGE else None,
        )
