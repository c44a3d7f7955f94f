"""The page of the queue: pictures of the images that are labelled next, and why they come there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from fastapi import APIRouter, Request, Response

from ml_backend.annotations.boxes import boxes_from_text
from ml_backend.dashboard.pages import PageNumber, Pager, ProjectId, editor_address, project_of
from ml_backend.dashboard.pictures import NoPicture, Pictures, Subject, hex_colour
from ml_backend.dashboard.pictures.subjects import Labels, labels_of
from ml_backend.dashboard.rendering import render
from ml_backend.label_studio.predictions import model_number
from ml_backend.projects.settings import project_settings
from ml_backend.settings import Settings
from ml_backend.store import Project, QueueEntry, Store
from strategies import Words, catalogue

PAGE: Final = 12
"""Tasks on a page."""
_MOST_CLASSES = 6
_UNITS: Final = {"clicks": "clicks", "seconds": "s"}

Layer = Literal["image", "mask", "uncertainty"]
Strength = Literal["30", "60", "100"]


@dataclass(frozen=True)
class ClassShare:
    """A class that is predicted in an image.

    Attributes:
        colour: as web pages write it. share: of the image's pixels, in [0, 1].
    """

    name: str
    colour: str
    share: float


@dataclass(frozen=True)
class Card:
    """A task as the page shows it.

    Attributes:
        why: why it has its place in the queue.
        classes: those predicted in it, the largest first, at most six; empty where none are known yet.
        regions: how many are to be labelled; 0: the whole image.
        effort: expected effort of labelling, with its unit; empty where it is not predicted.
        problem: why the image cannot be shown or used; empty where it can.
        editor: address of the task in Label Studio.
    """

    entry: QueueEntry
    why: str
    classes: tuple[ClassShare, ...]
    regions: int
    effort: str
    problem: str
    editor: str


def add_pages(router: APIRouter, settings: Settings, store: Store, pictures: Pictures) -> None:
    """Add `/projects/{project_id}/queue`."""

    @router.get("/projects/{project_id}/queue")
    def queue(
        request: Request, project_id: ProjectId, page: PageNumber = 1, layer: Layer = "mask", strength: Strength = "60"
    ) -> Response:
        project = project_of(store, project_id)
        own_settings, _ = project_settings(settings, store, project)
        pager = Pager.of(page, store.count_ranked(project_id), PAGE)
        entries = store.queue_page(project_id, project.published_version, offset=pager.start, limit=PAGE)
        cards = _Cards(pictures, project, own_settings)
        return render(
            request,
            "queue.html",
            project=project,
            tab="queue",
            pager=pager,
            cards=cards.of(entries, _shares_below(store, project_id, entries)),
            legend=cards.legend,
            words=catalogue.described(own_settings.strategy).words,
            strategy=own_settings.strategy,
            counts=store.count_tasks(project_id),
            train_after=own_settings.train_after,
            ranked_by_model=model_number(project.ranking_version),
            layer=layer,
            strength=strength,
        )


def _shares_below(store: Store, project_id: int, entries: Sequence[QueueEntry]) -> dict[int, float]:
    """Return for each scored task the share of all scored tasks with a smaller value, in [0, 1], by task id."""
    scored = [entry for entry in entries if entry.information is not None]
    shares = store.shares_below(project_id, [entry.information or 0.0 for entry in scored])
    return {entry.task.task_id: share for entry, share in zip(scored, shares, strict=True)}


class _Cards:
    """The tasks of a project as cards."""

    def __init__(self, pictures: Pictures, project: Project, settings: Settings) -> None:
        self._pictures, self._project, self._settings = pictures, project, settings
        self._words = catalogue.described(settings.strategy).words
        self._labels: Labels | None = None
        with suppress(NoPicture):  # each picture says so
            self._labels = labels_of(project, settings)

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Name and colour of each class that masks show; empty where they are not known."""
        return self._labels.legend if self._labels else []

    def of(self, entries: Sequence[QueueEntry], below: Mapping[int, float]) -> list[Card]:
        """Return the cards of tasks; `below` is that of `_shares_below`."""
        return [self._card(entry, below.get(entry.task.task_id)) for entry in entries]

    def _card(self, entry: QueueEntry, below: float | None) -> Card:
        subject = Subject(self._project, self._settings, self._labels, entry.task) if self._labels else None
        failure = self._pictures.failure(subject) if subject else None
        return Card(
            entry=entry,
            why=reason(entry, below, self._words, model_number(self._project.ranking_version)),
            classes=_classes(self._pictures, subject) if subject else (),
            regions=len(boxes_from_text(entry.asked)),
            effort="" if entry.cost is None else f"{entry.cost:.0f} {_UNITS[self._settings.cost_measure]}",
            problem=entry.task.error or failure or "",
            editor=editor_address(self._settings, entry.task),
        )


def reason(entry: QueueEntry, below: float | None, words: Words, model: int) -> str:
    """Say why a task has its place in the queue.

    Args:
        below: share of the scored tasks with a smaller value, in [0, 1]; None where the task was not scored.
        words: of the strategy that ranked.
        model: number of the version that ranked; 0: none.
    """
    if not model:
        return "There is no model yet: images that differ most from each other come first, the others in random order."
    if entry.information is None or below is None:
        return "There was no time to score it: images without a score are in random order."
    if not words.value:
        return "It has no score of its own: its place depends on the other images."
    more = "" if words.alone else " Its place does not depend on this alone."
    share = f"{below * 100:.0f}\N{NO-BREAK SPACE}%"
    compared = f"higher than in {share} of the scored images" if below else "the lowest of the scored images"
    value = f"{entry.information:#.3g}".rstrip(".")  # as many digits on every card
    return f"Its {words.value} is {value}, {compared}.{more}"


def _classes(pictures: Pictures, subject: Subject) -> tuple[ClassShare, ...]:
    shares = pictures.class_shares(subject) or {}
    colours = dict(zip(subject.labels.label_map.classes, map(hex_colour, subject.labels.colours), strict=True))
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    return tuple(ClassShare(name, colours[name], share) for name, share in ordered[:_MOST_CLASSES])
