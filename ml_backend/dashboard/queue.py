"""The page of the queue: pictures of the images that are labelled next, and why they come there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from fastapi import APIRouter, Request, Response

from ml_backend.annotations.boxes import boxes_from_text
from ml_backend.annotations.clicks import PIXELS_PER_CLICK
from ml_backend.dashboard.pages import PageNumber, Pager, ProjectId, editor_address, project_of
from ml_backend.dashboard.pictures import NoPicture, Pictures, Subject, hex_colour
from ml_backend.dashboard.pictures.subjects import Labels, labels_of
from ml_backend.dashboard.rendering import count, render
from ml_backend.images.references import file_name
from ml_backend.label_studio.predictions import model_number
from ml_backend.projects.audit import audit_set
from ml_backend.projects.audit_points import asks_points_of_audit_images
from ml_backend.projects.questions import reason_of
from ml_backend.projects.queued_points import QueuedPoint, points_from_text
from ml_backend.projects.settings import project_settings
from ml_backend.settings import Settings
from ml_backend.store import Project, QueueEntry, Store
from strategies import Words, catalogue

PAGE: Final = 12
"""Tasks on a page."""
_MOST_CLASSES = 6
_UNITS: Final = {"clicks": "clicks", "seconds": "s"}

AUDIT: Final = (
    "An audit image: drawn at random, whatever the strategy prefers, to measure the model with. It opens without a"
    " mask, as it should: a label that began with a predicted mask would lean to the version that drew it."
)
"""Why an audit image has its place, and opens as it does."""
AUDIT_OF_POINTS: Final = (
    "An audit image: drawn at random, whatever the strategy prefers, to measure the model with. Its points are drawn"
    " all over it, and open without a guess, as they should: an answer that began with one would lean to the version"
    " that made it."
)
"""Likewise, where it is asked for points."""

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
class PointGuess:
    """A point that is to be answered.

    Attributes:
        name: of the class that the network takes it for; empty where there is no network yet. colour: that of the
            class; empty likewise.
        margin: in [0, 1], by how much that class is likelier than the next; None likewise.
        score: what its answer promises, in the strategy's own unit.
    """

    name: str
    colour: str
    margin: float | None
    score: float


@dataclass(frozen=True)
class Card:
    """A task as the page shows it.

    Attributes:
        name: of the image's file; empty where it has none.
        why: why it has its place in the queue.
        classes: those predicted in it, the largest first, at most six; empty where none are known yet.
        regions: how many are to be labelled; 0, and no points either: the whole image.
        points: how many points are to be answered; 0: none.
        guesses: what the network takes each of these for, the most promising first; empty where nothing is known.
        effort: expected effort of labelling, with its unit; empty where it is not predicted.
        problem: why the image cannot be shown or used; empty where it can.
        is_audit: whether it is an audit image, which opens without a mask or a guess.
        editor: address of the task in Label Studio.
    """

    entry: QueueEntry
    name: str
    why: str
    classes: tuple[ClassShare, ...]
    regions: int
    points: int
    guesses: tuple[PointGuess, ...]
    effort: str
    problem: str
    editor: str
    is_audit: bool = False


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
        cards = Cards(pictures, project, own_settings, store)
        return render(
            request,
            "queue.html",
            project=project,
            tab="queue",
            pager=pager,
            cards=cards.of(entries, scores_of(store, project_id, entries)),
            legend=cards.legend,
            words=catalogue.described(own_settings.strategy).words,
            strategy=own_settings.strategy,
            question=reason_of(store, project_id),
            counts=store.count_tasks(project_id),
            train_after=own_settings.train_after,
            ranked_by_model=model_number(project.ranking_version),
            layer=layer,
            strength=strength,
        )


@dataclass(frozen=True)
class Scores:
    """How the tasks of a page compare with all that were scored.

    Attributes:
        total: how many tasks were scored.
        below: task id -> of how many of them the value is smaller.
        mean_outlines: mean length of the expected outlines, in pixels; None where that plays no part.
    """

    total: int
    below: dict[int, int]
    mean_outlines: float | None

    def compared(self, task_id: int) -> str:
        """Say how the value of a task compares with the others'.

        >>> scores = Scores(24, {1: 17, 2: 0, 3: 23}, None)
        >>> scores.compared(1), scores.compared(2), scores.compared(3)
        ('higher than in 17 of 24 images', 'the lowest of 24 images', 'the highest of 24 images')
        """
        if self.total < 2:
            return "the only image that was scored"
        below = self.below[task_id]
        if below in {0, self.total - 1}:
            return f"the {'highest' if below else 'lowest'} of {count(self.total)} images"
        return f"higher than in {count(below)} of {count(self.total)} images"


def scores_of(store: Store, project_id: int, entries: Sequence[QueueEntry]) -> Scores:
    """Compare the values of tasks with those of all tasks of the ranking."""
    scored = [entry for entry in entries if entry.information is not None]
    total, below = store.scored_below(project_id, [entry.information or 0.0 for entry in scored])
    by_task = {entry.task.task_id: number for entry, number in zip(scored, below, strict=True)}
    return Scores(total, by_task, store.mean_outlines(project_id))


class Cards:
    """The tasks of a project as cards."""

    def __init__(self, pictures: Pictures, project: Project, settings: Settings, store: Store) -> None:
        self._pictures, self._project, self._settings, self._store = pictures, project, settings, store
        self._audit = audit_set(settings, store, project.id)
        self._words = catalogue.described(settings.strategy).words
        self._labels: Labels | None = None
        with suppress(NoPicture):  # each picture says so
            self._labels = labels_of(project, settings)

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Name and colour of each class that masks show; empty where they are not known."""
        return self._labels.legend if self._labels else []

    def of(self, entries: Sequence[QueueEntry], scores: Scores) -> list[Card]:
        """Return the cards of tasks."""
        return [self._card(entry, scores) for entry in entries]

    def _card(self, entry: QueueEntry, scores: Scores) -> Card:
        subject = Subject(self._project, self._settings, self._labels, entry.task) if self._labels else None
        asked = boxes_from_text(entry.asked)
        points = sum(box.is_point for box in asked)
        failure, is_audit = self._pictures.failure(subject) if subject else None, self._audit.opens_empty(entry.task)
        return Card(
            entry=entry,
            name=file_name(entry.task.image),
            why=self._why(entry, scores, is_audit=is_audit),
            classes=_classes(self._pictures, subject) if subject and not is_audit else (),
            regions=len(asked) - points,
            points=self._audit_points if is_audit else points,
            guesses=tuple(map(self._guess, points_from_text(entry.asked_points))),
            effort=self._effort(entry),
            problem=entry.task.error or failure or "",
            editor=editor_address(self._settings, entry.task),
            is_audit=is_audit,
        )

    def _why(self, entry: QueueEntry, scores: Scores, *, is_audit: bool) -> str:
        if is_audit:
            return AUDIT_OF_POINTS if self._audit_points else AUDIT
        return reason(entry, scores, self._words, model_number(self._project.ranking_version))

    @cached_property
    def _audit_points(self) -> int:
        """How many points an audit image asks for; 0: its mask."""
        if self._labels is None:
            return 0
        queries = self._store.ranked_queries(self._project.id, status="unlabelled").values()
        asks = asks_points_of_audit_images(self._settings, self._labels.label_map, queries)
        return self._settings.audit_points if asks else 0

    def _guess(self, point: QueuedPoint) -> PointGuess:
        colour = self._labels.colour_by_name.get(point.guess) if self._labels else None
        return PointGuess(point.guess, hex_colour(colour) if colour else "", point.margin, point.score)

    def _effort(self, entry: QueueEntry) -> str:
        if entry.cost is not None:
            return f"{entry.cost:.0f} {_UNITS[self._settings.cost_measure]}"
        return "" if entry.outlines is None else f"{entry.outlines / PIXELS_PER_CLICK:.0f} clicks"


