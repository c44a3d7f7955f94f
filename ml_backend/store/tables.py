"""The tables of the database, and their rows as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

METADATA = sa.MetaData()


class Text(sa.types.TypeDecorator[str]):
    """Text, whatever is in it: PostgreSQL refuses null bytes, which take the form of U+FFFD there."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Return what the database takes."""
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if value and dialect.name == "postgresql" else value


Id: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""Ids that Label Studio gives, which may take more than 32 bits; SQLite's integers do."""


def _text(name: str) -> sa.Column[str]:
    """Return a text column that a later revision added; the database fills it in earlier rows."""
    return sa.Column(name, Text, nullable=False, default="", server_default=sa.text("''"))


def _count(name: str) -> sa.Column[int]:
    """Return a column of a number that a later revision added; 0 in earlier rows."""
    return sa.Column(name, sa.Integer, nullable=False, default=0, server_default=sa.text("0"))


# As text: SQLite looks into a partial index only where a statement repeats its condition, without parameters.
_HAS_ERROR, _HAS_BOXES = sa.text("error <> ''"), sa.text("boxes <> ''")

META = sa.Table("meta", METADATA, sa.Column("key", Text, primary_key=True), sa.Column("value", Text))

PROJECTS = sa.Table(
    "projects",
    METADATA,
    sa.Column("id", Id, primary_key=True, autoincrement=False),
    sa.Column("managed", sa.Boolean, nullable=False, default=True),
    sa.Column("title", Text, nullable=False, default=""),
    sa.Column("wakes", sa.Integer, nullable=False, default=0),
    sa.Column("wakes_handled", sa.Integer, nullable=False, default=0),
    sa.Column("dirty_since", sa.Float),
    sa.Column("reconciled_at", sa.Float),
    sa.Column("train_requested_at", sa.Float),
    sa.Column("state", Text, nullable=False, default="waiting"),
    sa.Column("stage", Text, nullable=False, default=""),
    sa.Column("stage_done", sa.Integer, nullable=False, default=0),
    sa.Column("stage_total", sa.Integer, nullable=False, default=0),
    sa.Column("error", Text, nullable=False, default=""),
    sa.Column("error_at", sa.Float),
    sa.Column("decided_model", sa.Integer, nullable=False, default=0),
    sa.Column("train_error", Text, nullable=False, default=""),
    sa.Column("failed_digest", Text, nullable=False, default=""),
    sa.Column("retry_at", sa.Float),
    sa.Column("lease_owner", Text),
    sa.Column("lease_expires", sa.Float),
    sa.Column("extra_params", Text, nullable=False, default=""),
    sa.Column("label_config", Text, nullable=False, default=""),
    sa.Column("labels_digest", Text, nullable=False, default=""),
    sa.Column("cursor", Text),
    sa.Column("published_version", Text, nullable=False, default=""),
    sa.Column("ranking_version", Text, nullable=False, default=""),
    sa.Column("ranking_number", sa.Integer, nullable=False, default=0),
    sa.Column("ranking_key", Text, nullable=False, default=""),
    sa.Column("undo", Text, nullable=False, default=""),
    _text("pseudo_labels"),
    _text("notice"),
    sa.Column("ranking_seconds", sa.Float),
    sa.Column("stage_since", sa.Float),
    _text("stage_note"),
    sa.Column("stage_ends", sa.Float),
    _count("ranked_changes"),
)

