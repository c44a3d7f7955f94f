"""What `nextmask status` tells of a project, from the store and the checkpoints alone: Label Studio may be down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ml_backend.annotations.label_map import label_map_of
from ml_backend.errors import CheckpointError, ConfigurationError, LabelConfigError
from ml_backend.label_studio.predictions import model_number
from ml_backend.learning.checkpoints import VersionRecord
from ml_backend.projects.advice import Advice, advise
from ml_backend.projects.effort_report import EffortReport, effort_pairs, effort_report
from ml_backend.projects.passed_over import StreamCounts, stream_counts
from ml_backend.projects.services import Services
from ml_backend.projects.settings import project_settings
from ml_backend.settings import Settings
from ml_backend.store import GONE, Label, Project, Store
from ml_backend.system.disk import shortage
from strategies import catalogue


@dataclass(frozen=True)
class Status:
    """The state of one project.

    Attributes:
        state: idle, syncing, training, ranking, publishing, waiting or failed. idle: nothing was looked at yet.
        stage, done, total: what is going on, in images or steps. since: when that began, in seconds since the epoch.
        labels: usable labels in Label Studio. trained_labels: those in the version that serves.
        held_out_miou: of the version that serves; None where none could be measured.
        agreement: mean IoU between pre-annotation and submitted mask over all labels that had one.
        pool: tasks without a label, skipped ones not counted. queue: published ones among them.
        stream: what stream mode kept, passed over and got back; None where it never ran.
        advice: what labelling brings, from the versions' measures; None before the first version.
        effort: of regions that were asked for, predicted and actual; None as long as there is nothing to compare.
        hints: what would make more of the settings.
        notice: what the last change of the labelling configuration meant for the labels; empty without one.
        errors: tasks that cannot be used, with the reason, and the last failure of the project under "project";
            under "disk" that MODEL_DIR has no room, under "model" that another version serves than should.
    """

    project: int
    title: str
    state: str
    stage: str
    done: int
    total: int
    since: float | None
    strategy: str
    version: str
    labels: int
    trained_labels: int
    held_out_miou: float | None
    agreement: float | None
    pool: int
    queue: int
    skipped: int
    stream: StreamCounts | None
    advice: Advice | None
    effort: EffortReport | None
    hints: list[str]
    notice: str
    errors: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return an object for scripts."""
        return asdict(self)


def project_status(services: Services, project_id: int) -> Status:
    """Describe a project.

    Raises:
        ConfigurationError: the project was never connected.
    """
    return in_full(
        services,
        project_state(services, project_id),
        records=services.checkpoints(project_id).history(),
        labels=services.store.labels(project_id),
        efforts=answered_efforts(services.store, project_id),
    )


def answered_efforts(store: Store, project_id: int) -> list[tuple[float, float]]:
    """Return predicted and actual effort of the regions that were asked for and labelled."""
    return effort_pairs(store.tasks_in_parts(project_id), store.published_queries(project_id))


def in_full(
    services: Services,
    state: Status,
    *,
    records: Sequence[VersionRecord],
    labels: Sequence[Label],
    efforts: Sequence[tuple[float, float]],
) -> Status:
    """Add to a state what takes longer in a large project: advice, effort, and errors of tasks.

    Args:
        state: of `project_state`.
        records: of all versions, oldest first.
        labels: all of them, oldest first.
        efforts: of `answered_efforts`.
    """
    store, project_id = services.store, state.project
    settings, problem = project_settings(services, known_project(services, project_id))
    scores = [label.agreement for label in labels if label.agreement is not None]
    tasks = {f"task {task}": error for task, error in store.task_errors(project_id).items()}
    return replace(
        state,
        advice=advise(records, model_number(state.version), scores),
        effort=effort_report(efforts, settings.cost_measure),
        errors=({"settings": str(problem)} if problem else {}) | state.errors | tasks,
    )


def project_state(services: Services, project_id: int) -> Status:
    """Describe a project without what takes longer in a large one: advice, effort, and errors of tasks are left out.

    Raises:
        ConfigurationError: the project was never connected.
    """
    project = known_project(services, project_id)
    settings, _ = project_settings(services, project)
    store, counts = services.store, services.store.count_tasks(project_id)
    record = serving_record(services, project)
    return Status(
        project=project.id,
        title=project.title,
        state=project.state if project.reconciled_at or project.state != "waiting" else "idle",
        stage=project.stage,
        done=project.stage_done,
        total=project.stage_total,
        since=project.stage_since if project.stage else None,
        strategy=settings.strategy,
        version=project.published_version,
        labels=counts.get("labelled", 0),
        trained_labels=len(record.labels) if record else 0,
        held_out_miou=record.measures.get("miou") if record else None,
        agreement=store.mean_agreement(project_id),
        pool=counts.get("unlabelled", 0),
        queue=store.queue_length(project_id, project.published_version),
        skipped=counts.get("skipped", 0),
        stream=stream_counts(store, project_id),
        advice=None,
        effort=None,
        hints=_hints(project, settings),
        notice=project.notice,
        errors=_disk(settings) | _model(services, project_id) | ({"project": project.error} if project.error else {}),
    )


def serving_record(services: Services, project: Project) -> VersionRecord | None:
    """Return the record of the version that is published; None before the first, and where it is damaged."""
    number = model_number(project.published_version)
    try:
        return services.checkpoints(project.id).get(number).record if number else None
    except CheckpointError:
        return None


def _model(services: Services, project_id: int) -> dict[str, str]:
    stand_in = services.checkpoints(project_id).stand_in()
    return {"model": stand_in} if stand_in else {}


def _disk(settings: Settings) -> dict[str, str]:
    """Look at the disk itself: where it is full, the state cannot be written that would tell."""
    full = shortage(settings.model_dir)
    return {"disk": str(full)} if full else {}


def known_project(services: Services, project_id: int) -> Project:
    """Return a project of the store.

    Raises:
        ConfigurationError: it is unknown here, or was disconnected.
    """
    project = services.store.project(project_id)
    if project is not None and project.state == GONE and not project.managed:
        raise ConfigurationError(gone_text(services, project))
    if project is None or not project.managed:
        raise ConfigurationError(
            f"Project {project_id} is not connected here (MODEL_DIR = {services.settings.model_dir}). "
            f"Run: nextmask connect {project_id}"
        )
    return project


def gone_text(services: Services, project: Project) -> str:
    """Say that a project was deleted in Label Studio, and what is left of it."""
    name = f" ({project.title})" if project.title else ""
    folder = services.project_folder(project.id)
    return f"Project {project.id}{name} is gone from Label Studio; its masks and model versions stay in {folder}."


def _hints(project: Project, settings: Settings) -> list[str]:
    if not catalogue.described(settings.strategy).asks_for_regions or not project.label_config:
        return []
    try:
        label_map = label_map_of(project.label_config, settings)
    except LabelConfigError:
        return []  # which is an error of its own
    if label_map.query_control is not None:
        return []
    return [
        f"Strategy {settings.strategy} asks for regions, but the labelling configuration has no control"
        f" {settings.query_control!r} to show them, so whole images are asked for."
        f" To add it: nextmask connect {project.id} --add-query-control"
    ]
