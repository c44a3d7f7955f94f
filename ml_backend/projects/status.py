"""What `nextmask status` tells of a project, from the store and the checkpoints alone: Label Studio may be down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ml_backend.errors import ConfigurationError, FilesUnavailable
from ml_backend.label_studio.predictions import model_number
from ml_backend.learning.checkpoints import VersionRecord
from ml_backend.learning.measuring import Estimate
from ml_backend.learning.measuring.words import recorded
from ml_backend.projects.advice import Advice, advise
from ml_backend.projects.audit import AuditCounts, audit_counts
from ml_backend.projects.audit_hints import audit_hints
from ml_backend.projects.effort_report import EffortReport, effort_pairs, effort_report
from ml_backend.projects.folders import checkpoints_of, files_of, project_key
from ml_backend.projects.hidden_predictions import hidden_predictions, hidden_text
from ml_backend.projects.hints import hints
from ml_backend.projects.images_in_part import images_in_part, in_part_text
from ml_backend.projects.passed_over import StreamCounts, stream_counts
from ml_backend.projects.points_report import PointsReport, points_report
from ml_backend.projects.questions import reason_of
from ml_backend.projects.serving import serving_record, version_records
from ml_backend.projects.settings import project_settings
from ml_backend.projects.signs_of_life import worker_failure
from ml_backend.projects.smart_tools import smart_tools_hint
from ml_backend.projects.unchanged import UnchangedLabels, unchanged_labels
from ml_backend.settings import AUTO, Settings
from ml_backend.store import GONE, Label, Project, Store
from ml_backend.system.disk import shortage


@dataclass(frozen=True)
class Status:
    """The state of one project.

    Attributes:
        state: idle, syncing, training, ranking, publishing, waiting or failed. idle: the worker has not looked yet.
        stage, done, total: what is going on, in images or steps. since, ends: when that began, and when it will have
            ended, in seconds since the epoch; None where that is not known.
        device: which device of which worker trains it; empty where none does.
        question: why points or masks are asked for; empty where the strategy has no choice.
        labels: usable labels in Label Studio. trained_labels: those in the version that serves.
        held_out: mIoU of the version that serves, with its interval; None where none could be measured.
        agreement: mean IoU between pre-annotation and submitted mask over all labels that started from a mask.
        unchanged: labels that were submitted as the mask that was shown, by annotator.
        pool: tasks without a label, not counting skipped tasks. queue: how many of them are published.
        audit: images that measure, and labels of them; None before the first look.
        stream: what stream mode kept, passed over and got back; None where it never ran.
        advice: what labelling brings, from the versions' measures; None before the first version.
        effort: of regions that were asked for, predicted and actual; None as long as there is nothing to compare.
        points: what answers to points took, and how many guesses were right; None without such labels.
        hints: what the labelling configuration leaves out, what would make more of the settings, what keeps the
            project from being measured or trained, smart tools that ask nobody, which predictions are hidden, and which
            images are used in part.
        notice: what the last change of the labelling configuration meant for the labels; empty without a change.
        errors: tasks that cannot be used, with the reason, and the last failure of the project under "project";
            under "disk" that MODEL_DIR has no room, under "model" that another version serves than should, under
            "worker" why no worker stays alive.
    """

    project: int
    title: str
    state: str
    stage: str
    done: int
    total: int
    since: float | None
    ends: float | None
    strategy: str
    question: str
    device: str
    version: str
    labels: int
    trained_labels: int
    held_out: Estimate | None
    agreement: float | None
    unchanged: UnchangedLabels
    pool: int
    queue: int
    skipped: int
    audit: AuditCounts | None
    stream: StreamCounts | None
    advice: Advice | None
    effort: EffortReport | None
    points: PointsReport | None
    hints: list[str]
    notice: str
    errors: dict[str, str]

    @property
    def held_out_miou(self) -> float | None:
        """The mIoU of `held_out` alone."""
        return self.held_out.value if self.held_out else None

    def as_json(self) -> dict[str, Any]:
        """Return an object for scripts."""
        return asdict(self) | {"held_out_miou": self.held_out_miou}


def project_status(settings: Settings, store: Store, project_id: int) -> Status:
    """Describe a project.

    Args:
        settings: of the installation.

    Raises:
        ConfigurationError: the project was never connected.
    """
    return in_full(
        settings,
        store,
        project_state(settings, store, project_id),
        records=version_records(settings, store, project_id),
        labels=store.labels(project_id),
        efforts=answered_efforts(store, project_id),
    )


def answered_efforts(store: Store, project_id: int) -> list[tuple[float, float]]:
    """Return predicted and actual effort of the regions that were asked for and labelled."""
    return effort_pairs(store.tasks_in_parts(project_id), store.published_queries(project_id))


def in_full(
    settings: Settings,
    store: Store,
    state: Status,
    *,
    records: Sequence[VersionRecord],
    labels: Sequence[Label],
    efforts: Sequence[tuple[float, float]],
) -> Status:
    """Add to a state what takes longer in a large project: advice, effort, points, and errors of tasks.

    Args:
        settings: of the installation.
        state: of `project_state`.
        records: of all versions, oldest first.
        labels: all of them, oldest first.
        efforts: of `answered_efforts`.
    """
    own, problem = project_settings(settings, store, known_project(settings, store, state.project))
    agreements = [label.agreement for label in labels if label.agreement is not None]
    tasks = {f"task {task}": error for task, error in store.task_errors(state.project).items()}
    return replace(
        state,
        advice=_with_more(
            advise(records, model_number(state.version), agreements),
            [_choice(records) if own.train_encoder == AUTO else "", state.unchanged.warning],
        ),
        effort=effort_report(efforts, own.cost_measure),
        points=points_report(labels, own.cost_measure),
        errors=({"settings": str(problem)} if problem else {}) | state.errors | tasks,
    )


def _with_more(advice: Advice | None, sentences: Sequence[str]) -> Advice | None:
    """Add sentences to an advice, but for empty ones."""
    return advice and replace(advice, sentences=(*advice.sentences, *filter(None, sentences)))


def _choice(records: Sequence[VersionRecord]) -> str:
    """Say what the newest trial measured, and whether the encoder learns since; empty before the first."""
    return next((f"{record.reason}." for record in reversed(records) if record.trial), "")


def project_state(settings: Settings, store: Store, project_id: int) -> Status:
    """Describe a project without what takes longer in a large one: advice, effort, and errors of tasks are left out.

    Args:
        settings: of the installation.

    Raises:
        ConfigurationError: the project was never connected.
    """
    project = known_project(settings, store, project_id)
    own, _ = project_settings(settings, store, project)
    counts, record = store.count_tasks(project_id), serving_record(settings, store, project)
    audit = audit_counts(own, store, project_id)
    return Status(
        project=project.id,
        title=project.title,
        state=shown_state(project),
        stage=project.stage,
        done=project.stage_done,
        total=project.stage_total,
        since=project.stage_since if project.stage else None,
        ends=project.stage_ends if project.stage else None,
        strategy=own.strategy,
        question=reason_of(store, project_id),
        device=next((f"{it.name} of {it.worker}" for it in store.held_devices() if it.project_id == project_id), ""),
        version=project.published_version,
        labels=counts.get("labelled", 0),
        trained_labels=len(record.labels) if record else 0,
        held_out=recorded(record, "miou") if record else None,
        agreement=store.mean_agreement(project_id),
        unchanged=unchanged_labels(own, store, project_id),
        pool=counts.get("unlabelled", 0),
        queue=store.queue_length(project_id, project.published_version),
        skipped=counts.get("skipped", 0),
        audit=audit,
        stream=stream_counts(store, project_id),
        advice=None,
        effort=None,
        points=None,
        hints=[
            *map(str, [*hints(project.label_config, own, project.id), *audit_hints(audit, own)]),
            *filter(None, [smart_tools_hint(store, project, own)]),
            *_other_hints(store, project_id),
        ],
        notice=project.notice,
        errors=_installation_errors(settings, store, project_id)
        | ({"project": project.error} if project.error else {}),
    )


def shown_state(project: Project) -> str:
    """Return the state of a project as people see it: idle until it was looked at for the first time."""
    return project.state if project.reconciled_at or project.state != "waiting" else "idle"


def known_project(settings: Settings, store: Store, project_id: int) -> Project:
    """Return a project of the store.

    Raises:
        ConfigurationError: it is unknown here, or was disconnected.
    """
    project = store.project(project_id)
    if project is not None and project.state == GONE and not project.managed:
        raise ConfigurationError(gone_text(settings, project))
    if project is None or not project.managed:
        connected = ", ".join(
            f"{known.id} ({known.title})" if known.title else str(known.id) for known in store.projects()
        )
        raise ConfigurationError(
            f"Project {project_id} is not connected here (MODEL_DIR = {settings.model_dir})"
            f"{f'; connected are {connected}' if connected else ''}.",
            f"Run: nextmask connect {project_id}",
        )
    return project


def gone_text(settings: Settings, project: Project) -> str:
    """Say that a project was deleted in Label Studio, and what is left of it."""
    name = f" ({project.title})" if project.title else ""
    folder = files_of(settings).below(project_key(project.id)).where
    return f"Project {project.id}{name} is gone from Label Studio; its masks and model versions stay in {folder}."


def _installation_errors(settings: Settings, store: Store, project_id: int) -> dict[str, str]:
    """Look at disk and model versions themselves: where the disk is full, the state that would tell is not written."""
    full = shortage(settings.local_folder)
    try:
        stand_in = checkpoints_of(settings, store, project_id).stand_in()
    except FilesUnavailable as error:
        stand_in = str(error)
    errors = {"worker": worker_failure(store), "disk": str(full or ""), "model": stand_in}
    return {where: error for where, error in errors.items() if error}


def _other_hints(store: Store, project_id: int) -> list[str]:
    """Say what is not as people may expect: predictions of others that are hidden, images that are cut short."""
    hidden, ids = hidden_predictions(store, project_id), images_in_part(store, project_id)
    return [*([hidden_text(hidden, project_id)] if hidden else []), *([in_part_text(ids)] if ids else [])]
