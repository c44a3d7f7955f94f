"""Tasks that nobody learns from, and why: skipped, failed, passed over."""

from __future__ import annotations

from typing import Final, Literal

from fastapi import APIRouter, Request, Response

from ml_backend.dashboard.pages import PageNumber, Pager, ProjectId, editor_address, project_of
from ml_backend.dashboard.rendering import render
from ml_backend.projects.services import Services
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
        page: PageNumber = 1,
    ) -> Response:
        found = project_of(services, project)
        counts = services.store.count_left_out(project)
        pager = Pager.of(page, counts[reason], PER_PAGE)
        rows = services.store.left_out(project, reason, limit=PER_PAGE, offset=pager.start)
        return render(
            request,
            "tasks.html",
            project=found,
            tab="tasks",
            reason=reason,
            pager=pager,
            counts=counts,
            rows=[
                (task, why(task, decision), editor_address(services, project, task.task_id)) for task, decision in rows
            ],
        )


def why(task: Task, decision: Decision | None) -> str:
    """Say why nobody learns from a task, or not in full."""
    if task.error:
        return task.error
    if task.status == "skipped":
        return "Skipped by an annotator. It returns to the queue once the skip is cancelled in Label Studio."
    if decision is None:
        return "Passed over by stream mode."
    threshold = decision.threshold
    limit = "and no value would have been enough" if threshold is None else f"below the threshold of {threshold:.4g}"
    return f"Passed over by stream mode: information {decision.score:.4g}, {limit}."
