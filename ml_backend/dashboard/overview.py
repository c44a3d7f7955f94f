"""A project's first page."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from ml_backend.dashboard.pages import ProjectId, project_of
from ml_backend.dashboard.projects import summarise
from ml_backend.dashboard.rendering import render
from ml_backend.services import Services


def add_pages(router: APIRouter, services: Services) -> None:
    """Add `/projects/{project}`."""

    @router.get("/projects/{project}")
    def overview(request: Request, project: ProjectId) -> Response:
        found = project_of(services, project)
        summary = summarise(services, found)
        return render(request, "overview.html", project=found, tab="overview", summary=summary)
