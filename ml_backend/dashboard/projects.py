"""The first page: all connected projects, failed ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from ml_backend.dashboard.rendering import render
from ml_backend.learning.measuring import Estimate
from ml_backend.learning.measuring.words import recorded
from ml_backend.projects.serving import serving_record
from ml_backend.projects.signs_of_life import WORKERS_SHOWN, WorkerSign, worker_failure, workers
from ml_backend.projects.status import gone_text, shown_state
from ml_backend.settings import Settings
from ml_backend.store import Event, Project, Store


@dataclass(frozen=True)
class Summary:
    """A project in the list.

    Attributes:
        state: as `Status.state`.
        labels, pool: numbers of labelled and unlabelled tasks. queue: of published ones among the unlabelled.
        miou: held-out mIoU of the version that serves; None where it was not measured.
        event: the latest; None before the first.
    """

    project: Project
    state: str
    labels: int
    pool: int
    queue: int
    miou: Estimate | None
    event: Event | None


def add_pages(router: APIRouter, settings: Settings, store: Store) -> None:
    """Add `/`."""

    @router.get("/")
    def projects(request: Request) -> Response:
        projects = store.projects()
        titles = {project.id: project.title for project in projects}
        summaries = [summarise(settings, store, project) for project in projects]
        gone = [gone_text(settings, project) for project in store.gone_projects()]
        return render(
            request,
            "projects.html",
            summaries=sorted(summaries, key=_by_urgency),
            gone=gone,
            worker_failure=worker_failure(store),
            devices=[(lease, titles.get(lease.project_id)) for lease in store.held_devices()],
            store_time=store.time(),
            workers=[_with_work(sign, projects) for sign in workers(store)[:WORKERS_SHOWN]],
        )


def summarise(settings: Settings, store: Store, project: Project) -> Summary:
    """Describe a project in a few numbers, all counted by the database."""
    counts = store.count_tasks(project.id)
    record = serving_record(settings, store, project)
    events = store.events(project.id, limit=1)
    return Summary(
        project=project,
        state=shown_state(project),
        labels=counts.get("labelled", 0),
        pool=counts.get("unlabelled", 0),
        queue=store.queue_length(project.id, project.published_version),
        miou=recorded(record, "miou") if record else None,
        event=events[0] if events else None,
    )


def _with_work(sign: WorkerSign, projects: Sequence[Project]) -> tuple[WorkerSign, list[Project]]:
    """Return a worker with the projects that it works on."""
    held = [project for project in projects if project.is_held]
    return sign, [project for project in held if (project.lease_owner or "").startswith(f"{sign.worker}:")]


def _by_urgency(summary: Summary) -> tuple[bool, int]:
    return summary.project.state != "failed", summary.project.id
