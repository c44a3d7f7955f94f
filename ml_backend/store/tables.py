"""The tables, and their rows as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

METADATA = sa.MetaData()


def _text(name: str) -> sa.Column[str]:
    """A text column that later schemas added: the database itself fills it in the rows of earlier ones."""
    return sa.Column(name, sa.Text, nullable=False, default="", server_default=sa.text("''"))


META = sa.Table("meta", METADATA, sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text))

PROJECTS = sa.Table(
    "projects",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("managed", sa.Boolean, nullable=False, default=True),
    sa.Column("title", sa.Text, nullable=False, default=""),
    sa.Column("wakes", sa.Integer, nullable=False, default=0),
    sa.Column("wakes_handled", sa.Integer, nullable=False, default=0),
    sa.Column("dirty_since", sa.Float),
    sa.Column("reconciled_at", sa.Float),
    sa.Column("train_requested_at", sa.Float),
    sa.Column("state", sa.Text, nullable=False, default="waiting"),
    sa.Column("stage", sa.Text, nullable=False, default=""),
    sa.Column("stage_done", sa.Integer, nullable=False, default=0),
    sa.Column("stage_total", sa.Integer, nullable=False, default=0),
    sa.Column("error", sa.Text, nullable=False, default=""),
    sa.Column("error_at", sa.Float),
    sa.Column("decided_model", sa.Integer, nullable=False, default=0),
    sa.Column("train_error", sa.Text, nullable=False, default=""),
    sa.Column("failed_digest", sa.Text, nullable=False, default=""),
    sa.Column("retry_at", sa.Float),
    sa.Column("lease_owner", sa.Text),
    sa.Column("lease_expires", sa.Float),
    sa.Column("extra_params", sa.Text, nullable=False, default=""),
    sa.Column("label_config", sa.Text, nullable=False, default=""),
    sa.Column("labels_digest", sa.Text, nullable=False, default=""),
    sa.Column("cursor", sa.Text),
    sa.Column("published_version", sa.Text, nullable=False, default=""),
    sa.Column("ranking_version", sa.Text, nullable=False, default=""),
    sa.Column("ranking_number", sa.Integer, nullable=False, default=0),
    sa.Column("ranking_key", sa.Text, nullable=False, default=""),
    sa.Column("undo", sa.Text, nullable=False, default=""),
    _text("pseudo_labels"),
    _text("notice"),
    sa.Column("ranking_seconds", sa.Float),
    sa.Column("stage_since", sa.Float),
)

TASKS = sa.Table(
    "tasks",
    METADATA,
    sa.Column("project_id", sa.Integer, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    sa.Column("image", sa.Text, nullable=False, default=""),
    sa.Column("group_key", sa.Text, nullable=False, default=""),
    sa.Column("updated_at", sa.Text, nullable=False, default=""),
    sa.Column("status", sa.Text, nullable=False, default="unlabelled"),
    sa.Column("error", sa.Text, nullable=False, default=""),
    sa.Column("annotation_id", sa.Integer),
    sa.Column("label_digest", sa.Text, nullable=False, default=""),
    sa.Column("mask_file", sa.Text, nullable=False, default=""),
    sa.Column("held_out", sa.Boolean, nullable=False, default=False),
    sa.Column("lead_time", sa.Float),
    sa.Column("regions", sa.Integer, nullable=False, default=0),
    sa.Column("vertices", sa.Integer, nullable=False, default=0),
    sa.Column("shown_version", sa.Text, nullable=False, default=""),
    sa.Column("agreement", sa.Float),
    _text("boxes"),
    _text("effort_file"),
    sa.Column("effort", sa.Float),
    sa.Index("tasks_by_status", "project_id", "status"),
)

RANKING = sa.Table(
    "ranking",
    METADATA,
    sa.Column("project_id", sa.Integer, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    sa.Column("priority", sa.Float, nullable=False),
    _text("boxes"),
    sa.Column("cost", sa.Float),
    sa.Column("information", sa.Float),
    sa.Index("ranking_by_priority", "project_id", "priority"),
)

PUBLISHED = sa.Table(
    "published",
    METADATA,
    sa.Column("project_id", sa.Integer, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("mask", sa.LargeBinary),
    sa.Column("published_at", sa.Float, nullable=False),
)

VERSIONS = sa.Table(
    "published_versions",
    METADATA,
    sa.Column("project_id", sa.Integer, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("published_at", sa.Float, nullable=False),
    sa.Column("retired_at", sa.Float),
)

QUERIES = sa.Table(
    "queries",
    METADATA,
    sa.Column("project_id", sa.Integer, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("boxes", sa.Text, nullable=False),
    sa.Column("cost", sa.Float),
    sa.Column("asked_at", sa.Float, nullable=False),
)

DECISIONS = sa.Table(
    "decisions",
    METADATA,
    sa.Column("project_id", sa.Integer, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    sa.Column("keep", sa.Boolean, nullable=False),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("threshold", sa.Float),
    sa.Column("decided_at", sa.Float, nullable=False),
    sa.Column("marked", sa.Boolean, nullable=False, default=False),
    sa.Column("returned", sa.Boolean, nullable=False, default=False),
)

EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("project_id", sa.Integer, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("level", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Index("events_by_project", "project_id", "id"),
)

GONE: Final = "gone"
"""State of a project that was deleted in Label Studio."""
DISCONNECTING: Final = "disconnecting"
"""State of a project that is being disconnected: /setup does not connect it again."""


@dataclass(frozen=True)
class Project:
    """One Label Studio project as nextmask knows it. Times are seconds since the epoch."""

    id: int
    managed: bool
    title: str
    wakes: int
    wakes_handled: int
    dirty_since: float | None
    reconciled_at: float | None
    train_requested_at: float | None
    state: str
    stage: str
    stage_done: int
    stage_total: int
    error: str
    error_at: float | None
    decided_model: int
    train_error: str
    failed_digest: str
    retry_at: float | None
    lease_owner: str | None
    lease_expires: float | None
    extra_params: str
    label_config: str
    labels_digest: str
    cursor: str | None
    published_version: str
    ranking_version: str
    ranking_number: int
    ranking_key: str
    undo: str
    pseudo_labels: str = ""
    notice: str = ""
    ranking_seconds: float | None = None
    stage_since: float | None = None


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        status: unlabelled, labelled, skipped, broken (its annotation cannot be read) or passed (by a stream).
        boxes: where a label is one of parts of the image, these; see `boxes`. Empty: the label is of the whole image.
        effort_file: where the effort that the label took is kept as points; see `effort`. `effort` is their sum.
    """

    project_id: int
    task_id: int
    image: str
    group_key: str = ""
    updated_at: str = ""
    status: str = "unlabelled"
    error: str = ""
    annotation_id: int | None = None
    label_digest: str = ""
    mask_file: str = ""
    held_out: bool = False
    lead_time: float | None = None
    regions: int = 0
    vertices: int = 0
    shown_version: str = ""
    agreement: float | None = None
    boxes: str = ""
    effort_file: str = ""
    effort: float | None = None