def reason(entry: QueueEntry, scores: Scores, words: Words, model: int) -> str:
    """Say why a task has its place in the queue, in the words of the strategy that ranked.

    Args:
        model: number of the version that ranked; 0: none.
    """
    if not model:
        return "There is no model yet: images that differ most from each other come first, the others in random order."
    if entry.information is None:
        return "There was no time to score it: images without a score are in random order."
    why = words.reason(entry.information, scores.compared(entry.task.task_id))
    return " ".join(filter(None, (_turn(entry), why, _outlines(entry, scores))))


def _turn(entry: QueueEntry) -> str:
    """Say whose turn it was, where the classes take turns."""
    if entry.outlines is None:
        return f"It was the turn of {entry.turn}." if entry.turn else ""
    if entry.turn:
        return f"It was the turn of {entry.turn}: images that are uncertain there, and cheap, are drawn sooner."
    return "It was no class's turn: cheap images are drawn sooner."


def _outlines(entry: QueueEntry, scores: Scores) -> str:
    """Say how much there is to draw, where the strategy weighs that."""
    if entry.outlines is None or not scores.mean_outlines:
        return ""
    times = f"{entry.outlines / scores.mean_outlines:.1f}"
    length = "as long as" if times == "1.0" else f"{times} times as long as"
    return f"Its predicted outlines are {length} those of an average image."


def _classes(pictures: Pictures, subject: Subject) -> tuple[ClassShare, ...]:
    shares = pictures.class_shares(subject) or {}
    colours = dict(zip(subject.labels.label_map.classes, map(hex_colour, subject.labels.colours), strict=True))
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    return tuple(ClassShare(name, colours[name], share) for name, share in ordered[:_MOST_CLASSES])
