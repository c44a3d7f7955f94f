"""A project's first page: its state, learning curve, labelling effort, latest events, and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from ml_backend.dashboard.labelling_time import labelling_time
from ml_backend.dashboard.learning_curve import learning_curve
from ml_backend.dashboard.pages import ProjectId, project_of
from ml_backend.dashboard.pictures.subjects import NoPicture, labels_of
from ml_backend.dashboard.rendering import render
from ml_backend.projects.audit import first_audit_place
from ml_backend.projects.serving import version_records
from ml_backend.projects.settings import project_settings
from ml_backend.projects.status import Status, answered_efforts, in_full, project_state
from ml_backend.settings import Settings
from ml_backend.store import Project, Store

EVENTS: Final = 5
"""How many of the last events are shown."""
ERRORS: Final = 5
"""How many problems are shown; the page of tasks has those of all tasks."""
PAIRS: Final = 400
"""How many tasks with regions are drawn, the last ones."""
SILENT_SECONDS: Final = 60.0
"""How long work waits for a worker before the page says that there is none."""
_UNITS: Final = {"training": "steps", "training committee": "steps", "reading": "labels"}
_ASKED: Final = {
    "train": "Training requested. It starts within seconds, if a worker is running and an image is labelled.",
    "rank": "Ranking requested. It starts within seconds, if a worker is running.",
    "train-later": "A training runs already. Once it has ended, another one starts if labels have changed meanwhile.",
    "rank-later": "A ranking runs already.",
}


@dataclass(frozen=True)
class Live:
    """What changes from one second to the next.

    Attributes:
        doing: what the worker is doing, in words; empty at rest. unit: of what is counted, where it is not images.
        note: what is known of its result so far. left: seconds that it takes at most; None where that is not known.
        share: how much of that is done, in [0, 1]; None where that is not known.
        elapsed: seconds since it began; None at rest.
        is_busy: whether a worker is working on the project: the page asks again sooner. busy_with: training or
            ranking, where that goes on; else empty.
        is_silent: whether work is waiting and no worker picks it up.
    """

    status: Status
    doing: str
    unit: str
    note: str
    left: float | None
    share: float | None
    elapsed: float | None
    is_busy: bool
    busy_with: str
    is_silent: bool


def _class_colours(project: Project, settings: Settings) -> dict[str, str]:
    """Return the colour of each class that masks show; nothing where they are not known."""
    try:
        return dict(labels_of(project, settings).legend)
    except NoPicture:
        return {}


def add_pages(router: APIRouter, settings: Settings, store: Store) -> None:
    """Add `/projects/{project_id}`, its live part, and what its buttons request."""

    @router.get("/projects/{project_id}")
    def overview(
        request: Request, project_id: ProjectId, asked: Annotated[str, Query(pattern="^((train|rank)(-later)?)?$")] = ""
    ) -> Response:
        project = project_of(store, project_id)
        own_settings, _ = project_settings(settings, store, project)
        labels = store.labels(project_id)
        records = version_records(settings, store, project_id)
        efforts = answered_efforts(store, project_id)
        state = project_state(settings, store, project_id)
        status = in_full(settings, store, state, records=records, labels=labels, efforts=efforts)
        errors = {where: error for where, error in status.errors.items() if where not in {"project", "worker"}}
        now, curve = live(project, status, store.time()), learning_curve(records, labels)
        return render(
            request,
            "overview.html",
            project=project,
            tab="overview",
            live=now,
            curve=curve,
            colours=_class_colours(project, own_settings),
            labelling=labelling_time(labels),
            pairs=efforts[-PAIRS:],
            errors=dict(list(errors.items())[:ERRORS]),
            events=store.events(project_id, limit=EVENTS),
            asked=_ASKED.get(asked, ""),
            label_studio=settings.effective_label_studio_public_url,
            train_after=own_settings.train_after,
            held_out=store.count_held_out(project_id),
            first_audit=None if curve.measured else first_audit_place(own_settings, store, project_id),
            audit_share=own_settings.audit_share,
        )

    @router.get("/projects/{project_id}/live")
    def live_part(request: Request, project_id: ProjectId, version: str = "") -> Response:
        project = project_of(store, project_id)
        now = live(project, project_state(settings, store, project_id), store.time())
        is_newer = project.published_version != version
        return render(request, "live.html", project=project, live=now, shown=version, is_newer=is_newer)

    @router.post("/projects/{project_id}/train")
    def train(request: Request, project_id: ProjectId) -> Response:
        runs = busy_with(project_of(store, project_id)) == "training"
        store.wake(project_id, train=True)
        return _back(request, project_id, "train-later" if runs else "train")

    @router.post("/projects/{project_id}/rank")
    def rank(request: Request, project_id: ProjectId) -> Response:
        if busy_with(project_of(store, project_id)) == "ranking":
            return _back(request, project_id, "rank-later")
        store.wake(project_id, ranking_key="")
        return _back(request, project_id, "rank")


def live(project: Project, status: Status, now: float) -> Live:
    """Describe what the worker is doing for a project, at a time of the store's clock."""
    is_busy = project.is_held and bool(status.stage)
    waits = project.dirty_since is not None and now - project.dirty_since > SILENT_SECONDS
    total = status.total
    return Live(
        status=status,
        doing=status.stage if is_busy else "",
        unit=_UNITS.get(status.stage.split(":")[0], ""),
        note=project.stage_note if is_busy else "",
        left=max(0.0, status.ends - now) if is_busy and status.ends else None,
        share=min(1.0, status.done / total) if is_busy and total else None,
        elapsed=max(0.0, now - status.since) if is_busy and status.since else None,
        is_busy=is_busy,
        busy_with=busy_with(project),
        is_silent=waits and not project.is_held,
    )


def busy_with(project: Project) -> str:
    """Return what of training and ranking a worker does for a project now; empty: neither."""
    at_work = project.is_held and bool(project.stage)
    return project.state if at_work and project.state in {"training", "ranking"} else ""


def _back(request: Request, project_id: int, asked: str) -> Response:
    root = request.scope.get("root_path", "")
    return RedirectResponse(f"{root}/projects/{project_id}?asked={asked}", 303)
