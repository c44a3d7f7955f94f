"""What a process needs to work on projects, made once and handed down."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ml_backend.images.cache import ImageCache, ProjectImages
from ml_backend.images.hosts import ImageHosts
from ml_backend.label_studio import LabelStudio
from ml_backend.learning.checkpoints import Checkpoints, Version
from ml_backend.learning.training.turns import TrainingTurns
from ml_backend.settings import Settings
from ml_backend.store import Store

if TYPE_CHECKING:
    from ml_backend.learning.prediction.predictors import PredictorCache


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


def open_services(settings: Settings) -> Services:
    """Open the store and make the parts; nothing heavy is imported or loaded.

    Raises:
        StoreError: the state database cannot be opened.
    """
    from ml_backend.learning.prediction.predictors import PredictorCache

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
    store.set_value(_WORKER_SEEN, str(time.time()))


def worker_seen(store: Store) -> float | None:
    """Return when a worker gave its last sign of life (seconds since the epoch); None where none ever did."""
    noted = store.value(_WORKER_SEEN)
    return None if noted is None else float(noted)


def webhook_secret(services: Services) -> str:
    """Return the secret of our webhooks: the setting, or the one made at the first start."""
    given = services.settings.webhook_secret.get_secret_value()
    return given or services.store.set_default("webhook_secret", secrets.token_urlsafe(32))


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