TASKS = sa.Table(
    "tasks",
    METADATA,
    sa.Column("project_id", Id, primary_key=True),
    sa.Column("task_id", Id, primary_key=True),
    sa.Column("image", Text, nullable=False, default=""),
    sa.Column("group_key", Text, nullable=False, default=""),
    sa.Column("updated_at", Text, nullable=False, default=""),
    sa.Column("status", Text, nullable=False, default="unlabelled"),
    sa.Column("error", Text, nullable=False, default=""),
    sa.Column("annotation_id", Id),
    sa.Column("label_digest", Text, nullable=False, default=""),
    sa.Column("mask_file", Text, nullable=False, default=""),
    sa.Column("held_out", sa.Boolean, nullable=False, default=False),
    sa.Column("lead_time", sa.Float),
    sa.Column("regions", sa.Integer, nullable=False, default=0),
    sa.Column("vertices", sa.Integer, nullable=False, default=0),
    sa.Column("shown_version", Text, nullable=False, default=""),
    sa.Column("agreement", sa.Float),
    _text("boxes"),
    _text("effort_file"),
    sa.Column("effort", sa.Float),
    sa.Column("masked", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    sa.Column("annotator", Id),
    sa.Column("unchanged", sa.Boolean),
    _count("points"),
    _count("guesses"),
    _count("right_guesses"),
    _count("changed"),
    sa.Column("audit", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    sa.Column("draw", sa.BigInteger),
    sa.Column("turn", sa.BigInteger, nullable=False, default=0, server_default=sa.text("0")),
    sa.Index("tasks_by_status", "project_id", "status", "task_id", "audit"),
    sa.Index("tasks_by_change", "project_id", "changed"),
    sa.Index("tasks_by_draw", "project_id", "status", "audit", "turn", "draw", "task_id"),
    sa.Index("tasks_with_error", "project_id", "task_id", sqlite_where=_HAS_ERROR, postgresql_where=_HAS_ERROR),
)
"""`changed`: number of the change of its project's tasks that wrote the row last; see `Tasks.changes`.
`audit`: whether its image is of the audit set, as the last look found it.
`draw`: its number by chance, which orders what nobody scored. `turn`: of an audit image, the number of its turn."""

RANKING = sa.Table(
    "ranking",
    METADATA,
    sa.Column("project_id", Id, primary_key=True),
    sa.Column("task_id", Id, primary_key=True),
    sa.Column("priority", sa.Float, nullable=False),
    _text("boxes"),
    sa.Column("cost", sa.Float),
    sa.Column("information", sa.Float),
    _text("turn"),
    sa.Column("outlines", sa.Float),
    _text("points"),
    sa.Index("ranking_by_priority", "project_id", "priority"),
    sa.Index("ranking_of_parts", "project_id", "task_id", sqlite_where=_HAS_BOXES, postgresql_where=_HAS_BOXES),
)

PUBLISHED = sa.Table(
    "published",
    METADATA,
    sa.Column("project_id", Id, primary_key=True),
    sa.Column("version", Text, primary_key=True),
    sa.Column("task_id", Id, primary_key=True),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("mask", sa.LargeBinary),
    sa.Column("published_at", sa.Float, nullable=False),
)

VERSIONS = sa.Table(
    "published_versions",
    METADATA,
    sa.Column("project_id", Id, primary_key=True),
    sa.Column("version", Text, primary_key=True),
    sa.Column("published_at", sa.Float, nullable=False),
    sa.Column("retired_at", sa.Float),
)

QUERIES = sa.Table(
    "queries",
    METADATA,
    sa.Column("project_id", Id, primary_key=True),
    sa.Column("task_id", Id, primary_key=True),
    sa.Column("version", Text, primary_key=True),
    sa.Column("boxes", Text, nullable=False),
    sa.Column("cost", sa.Float),
    sa.Column("asked_at", sa.Float, nullable=False),
)

DECISIONS = sa.Table(
    "decisions",
    METADATA,
    sa.Column("project_id", Id, primary_key=True),
    sa.Column("task_id", Id, primary_key=True),
    sa.Column("keep", sa.Boolean, nullable=False),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("threshold", sa.Float),
    sa.Column("decided_at", sa.Float, nullable=False),
    sa.Column("marked", sa.Boolean, nullable=False, default=False),
    sa.Column("returned", sa.Boolean, nullable=False, default=False),
)

DEVICES = sa.Table(
    "devices",
    METADATA,
    sa.Column("key", Text, primary_key=True),
    sa.Column("name", Text, nullable=False),
    sa.Column("holder", Text, nullable=False),
    sa.Column("project_id", Id, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("extended", sa.Float, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
)

TURNS = sa.Table(
    "turns",
    METADATA,
    sa.Column("project_id", Id, primary_key=True, autoincrement=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("asked", sa.Float, nullable=False),
)

EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("project_id", Id, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("kind", Text, nullable=False),
    sa.Column("level", Text, nullable=False),
    sa.Column("text", Text, nullable=False),
    sa.Index("events_by_project", "project_id", "id"),
)

NO_LABEL: Final = frozenset(("skipped", "broken", "unavailable"))
"""Statuses of tasks that people worked on, and that have no label to be used."""
GONE: Final = "gone"
"""State of a project that was deleted in Label Studio."""
DISCONNECTING: Final = "disconnecting"
"""State of a project that is being disconnected: /setup does not connect it again."""


@dataclass(frozen=True)
class Project:
    """A Label Studio project. Times are seconds since the epoch, or None.

    Attributes:
        managed: whether nextmask works on it: it is connected.
        wakes, wakes_handled: number of wake-ups, and of those that a look has handled.
        dirty_since: time of the oldest wake-up that is not handled.
        reconciled_at: end of the last look.
        train_requested_at: when a person asked for a training.
        state: waiting, syncing, training, …; see `status`.
        stage, stage_done, stage_total, stage_since: what a look does now, how far it is, and when that began.
        stage_note: what is known of its result so far, in words; stage_ends: when it will have ended.
        error, error_at: why the last look failed; empty when it did not.
        decided_model: newest model version of which it is decided whether it serves.
        train_error, failed_digest, retry_at: why the last training failed, on which labels, and when to try again.
        lease_owner, lease_expires: the worker that works on it, and until when, by the store's clock.
        is_held: whether a worker had the lease when this was read.
        extra_params, label_config: as Label Studio sent them last.
        labels_digest: digest of the label map and the settings that labels were read with.
        cursor: `updated_at` in Label Studio from which the next sync reads.
        published_version, ranking_version: names of the versions that are shown, and that were ranked last.
        ranking_number, ranking_key, ranking_seconds: number of the last ranking, what it depends on, its duration.
        undo: what to restore in Label Studio at a disconnect, as JSON.
        pseudo_labels: tasks that the last ranking proposed for pseudo-labels, as JSON; empty without.
        notice: what changed in the labelling configuration, as text.
        ranked_changes: number of changes of its tasks that the last ranking knew of; see `Tasks.changes`.
    """

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
    stage_note: str = ""
    stage_ends: float | None = None
    ranked_changes: int = 0
    is_held: bool = False


@dataclass(frozen=True)
class Task:
    """A task of Label Studio, and its label.

    Attributes:
        image: reference of its image, as imported.
        group_key: tasks of the same key measure together.
        updated_at: time of its last change, as Label Studio has it.
        status: unlabelled, labelled, skipped, broken (its annotation cannot be read), unavailable (it is labelled, and
            its image or the file of its mask cannot be read) or passed (by a stream).
        error: why it cannot be used, or not in full; empty when it can.
        annotation_id: of the annotation that makes the label.
        label_digest: digest of the mask of the label.
        mask_file: key of the mask's file, a PNG of class indices; see `system.files`.
        held_out: whether the label is for measuring only: its image is of the audit set.
        lead_time: seconds that the annotator took, by Label Studio.
        regions, vertices: numbers of regions, and of points of polygons and vectors, in the annotation.
        shown_version: version of the prediction that the annotator started from.
        agreement: mean IoU in [0, 1] of that prediction and the label.
        boxes: the labelled boxes as text, see `boxes`; empty: the whole image is labelled.
        effort_file: key of the points of the effort of the label, see `effort`.
        effort: sum of those points, in clicks or seconds.
        masked: whether a mask of ours, or points that a strategy chose, were shown to anybody who labelled it.
        annotator: Label Studio's id of the user who made the label; None where it names none.
        unchanged: whether the label was submitted as the mask of ours that its annotator was shown; None where none
            was shown, or where it cannot be told.
        points: how many points the annotation answers.
        guesses: of the pixels that were asked for and answered, those of which a version guessed the class, whether
            the annotator saw that or not. right_guesses: of these, how many the answer repeats.
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
    masked: bool = False
    annotator: int | None = None
    unchanged: bool | None = None
    points: int = 0
    guesses: int = 0
    right_guesses: int = 0


@dataclass(frozen=True)
class Side:
    """What decides whether the label of a task trains or measures; attributes as those of `Task`.

    Attributes:
        audit: whether its image is of the audit set, as the last look found it.
    """

    task_id: int
    group_key: str
    status: str
    masked: bool
    held_out: bool
    audit: bool


@dataclass(frozen=True)
class TrainingLabel:
    """What decides whether there is reason to train on the label of a task; attributes as those of `Task`."""

    task_id: int
    image: str
    boxes: str
    label_digest: str
    held_out: bool


@dataclass(frozen=True)
class Behind:
    """Where the rows of a ranking end: of a large project, most tasks have a place behind them, and no row.

    Attributes:
        draw: tasks of larger numbers by chance are behind, …
        turn: … and audit images of larger numbers of turns, …
        newest: … up to this id: later ones are new to the ranking.
        first, period: the place behind, from 1, of the first audit image, and how far each is from the next. A period
            of 0: audit images come last.
    """

    draw: int
    turn: int
    newest: int
    first: int = 0
    period: int = 0


@dataclass(frozen=True)
class QueueEntry:
    """A place in the ranking.

    Attributes:
        task: an unlabelled task.
        rank: from 1; 1 has the highest priority.
        priority: in (0, 1], higher = label sooner.
        information: value that the strategy measured, in its own unit; None when it did not score the task.
        turn: name of the class in whose turn it was picked; empty where it was no class's turn.
        outlines: length of the outlines that are expected in the image, in pixels; None where that plays no part.
        asked: boxes to label, as text; empty: the whole image.
        cost: expected effort for the boxes, in clicks or seconds; None when it is unknown.
        published: whether Label Studio has a prediction of the version in question.
        asked_points: the points among the boxes, with why, as text; empty: none, or nothing is known of them.
    """

    task: Task
    rank: int
    priority: float
    information: float | None
    asked: str
    cost: float | None
    published: bool
    turn: str = ""
    outlines: float | None = None
    asked_points: str = ""


@dataclass(frozen=True)
class Decision:
    """The decision of a stream about an arriving task.

    Attributes:
        keep: whether it is to be labelled; otherwise it is passed over.
        score: its information, in the strategy's own unit.
        threshold: information that was needed; None when none would have been enough.
        decided_at: seconds since the epoch.
        marked: whether Label Studio shows it as passed over.
        returned: whether a person reversed the decision.
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
    """An event of a project, for its administrator to read later.

    Attributes:
        id: larger than that of all earlier events.
        at: seconds since the epoch.
        kind: connected, disconnected, trained, published, kept_back, training_failed, trial_failed, ranked,
            queue_filled, failed, recovered, rolled_back, task_failed, pruned, version_deleted, registered_twice,
            image_in_part, predictions_hidden or audit_changed.
        level: info, warning or error.
        text: a sentence or two, as plain text.
    """

    id: int
    project_id: int
    at: float
    kind: str
    level: str
    text: str


@dataclass(frozen=True)
class Label:
    """A label without its mask.

    Attributes:
        lead_time: seconds that the annotator took, by Label Studio.
        agreement: mean IoU in [0, 1] of the pre-annotation and the submitted mask; None without pre-annotation.
        whole: whether all of the image is labelled.
        effort, shown_version, points, guesses, right_guesses: as of `Task`.
    """

    task_id: int
    lead_time: float | None
    agreement: float | None
    whole: bool = True
    effort: float | None = None
    shown_version: str = ""
    points: int = 0
    guesses: int = 0
    right_guesses: int = 0


@dataclass(frozen=True)
class AnnotatorLabels:
    """The labels of an annotator.

    Attributes:
        annotator: Label Studio's id of the user; None: of all whose annotator is unknown.
        labels: all of them. shown: those made over a mask of ours. unchanged: those of them submitted as it was.
        guesses: at points that they answered. right_guesses: those of them that the answer repeats.
    """

    annotator: int | None
    labels: int
    shown: int
    unchanged: int
    guesses: int = 0
    right_guesses: int = 0


@dataclass(frozen=True)
class Lease:
    """The right of a worker to work on a project, until it expires.

    Attributes:
        owner: name of the worker.
        wakes: number of wake-ups when the lease was taken.
    """

    project_id: int
    owner: str
    wakes: int


@dataclass(frozen=True)
class DeviceLease:
    """The right to train on a device, until it expires.

    Attributes:
        key: of the device, the same for all processes that share it. name: cpu or cuda:N, on the holder's machine.
        holder: the worker, "host:4711:" and a number of its own.
        project_id: which project trains.
        since, extended, expires: when it was taken, and extended last, and when it ends, in seconds since the epoch by
            the store's clock.
    """

    key: str
    name: str
    holder: str
    project_id: int
    since: float
    extended: float
    expires: float

    @property
    def worker(self) -> str:
        """The machine and process that holds it, "host:4711"."""
        return self.holder.rpartition(":")[0]
