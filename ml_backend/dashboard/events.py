"""What happened to a project, newest first."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from ml_backend.dashboard.pages import ProjectId, project_of
from ml_backend.dashboard.rendering import render
from ml_backend.projects.services import Services

PER_PAGE: Final = 50
Level = Literal["all", "warning", "error"]
_LEVELS: Final[dict[str, tuple[str, ...] | None]] = {"all": None, "warning": ("warning", "error"), "error": ("error",)}


def add_pages(router: APIRouter, services: Services) -> None:
    """Add the list."""

    @router.get("/projects/{project}/events")
    def events(
        request: Request,
        project: ProjectId,
        level: Level = "all",
        before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    ) -> Response:
        found = project_of(services, project)
        rows = services.store.events(project, limit=PER_PAGE + 1, before=before, levels=_LEVELS[level])
        return render(
            request,
            "events.html",
            project=found,
            tab="events",
            level=level,
            before=before,
            events=rows[:PER_PAGE],
            older=rows[PER_PAGE - 1].id if len(rows) > PER_PAGE else None,
        )
