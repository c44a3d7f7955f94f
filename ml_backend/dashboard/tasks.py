"""The page of tasks that no version learns from, or only in part: skipped, failed, passed over; and why."""

from __future__ import annotations

from typing import Final, Literal

from fastapi import APIRouter, Request, Response

from ml_backend.dashboard.pages import PageNumber, Pager, ProjectId, editor_address, project_of
from ml_backend.dashboard.rendering import render
from ml_backend.settings import Settings
from ml_backend.store import Decision, Store, Task

PER_PAGE: Final = 50
Reason = Literal["all", "failed", "skipped", "passed"]


def add_pages(router: APIRouter, settings: Settings, store: Store) -> None:
    """Add `/projects/{project_id}/tasks`."""

    @router.get("/projects/{project_id}/tasks")
    def tasks(request: Request, project_id: ProjectId, reason: Reason = "all", page: PageNumber = 1) -> Response:
        project = project_of(store, project_id)
        counts = store.count_left_out(project_id)
        pager = Pager.of(page, counts[reason], PER_PAGE)
        rows = store.left_out(project_id, reason, limit=PER_PAGE, offset=pager.start)
        return render(
            request,
            "tasks.html",
            project=project,
            tab="tasks",
            reason=reason,
            pager=pager,
            counts=counts,
            rows=[(task, why(task, decision), editor_address(settings, task)) for task, decision in rows],
        )


def why(task: Task, decision: Decision | None) -> str:
    """Say why no version learns from a task, or only in part.

    Args:
        decision: of stream mode on the task; None where there is none.
    """
    if task.error:
        return task.error
    if task.status == "skipped":
        return "Skipped by an annotator. It returns to the queue once the skip is cancelled in Label Studio."
    if decision is None:
        return "Passed over by stream mode."
    threshold = decision.threshold
    limit = "and no value would have been enough" if threshold is None else f"below the threshold of {threshold:.4g}"
    return f"Passed over by stream mode: information {decision.score:.4g}, {limit}."
