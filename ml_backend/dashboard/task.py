"""The page of one task: its pictures large, and what its card in the queue says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response

from ml_backend.dashboard.pages import MAX_ID, ProjectId, editor_address, project_of
from ml_backend.dashboard.pictures import Pictures
from ml_backend.dashboard.queue import PAGE, Card, Cards, Strength, scores_of
from ml_backend.dashboard.rendering import render
from ml_backend.images.references import file_name
from ml_backend.projects.audit import audit_set
from ml_backend.projects.settings import project_settings
from ml_backend.settings import Settings
from ml_backend.store import Project, Store, Task

TaskId = Annotated[int, Path(ge=1, le=MAX_ID)]
Number = Annotated[int | None, Query(ge=1, le=MAX_ID)]
Name = Annotated[str, Query(pattern="^(image|mask|uncertainty|truth|first|second|difference)?$")]


@dataclass(frozen=True)
class Layer:
    """A picture that may lie over the image.

    Attributes:
        name: of the choice, as in addresses. title: for people. address: of the picture, below that of the task.
    """

    name: str
    title: str
    address: str


def add_pages(router: APIRouter, settings: Settings, store: Store, pictures: Pictures) -> None:
    """Add `/projects/{project_id}/tasks/{task_id}`."""

    @router.get("/projects/{project_id}/tasks/{task_id}")
    def task_page(
        request: Request,
        project_id: ProjectId,
        task_id: TaskId,
        layer: Name = "",
        strength: Strength = "60",
        a: Number = None,
        b: Number = None,
    ) -> Response:
        project, task = project_of(store, project_id), store.task(project_id, task_id)
        if task is None:
            raise HTTPException(404, f"Project {project_id} has no task {task_id}.")
        own_settings, _ = project_settings(settings, store, project)
        audit = audit_set(own_settings, store, project_id)
        cards = Cards(pictures, project, own_settings, store)
        before, card, after = _neighbours(store, project, task, cards)
        waits_empty = audit.opens_empty(task) and not task.mask_file
        layers = [] if waits_empty else _layers(project, task, a, b)
        return render(
            request,
            "task.html",
            project=project,
            tab="queue" if card else "",
            task=task,
            name=file_name(task.image),
            editor=editor_address(settings, task),
            card=card,
            queue_page=(card.entry.rank - 1) // PAGE + 1 if card else None,
            before=before,
            after=after,
            layers=layers,
            layer=layer if layer in {one.name for one in layers} else "image",
            strength=strength,
            versions=(a, b) if a and b else None,
            legend=[] if waits_empty else cards.legend,
        )


def _layers(project: Project, task: Task, a: int | None, b: int | None) -> list[Layer]:
    none, truth = Layer("image", "none", ""), Layer("truth", "label", "/truth?large=1")
    if a and b:
        versions = [
            Layer(name, f"version {number}", f"/prediction?version={number}&large=1")
            for name, number in (("first", a), ("second", b))
        ]
        difference = Layer("difference", "difference", f"/difference?a={a}&b={b}&large=1")
        return [none, *([truth] if task.mask_file else []), *versions, difference]
    mask = Layer("mask", "predicted mask", f"/mask?large=1&v={project.published_version}")
    heat = Layer("uncertainty", "uncertainty", f"/uncertainty?large=1&v={project.ranking_version}")
    return [none, *([truth] if task.mask_file else []), mask, heat]


def _neighbours(
    store: Store, project: Project, task: Task, cards: Cards
) -> tuple[Card | None, Card | None, Card | None]:
    """Return the cards of the task before, of the task, and of the task after it in the queue; None: there is none."""
    rank = store.rank_of(project.id, task.task_id)
    if rank is None:
        return None, None, None
    first = max(1, rank - 1)
    entries = store.queue_page(project.id, project.published_version, offset=first - 1, limit=rank - first + 2)
    by_rank = {card.entry.rank: card for card in cards.of(entries, scores_of(store, project.id, entries))}
    return by_rank.get(rank - 1), by_rank.get(rank), by_rank.get(rank + 1)