@dataclass(frozen=True)
class QueueEntry:
    """A place in the ranking.

    Attributes:
        rank: from 1, the best.
        priority: in (0, 1], higher = label sooner.
        information: what the strategy measured, in a unit of its own; None where it did not look at the task.
        asked: boxes that are asked for, as text; empty: the whole image.
        cost: effort that is expected for them; None where nothing predicts it.
        published: Label Studio has a prediction of the version that was asked about.
    """

    task: Task
    rank: int
    priority: float
    information: float | None
    asked: str
    cost: float | None
    published: bool


@dataclass(frozen=True)
class Decision:
    """What a stream decided about a task.

    Attributes:
        keep: whether it is to be labelled.
        score, threshold: its information, and what that had to reach; None where nothing would have been enough.
        decided_at: seconds since the epoch.
        marked: Label Studio shows it as passed over.
        returned: a person took the decision back.
    """

    task_id: int
    keep: bool
    score: float
    threshold: float | None
    decided_at: float
    marked: bool = False
    returned: bool = False


@dataclass(frozen=True)
class Event:
    """Something that happened to a project and that its admin may want to read later.

    Attributes:
        id: grows with every event.
        at: seconds since the epoch.
        kind: connected, disconnected, trained, published, kept_back, training_failed, ranked, queue_filled, failed,
            recovered, rolled_back, task_failed, pruned, version_deleted or registered_twice.
        level: info, warning or error.
        text: one sentence or two, as plain text.
    """

    id: int
    project_id: int
    at: float
    kind: str
    level: str
    text: str


@dataclass(frozen=True)
class Label:
    """What is known of one label beside its mask.

    Attributes:
        lead_time: seconds that the annotator took, as Label Studio counts them.
        agreement: mean IoU of the pre-annotation and the submitted mask; None where there was no pre-annotation.
    """

    task_id: int
    lead_time: float | None
    agreement: float | None


@dataclass(frozen=True)
class Lease:
    """The right to work on a project until `expires`; `wakes` is what had been asked for when it was taken."""

    project_id: int
    owner: str
    wakes: int
