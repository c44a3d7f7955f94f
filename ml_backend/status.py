"""What `nextmask status` tells of a project, from the store and the checkpoints alone: Label Studio may be down."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ml_backend.checkpoints import Version
from ml_backend.errors import ConfigurationError
from ml_backend.services import Services, model_number
from ml_backend.settings import Settings
from ml_backend.store import Project, Task


@dataclass(frozen=True)
class Status:
    """The state of one project.

    Attributes:
        state: idle, syncing, training, ranking, publishing, waiting or failed. idle: nothing was looked at yet.
        stage, done, total: what is going on, in images or steps.
        labels: usable labels in Label Studio. trained_labels: those in the version that serves.
        held_out_miou: of the version that serves; None where none could be measured.
        agreement: mean IoU between pre-annotation and submitted mask over all labels that had one.
        pool: tasks without a label, skipped ones not counted. queue: published ones among them.
        errors: tasks that cannot be used, with the reason, and the last failure of the project under "project".
    """

    project: int
    title: str
    state: str
    stage: str
    done: int
    total: int
    strategy: str
    version: str
    labels: int
    trained_labels: int
    held_out_miou: float | None
    agreement: float | None
    pool: int
    queue: int
    skipped: int
    errors: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return an object for scripts."""
        return asdict(self)


def project_status(services: Services, project_id: int) -> Status:
    """Describe a project.

    Raises:
        ConfigurationError: the project was never connected.
    """
    project = known_project(services, project_id)
    settings, problem = _settings(services, project)
    tasks = services.store.tasks(project_id)
    model = _serving(services, project)
    record = model.record if model else None
    scores = [task.agreement for task in tasks if task.status == "labelled" and task.agreement is not None]
    return Status(
        project=project.id,
        title=project.title,
        state=project.state if project.reconciled_at or project.state != "waiting" else "idle",
        stage=project.stage,
        done=project.stage_done,
        total=project.stage_total,
        strategy=settings.strategy,
        version=project.published_version,
        labels=_count(tasks, "labelled"),
        trained_labels=len(record.labels) if record else 0,
        held_out_miou=record.measures.get("miou") if record else None,
        agreement=sum(scores) / len(scores) if scores else None,
        pool=_count(tasks, "unlabelled"),
        queue=services.store.queue_length(project_id, project.published_version),
        skipped=_count(tasks, "skipped"),
        errors=problem | _errors(project, tasks),
    )


def known_project(services: Services, project_id: int) -> Project:
    """Return a project of the store.

    Raises:
        ConfigurationError: it is unknown here, or was disconnected.
    """
    project = services.store.project(project_id)
    if project is None or not project.managed:
        raise ConfigurationError(
            f"Project {project_id} is not connected here (MODEL_DIR = {services.settings.model_dir}). "
            f"Run: nextmask connect {project_id}"
        )
    return project


def _settings(services: Services, project: Project) -> tuple[Settings, dict[str, str]]:
    """The project's settings; the installation's, and why, where those entered in Label Studio are invalid."""
    try:
        return services.settings.for_project(project.extra_params), {}
    except ConfigurationError as error:
        return services.settings, {"settings": str(error)}


def _serving(services: Services, project: Project) -> Version | None:
    number = model_number(project.published_version)
    versions = {version.number: version for version in services.checkpoints(project.id).versions()}
    return versions.get(number)


def _count(tasks: list[Task], status: str) -> int:
    return sum(task.status == status for task in tasks)


def _errors(project: Project, tasks: list[Task]) -> dict[str, str]:
    errors = {f"task {task.task_id}": task.error for task in tasks if task.error}
    return {"project": project.error, **errors} if project.error else errors
