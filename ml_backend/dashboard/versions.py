"""The versions of a project's model: what they measured, why one was kept back, and the way back to one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from ml_backend.dashboard.pages import MAX_ID, ProjectId, project_of
from ml_backend.dashboard.rendering import render
from ml_backend.errors import CheckpointError
from ml_backend.learning.checkpoints import Version, VersionRecord
from ml_backend.projects.services import Services
from ml_backend.projects.serving import roll_back

VersionNumber = Annotated[int, Path(ge=1, le=MAX_ID)]


def add_pages(router: APIRouter, services: Services) -> None:
    """Add the list, the question whether to go back, and the answer."""

    @router.get("/projects/{project}/versions")
    def versions(request: Request, project: ProjectId, back: Annotated[int, Query(ge=0, le=MAX_ID)] = 0) -> Response:
        found = project_of(services, project)
        checkpoints = services.checkpoints(project)
        available = [version.number for version in checkpoints.versions()[::-1]]
        shown: dict[str, Any] = {"records": checkpoints.history()[::-1], "damaged": checkpoints.damaged()}
        serving = checkpoints.current()
        return render(
            request,
            "versions.html",
            project=found,
            tab="versions",
            serving=serving.number if serving else 0,
            available=available,
            trained_at=trained_at,
            went_back=back,
            **shown,
        )

    @router.get("/projects/{project}/versions/{number}/serve")
    def ask(request: Request, project: ProjectId, number: VersionNumber) -> Response:
        found = project_of(services, project)
        version = _version(services, project, number)
        serving = services.checkpoints(project).current()
        return render(request, "roll_back.html", project=found, tab="versions", version=version, serving=serving)

    @router.post("/projects/{project}/versions/{number}/serve")
    def serve(request: Request, project: ProjectId, number: VersionNumber) -> Response:
        project_of(services, project)
        _version(services, project, number)
        roll_back(services.settings, services.store, project, number)
        root = request.scope.get("root_path", "")
        return RedirectResponse(f"{root}/projects/{project}/versions?back={number}", 303)


def trained_at(record: VersionRecord) -> float | None:
    """Return when a version was made, in seconds since the epoch."""
    try:
        return datetime.fromisoformat(record.created_at).timestamp()
    except ValueError:
        return None


def _version(services: Services, project_id: int, number: int) -> Version:
    try:
        return services.checkpoints(project_id).get(number)
    except CheckpointError as error:
        raise HTTPException(404, str(error)) from None
