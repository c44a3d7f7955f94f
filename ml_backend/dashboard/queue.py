"""The queue as pictures: what is labelled next, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from fastapi import APIRouter, Request, Response

from ml_backend.annotations.boxes import boxes_from_text
from ml_backend.dashboard.pages import PageNumber, Pager, ProjectId, editor_address, project_of
from ml_backend.dashboard.pictures import NoPicture, Pictures, Subject, hex_colour
from ml_backend.dashboard.pictures.subjects import Labels, labels_of
from ml_backend.dashboard.rendering import render
from ml_backend.label_studio.predictions import model_number
from ml_backend.projects.services import Services
from ml_backend.projects.settings import project_settings
from ml_backend.settings import Settings
from ml_backend.store import Project, QueueEntry
from strategies import Words, catalogue

PAGE: Final = 12
"""Tasks on a page."""
_MOST_CLASSES = 6
_UNITS: Final = {"clicks": "clicks", "seconds": "s"}

Layer = Literal["image", "mask", "uncertainty"]
Strength = Literal["30", "60", "100"]


@dataclass(frozen=True)
class ClassShare:
    """A class that is predicted in an image."""

    name: str
    colour: str
    share: float


@dataclass(frozen=True)
class Card:
    """A task as the page shows it.

    Attributes:
        why: why it is ranked here.
        classes: predicted ones, the largest first; empty where nothing is known yet.
        regions: how many are asked for; 0: the whole image.
        effort: what is expected, with its unit; empty where nothing predicts it.
        problem: why it cannot be shown or used; empty where it can.
        editor: address of the task in Label Studio.
    """

    entry: QueueEntry
    why: str
    classes: tuple[ClassShare, ...]
    regions: int
    effort: str
    problem: str
    editor: str


def add_pages(router: APIRouter, services: Services, pictures: Pictures) -> None:
    """Add `/projects/{project}/queue`."""

    @router.get("/projects/{project}/queue")
    def queue(
        request: Request, project: ProjectId, page: PageNumber = 1, layer: Layer = "mask", strength: Strength = "60"
    ) -> Response:
        found = project_of(services, project)
        settings, _ = project_settings(services.settings, services.store, found)
        total = services.store.count_ranked(project)
        pager = Pager.of(page, total, PAGE)
        labels = _labels(found, settings)
        return render(
            request,
            "queue.html",
            project=found,
            tab="queue",
            pager=pager,
            cards=_cards(services, pictures, found, settings, labels, pager),
            legend=labels.legend if labels else [],
            words=catalogue.described(settings.strategy).words,
            strategy=settings.strategy,
            counts=services.store.count_tasks(project),
            train_after=settings.train_after,
            ranked_by_model=model_number(found.ranking_version),
            layer=layer,
            strength=strength,
        )


def _labels(project: Project, settings: Settings) -> Labels | None:
    try:
        return labels_of(project, settings)
    except NoPicture:  # each picture says so
        return None


def _cards(
    services: Services, pictures: Pictures, project: Project, settings: Settings, labels: Labels | None, pager: Pager
) -> list[Card]:
    entries = services.store.queue_page(project.id, project.published_version, offset=pager.start, limit=PAGE)
    looked_at = [entry for entry in entries if entry.information is not None]
    shares = services.store.shares_below(project.id, [entry.information or 0.0 for entry in looked_at])
    below = {entry.task.task_id: share for entry, share in zip(looked_at, shares, strict=True)}
    return [_card(services, pictures, project, settings, labels, entry, below) for entry in entries]


def _card(
    services: Services,
    pictures: Pictures,
    project: Project,
    settings: Settings,
    labels: Labels | None,
    entry: QueueEntry,
    below: Mapping[int, float],
) -> Card:
    subject = None if labels is None else Subject(project, settings, labels, entry.task)
    failure = pictures.failure(subject) if subject else None
    words = catalogue.described(settings.strategy).words
    return Card(
        entry=entry,
        why=reason(entry, below.get(entry.task.task_id), words, model_number(project.ranking_version)),
        classes=_classes(pictures, subject) if subject else (),
        regions=len(boxes_from_text(entry.asked)),
        effort="" if entry.cost is None else f"{entry.cost:.0f} {_UNITS[settings.cost_measure]}",
        problem=entry.task.error or failure or "",
        editor=editor_address(services, project.id, entry.task.task_id),
    )


def reason(entry: QueueEntry, below: float | None, words: Words, model: int) -> str:
    """Say why a task has its place.

    Args:
        below: share of the tasks that were looked at with a smaller value than this one.
        model: number of the version that ranked; 0: none.
    """
    if not model:
        return "There is no model yet: images that differ from each other come first, the others by chance."
    if entry.information is None or below is None:
        return "There was no time to look at it: its place among those is left to chance."
    if not words.value:
        return "Its place comes from what is beside it in the order: by itself it has no value."
    more = "" if words.alone else " Not only this value decides."
    share = f"{below * 100:.0f}\N{NO-BREAK SPACE}%"
    value = f"{entry.information:#.3g}".rstrip(".")  # as many digits on every card
    return f"Its {words.value} is {value}, more than that of {share} of the images.{more}"


def _classes(pictures: Pictures, subject: Subject) -> tuple[ClassShare, ...]:
    shares = pictures.known_classes(subject) or {}
    colours = dict(zip(subject.labels.label_map.classes, map(hex_colour, subject.labels.colours), strict=True))
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    return tuple(ClassShare(name, colours[name], share) for name, share in ordered[:_MOST_CLASSES])
