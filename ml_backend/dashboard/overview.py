"""A project's first page: what goes on, what labelling brings, what it takes, and what is wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from ml_backend.dashboard.curves import learning_curve
from ml_backend.dashboard.labelling_time import labelling
from ml_backend.dashboard.pages import ProjectId, project_of
from ml_backend.dashboard.rendering import render
from ml_backend.projects.services import Services
from ml_backend.projects.settings import project_settings
from ml_backend.projects.status import Status, answered_efforts, in_full, project_state
from ml_backend.store import Project

EVENTS: Final = 5
"""How many of the last events are shown."""
ERRORS: Final = 5
"""How many of the tasks with errors are shown; the page of tasks has all."""
PAIRS: Final = 400
"""How many answered queries are drawn, the last ones."""
SILENT_SECONDS: Final = 60.0
"""After which a project that waits for a worker, and has none, says so."""
_ASKED: Final = {
    "train": "A training was asked for. It starts when the worker looks next, within seconds, if there is a label.",
    "rank": "A new order was asked for. It starts when the worker looks next, within seconds.",
}


@dataclass(frozen=True)
class Live:
    """What changes from one second to the next.

    Attributes:
        doing: what is going on, in words; empty at rest.
        share: how far that is, in [0, 1]; None where it cannot be told.
        elapsed: seconds since it began.
        is_busy: ask again soon.
        is_silent: there is work, and no worker that does it.
    """

    status: Status
    doing: str
    share: float | None
    elapsed: float | None
    is_busy: bool
    is_silent: bool


def add_pages(router: APIRouter, services: Services) -> None:
    """Add `/projects/{project}`, its live part, and what its buttons ask for."""

    @router.get("/projects/{project}")
    def overview(
        request: Request, project: ProjectId, asked: Annotated[str, Query(pattern="^(train|rank)?$")] = ""
    ) -> Response:
        found = project_of(services, project)
        settings, _ = project_settings(services.settings, services.store, found)
        labels = services.store.labels(project)
        records = services.checkpoints(project).history()
        efforts = answered_efforts(services.store, project)
        state = project_state(services.settings, services.store, project)
        status = in_full(services.settings, services.store, state, records=records, labels=labels, efforts=efforts)
        errors = {where: error for where, error in status.errors.items() if where != "project"}
        return render(
            request,
            "overview.html",
            project=found,
            tab="overview",
            live=live(found, status),
            curve=learning_curve(records, labels),
            labelling=labelling(labels),
            pairs=efforts[-PAIRS:],
            errors=dict(list(errors.items())[:ERRORS]),
            error_count=len(errors),
            events=services.store.events(project, limit=EVENTS),
            asked=_ASKED.get(asked, ""),
            label_studio=services.settings.effective_label_studio_public_url,
            train_after=settings.train_after,
            held_out_share=settings.held_out_share,
        )

    @router.get("/projects/{project}/live")
    def live_part(request: Request, project: ProjectId, version: str = "") -> Response:
        found = project_of(services, project)
        now = live(found, project_state(services.settings, services.store, project))
        is_newer = found.published_version != version
        return render(request, "live.html", project=found, live=now, shown=version, is_newer=is_newer)

    @router.post("/projects/{project}/train")
    def train(request: Request, project: ProjectId) -> Response:
        services.store.wake(project_of(services, project).id, train=True)
        return _back(request, project, "train")

    @router.post("/projects/{project}/rank")
    def rank(request: Request, project: ProjectId) -> Response:
        services.store.wake(project_of(services, project).id, ranking_key="")
        return _back(request, project, "rank")


def live(project: Project, status: Status) -> Live:
    """Tell what goes on."""
    now = time.time()
    is_held = project.lease_owner is not None and (project.lease_expires or 0) > now
    is_busy = is_held and bool(status.stage)
    waits = project.dirty_since is not None and now - project.dirty_since > SILENT_SECONDS
    total = status.total
    return Live(
        status=status,
        doing=status.stage if is_busy else "",
        share=min(1.0, status.done / total) if is_busy and total else None,
        elapsed=max(0.0, now - status.since) if is_busy and status.since else None,
        is_busy=is_busy,
        is_silent=waits and not is_held,
    )


def _back(request: Request, project_id: int, asked: str) -> Response:
    root = request.scope.get("root_path", "")
    return RedirectResponse(f"{root}/projects/{project_id}?asked={asked}", 303)
