"""Tasks that nobody learns from, and why: skipped, failed, passed over."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from ml_backend.dashboard.pages import MAX_ID, ProjectId, project_of
from ml_backend.dashboard.rendering import render
from ml_backend.services import Services
from ml_backend.store import Decision, Task

PER_PAGE: Final = 50
Reason = Literal["all", "failed", "skipped", "passed"]


def add_pages(router: APIRouter, services: Services) -> None:
    """Add the list."""

    @router.get("/projects/{project}/tasks")
    def tasks(
        request: Request,
        project: ProjectId,
        reason: Reason = "all",
        page: Annotated[int, Query(ge=1, le=MAX_ID // PER_PAGE)] = 1,
    ) -> Response:
        found = project_of(services, project)
        counts = services.store.count_left_out(project)
        rows = services.store.left_out(project, reason, limit=PER_PAGE, offset=(page - 1) * PER_PAGE)
        return render(
            request,
            "tasks.html",
            project=found,
            tab="tasks",
            reason=reason,
            page=page,
            pages=max(1, -(-counts[reason] // PER_PAGE)),
            counts=counts,
            rows=[(task, why(task, decision)) for task, decision in rows],
            label_studio=services.settings.effective_label_studio_public_url,
        )


def why(task: Task, decision: Decision | None) -> str:
    """Say why nobody learns from a task, or not in full."""
    if task.error:
        return task.error
    if task.status == "skipped":
        return "An annotator skipped it. It comes back when the skip is withdrawn in Label Studio."
    if decision is None:
        return "The stream passed it over."
    if decision.threshold is None:
        return f"The stream passed it over: information {decision.score:.4g}; nothing would have been enough."
    return f"The stream passed it over: information {decision.score:.4g}, where {decision.threshold:.4g} was needed."
