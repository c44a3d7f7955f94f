"""The first page: all connected projects."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from ml_backend.dashboard.rendering import render
from ml_backend.projects.services import Services
from ml_backend.projects.serving import serving_record
from ml_backend.projects.status import gone_text
from ml_backend.store import Event, Project


@dataclass(frozen=True)
class Summary:
    """One project in the list.

    Attributes:
        labels, pool: labelled and unlabelled tasks. queue: published ones among the unlabelled.
        miou: held-out mIoU of the version that serves; None where none was measured.
        event: the last one.
    """

    project: Project
    labels: int
    pool: int
    queue: int
    miou: float | None
    event: Event | None


def add_pages(router: APIRouter, services: Services) -> None:
    """Add `/`."""

    @router.get("/")
    def projects(request: Request) -> Response:
        summaries = [summarise(services, project) for project in services.store.projects()]
        gone = [gone_text(services.settings, project) for project in services.store.gone_projects()]
        return render(request, "projects.html", summaries=sorted(summaries, key=_by_urgency), gone=gone)


def summarise(services: Services, project: Project) -> Summary:
    """Describe a project in a few numbers, all counted by the database."""
    counts = services.store.count_tasks(project.id)
    record = serving_record(services.settings, project)
    events = services.store.events(project.id, limit=1)
    return Summary(
        project=project,
        labels=counts.get("labelled", 0),
        pool=counts.get("unlabelled", 0),
        queue=services.store.queue_length(project.id, project.published_version),
        miou=record.measures.get("miou") if record else None,
        event=events[0] if events else None,
    )


def _by_urgency(summary: Summary) -> tuple[bool, int]:
    return summary.project.state != "failed", summary.project.id
