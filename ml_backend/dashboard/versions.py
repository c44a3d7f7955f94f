"""The page of versions: what they measured, why one was kept back, and the way back to an earlier one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from ml_backend.dashboard.pages import MAX_ID, ProjectId, project_of
from ml_backend.dashboard.rendering import render
from ml_backend.errors import CheckpointError
from ml_backend.learning.checkpoints import Version, VersionRecord
from ml_backend.projects.services import Services, roll_back

VersionNumber = Annotated[int, Path(ge=1, le=MAX_ID)]


def add_pages(router: APIRouter, services: Services) -> None:
    """Add `/projects/{project_id}/versions`, the question whether to roll back, and the answer."""

    @router.get("/projects/{project_id}/versions")
    def versions(request: Request, project_id: ProjectId, back: Annotated[int, Query(ge=0, le=MAX_ID)] = 0) -> Response:
        project = project_of(services.store, project_id)
        checkpoints = services.checkpoints(project_id)
        serving = checkpoints.current()
        return render(
            request,
            "versions.html",
            project=project,
            tab="versions",
            records=checkpoints.history()[::-1],
            damaged=checkpoints.damaged(),
            available=[version.number for version in checkpoints.versions()[::-1]],
            serving=serving.number if serving else 0,
            trained_at=trained_at,
            rolled_back_to=back,
        )

    @router.get("/projects/{project_id}/versions/{number}/serve")
    def ask(request: Request, project_id: ProjectId, number: VersionNumber) -> Response:
        project = project_of(services.store, project_id)
        version = _version(services, project_id, number)
        serving = services.checkpoints(project_id).current()
        return render(request, "roll_back.html", project=project, tab="versions", version=version, serving=serving)

    @router.post("/projects/{project_id}/versions/{number}/serve")
    def serve(request: Request, project_id: ProjectId, number: VersionNumber) -> Response:
        project_of(services.store, project_id)
        _version(services, project_id, number)
        roll_back(services, project_id, number)
        root = request.scope.get("root_path", "")
        return RedirectResponse(f"{root}/projects/{project_id}/versions?back={number}", 303)


def trained_at(record: VersionRecord) -> float | None:
    """Return when a version was trained, in seconds since the epoch; None where its record does not say."""
    try:
        return datetime.fromisoformat(record.created_at).timestamp()
    except ValueError:
        return None


def _version(services: Services, project_id: int, number: int) -> Version:
    """Return a version that can be served.

    Raises:
        HTTPException: 404, it is not there, or it is damaged.
    """
    try:
        return services.checkpoints(project_id).get(number)
    except CheckpointError as error:
        raise HTTPException(404, str(error)) from None
