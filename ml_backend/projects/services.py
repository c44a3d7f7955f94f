"""What a process needs to work on projects, made once and handed down."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ml_backend.errors import ConfigurationError
from ml_backend.images.cache import ImageCache, ProjectImages
from ml_backend.images.hosts import ImageHosts
from ml_backend.label_studio import LabelStudio
from ml_backend.learning.checkpoints import Checkpoints, Version
from ml_backend.learning.training.turns import TrainingTurns
from ml_backend.settings import Settings
from ml_backend.store import Project, Store

if TYPE_CHECKING:
    from ml_backend.learning.prediction.predictor import PredictorCache

NO_VERSION = "nextmask-0.0"
"""What /setup and /predict answer before anything was published: no prediction carries it."""

_WORKER_SEEN = "worker_seen_at"


@dataclass(frozen=True)
class Services:
    """The parts that reconciler, server and command line share.

    Attributes:
        settings: of the installation, or with a project's `extra_params` laid over them.
        predictors: networks in memory, loaded when first asked for.
        turns: one training at a time in this process; more would share one GPU.
        stopping: set when the server has to end: requests under way answer what they have.
    """

    settings: Settings
    store: Store
    client: LabelStudio
    images: ImageCache
    predictors: PredictorCache
    turns: TrainingTurns
    stopping: threading.Event = field(default_factory=threading.Event)

    def project_folder(self, project_id: int) -> Path:
        """Folder of a project's masks and model versions."""
        return self.settings.model_dir / "projects" / str(project_id)

    def images_of(self, project_id: int) -> ProjectImages:
        """The images of a project's tasks."""
        return ProjectImages(self.images, project_id)

    def checkpoints(self, project_id: int) -> Checkpoints:
        """The model versions of a project."""
        return Checkpoints(self.project_folder(project_id) / "model")


def project_settings(services: Services, project: Project) -> tuple[Settings, ConfigurationError | None]:
    """Return a project's settings; those that were good last, and why, where those entered now are invalid."""
    try:
        return services.settings.for_project(project.extra_params), None
    except ConfigurationError as error:
        return last_good_settings(services, project.id) or services.settings, error


def last_good_settings(services: Services, project_id: int) -> Settings | None:
    """Return the settings that a project was last looked at with; None where it never had good ones."""
    kept = services.store.note(_good_params(project_id))
    try:
        return None if kept is None else services.settings.for_project(kept)
    except ConfigurationError:  # they were good for another release
        return None


def keep_good_settings(services: Services, project: Project) -> None:
    """Keep a project's settings, which are valid, for a time when what is entered is not."""
    if services.store.note(_good_params(project.id)) != project.extra_params:
        services.store.set_note(_good_params(project.id), project.extra_params)


def _good_params(project_id: int) -> str:
    return f"good_extra_params_{project_id}"


def model_number(version: str) -> int:
    """Return the model's number in a version string, `nextmask-7.2` -> 7; 0 where there is none."""
    digits = version.removeprefix("nextmask-").partition(".")[0]
    return int(digits) if digits.isdigit() else 0


def ranking_number(version: str) -> int:
    """Return the ranking's number in a version string, `nextmask-7.2` -> 2; 0 where it is not one of ours."""
    if not version.startswith("nextmask-"):
        return 0
    digits = version.partition(".")[2]
    return int(digits) if digits.isdigit() else 0


def open_services(settings: Settings) -> Services:
    """Open the store and make the parts; nothing heavy is imported or loaded.

    Raises:
        StoreError: the state database cannot be opened.
    """
    from ml_backend.learning.prediction.predictor import PredictorCache

    client = label_studio_of(settings)
    images = ImageCache(
        settings.model_dir / "images",
        client.fetch,
        max_bytes=settings.image_cache_bytes,
        max_image_bytes=settings.max_image_bytes,
        max_pixels=settings.max_pixels,
    )
    store = Store(settings.effective_database_url)
    return Services(settings, store, client, images, PredictorCache(capacity=4, one_each=True), TrainingTurns())


def label_studio_of(settings: Settings) -> LabelStudio:
    """Return the Label Studio of these settings; nothing is sent yet.

    Raises:
        ConfigurationError: no usable address or token.
    """
    return LabelStudio(
        settings.label_studio_url,
        settings.label_studio_api_key.get_secret_value(),
        timeout=settings.request_timeout,
        image_hosts=ImageHosts.parse(settings.image_hosts),
        image_seconds=settings.image_seconds,
    )


def show_worker(store: Store) -> None:
    """Give a sign of life of this process, a worker."""
    store.set_note(_WORKER_SEEN, str(time.time()))


def worker_seen(store: Store) -> float | None:
    """Return when a worker gave its last sign of life (seconds since the epoch); None where none ever did."""
    noted = store.note(_WORKER_SEEN)
    return None if noted is None else float(noted)


def webhook_secret(services: Services) -> str:
    """Return the secret of our webhooks: the setting, or the one made at the first start."""
    given = services.settings.webhook_secret.get_secret_value()
    return given or services.store.secret("webhook_secret", secrets.token_urlsafe(32))


def roll_back(services: Services, project_id: int, number: int | None = None) -> Version:
    """Let an earlier version serve, `number` or the accepted one before; the queue follows with the next reconcile.

    Raises:
        CheckpointError: there is no such version, or it is damaged.
    """
    checkpoints = services.checkpoints(project_id)
    version = checkpoints.rollback(number)
    latest = checkpoints.latest()
    services.store.wake(project_id, decided_model=latest.number if latest else version.number)
    services.store.add_event(project_id, "rolled_back", f"Version {version.number} serves again, as was asked for.")
    return version
