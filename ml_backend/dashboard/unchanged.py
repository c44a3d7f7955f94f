"""The page of labels that were submitted as the mask that was shown: whose they are, and the way to each."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from ml_backend.dashboard.pages import MAX_ID, PageNumber, Pager, ProjectId, editor_address, project_of
from ml_backend.dashboard.rendering import render
from ml_backend.projects.settings import project_settings
from ml_backend.projects.unchanged import Annotator, unchanged_labels
from ml_backend.settings import Settings
from ml_backend.store import Store, Task

PER_PAGE: Final = 50
AnnotatorId = Annotated[int | None, Query(ge=1, le=MAX_ID)]


def add_pages(router: APIRouter, settings: Settings, store: Store) -> None:
    """Add `/projects/{project_id}/unchanged`."""

    @router.get("/projects/{project_id}/unchanged")
    def unchanged(
        request: Request, project_id: ProjectId, annotator: AnnotatorId = None, page: PageNumber = 1
    ) -> Response:
        project = project_of(store, project_id)
        own, _ = project_settings(settings, store, project)
        counts = unchanged_labels(own, store, project_id)
        people = {one.id: one for one in counts.annotators}
        whose = people.get(annotator) if annotator else None
        count = counts.unchanged if annotator is None else whose.unchanged if whose else 0
        pager = Pager.of(page, count, PER_PAGE)
        tasks = store.unchanged_labels(project_id, annotator=annotator, limit=PER_PAGE, offset=pager.start)
        return render(
            request,
            "unchanged.html",
            project=project,
            tab="tasks",
            annotator=annotator,
            whose=whose,
            unchanged=counts,
            pager=pager,
            rows=[(task, _title(people.get(task.annotator), task), editor_address(settings, task)) for task in tasks],
        )


def _title(annotator: Annotator | None, task: Task) -> str:
    """Say who made a label; whoever began to label while the page was made is not counted yet."""
    return annotator.title if annotator else f"user {task.annotator}"
