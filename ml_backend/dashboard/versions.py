"""The page of versions: what they measured, why one was kept back, and the way back to an earlier one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from ml_backend.dashboard.pages import MAX_ID, ProjectId, project_of
from ml_backend.dashboard.rendering import count, render
from ml_backend.errors import CheckpointError
from ml_backend.learning.checkpoints import Version, VersionRecord
from ml_backend.learning.measuring.words import measure_text, recorded
from ml_backend.projects.folders import checkpoints_of
from ml_backend.projects.serving import roll_back
from ml_backend.settings import Settings
from ml_backend.store import Store

VersionNumber = Annotated[int, Path(ge=1, le=MAX_ID)]


def add_pages(router: APIRouter, settings: Settings, store: Store) -> None:
    """Add `/projects/{project_id}/versions`, the question whether to roll back, and the answer."""

    @router.get("/projects/{project_id}/versions")
    def versions(request: Request, project_id: ProjectId, back: Annotated[int, Query(ge=0, le=MAX_ID)] = 0) -> Response:
        project = project_of(store, project_id)
        checkpoints = checkpoints_of(settings, store, project_id)
        serving = checkpoints.current()
        number = serving.number if serving else 0
        return render(
            request,
            "versions.html",
            project=project,
            tab="versions",
            records=checkpoints.history()[::-1],
            damaged=checkpoints.damaged(),
            available={version.number: named(version, number) for version in checkpoints.versions()[::-1]},
            serving=number,
            trained_at=trained_at,
            rolled_back_to=back,
        )

    @router.get("/projects/{project_id}/versions/{number}/serve")
    def ask(request: Request, project_id: ProjectId, number: VersionNumber) -> Response:
        project = project_of(store, project_id)
        version = good_version(settings, store, project_id, number)
        serving = checkpoints_of(settings, store, project_id).current()
        return render(request, "roll_back.html", project=project, tab="versions", version=version, serving=serving)

    @router.post("/projects/{project_id}/versions/{number}/serve")
    def serve(request: Request, project_id: ProjectId, number: VersionNumber) -> Response:
        project_of(store, project_id)
        good_version(settings, store, project_id, number)
        roll_back(settings, store, project_id, number)
        root = request.scope.get("root_path", "")
        return RedirectResponse(f"{root}/projects/{project_id}/versions?back={number}", 303)


def named(version: Version, serving: int) -> str:
    """Return what tells a version from the others, in a line: its state, date, measure and labels.

    Args:
        serving: number of the version that serves.
    """
    record, words = version.record, list[str]()
    words += ["serves"] if version.number == serving else []
    words += [] if record.accepted else ["kept back"]
    state = f" ({', '.join(words)})" if words else ""
    date = record.created_at[:16].replace("T", " ")
    miou = measure_text(recorded(record, "miou"))
    measured = f"mIoU {miou}" if miou else "not measured"
    return f"{version.number}{state}: {measured}, {count(len(record.labels))} labels, {date} UTC"


def trained_at(record: VersionRecord) -> float | None:
    """Return when a version was trained, in seconds since the epoch; None where its record does not say."""
    try:
        return datetime.fromisoformat(record.created_at).timestamp()
    except ValueError:
        return None


def good_version(settings: Settings, store: Store, project_id: int, number: int) -> Version:
    """Return a version that can be served.

    Raises:
        HTTPException: 404, it is not there, or it is damaged.
    """
    try:
        return checkpoints_of(settings, store, project_id).get(number)
    except CheckpointError as error:
        raise HTTPException(404, str(error)) from None
