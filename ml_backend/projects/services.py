"""What a process needs to work on projects, made once and handed down."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ml_backend.images.cache import Fetch, ImageCache, ProjectImages
from ml_backend.images.hosts import ImageHosts
from ml_backend.label_studio import LabelStudio
from ml_backend.label_studio.own_files import is_public_url
from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.learning.prediction.predictor_cache import PredictorCache
from ml_backend.projects.folders import checkpoints_of, files_of, project_folder
from ml_backend.projects.training_turns import TrainingTurns
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.system.files import Files

if TYPE_CHECKING:
    from ml_backend.learning.networks import MapStore
    from ml_backend.learning.prediction.predictor import Predictor

TOLD_HOSTNAME: Final = "label_studio_hostname"
"""Under which the store keeps the address that Label Studio told of itself."""
_UNSET_HOSTNAME: Final = "http://localhost:8080"  # which need not be Label Studio, seen from here


@dataclass(frozen=True)
class Services:
    """The parts that worker, server and command line share. Who uses two or three of them is given just those.

    Attributes:
        settings: of the installation, or with a project's `extra_params` laid over them.
        predictors: networks in memory, loaded when first asked for.
        turns: let one training at a time run on each device, in all processes; and the devices.
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
        """Folder of what a project's work needs on this machine."""
        return project_folder(self.settings, project_id)

    @property
    def files(self) -> Files:
        """The masks and model versions of all projects, by key."""
        return files_of(self.settings)

    def images_of(self, project_id: int) -> ProjectImages:
        """The images of a project's tasks."""
        return ProjectImages(self.images, project_id)

    def checkpoints(self, project_id: int) -> Checkpoints:
        """The model versions of a project."""
        return checkpoints_of(self.settings, self.store, project_id)

    def predictor(self, project_id: int, number: int, device: str = "") -> Predictor:
        """Return the network of a version, loaded when it is not in memory.

        Args:
            device: where it predicts; empty: where the project's networks do.

        Raises:
            CheckpointError: the version is missing, damaged, or of another network than its record says.
            ConfigurationError: the device or the network is not available here.
        """
        return self.predictors.get(self.checkpoints(project_id), number, device or self.turns.device_for(project_id))


def open_services(settings: Settings) -> Services:
    """Open the store and make the parts; nothing heavy is imported or loaded.

    Raises:
        ConfigurationError: no usable address or token of Label Studio.
        StoreError: the state database cannot be opened.
    """
    store = Store(settings.effective_database_url)
    client = label_studio_of(settings, store)
    images = image_cache(settings, client.fetch)
    predictors = PredictorCache(capacity=4, one_each=True, maps=lambda: map_folder(settings))
    return Services(settings, store, client, images, predictors, TrainingTurns(store, settings))


def image_cache(settings: Settings, fetch: Fetch) -> ImageCache:
    """Return what keeps images on this machine, in what is left of the cache beside maps and files of a bucket."""
    return ImageCache(
        settings.local_folder / "images",
        fetch,
        max_bytes=settings.image_cache_bytes - settings.maps_bytes - settings.files_bytes,
        max_image_bytes=settings.max_image_bytes,
        max_pixels=settings.max_pixels,
    )


def map_folder(settings: Settings) -> MapStore:
    """Return what keeps the maps of encoders for all projects of an installation."""
    from ml_backend.learning.networks import MapFolder  # takes torch with it

    return MapFolder(settings.maps_folder, settings.maps_bytes)


def label_studio_of(settings: Settings, store: Store | None = None) -> LabelStudio:
    """Return the Label Studio of these settings; nothing is sent yet.

    Args:
        store: where the address that Label Studio has told of itself is kept.

    Raises:
        ConfigurationError: no usable address or token.
    """
    return LabelStudio(
        settings.label_studio_url,
        settings.label_studio_api_key.get_secret_value(),
        timeout=settings.request_timeout,
        image_hosts=ImageHosts.parse(settings.image_hosts),
        image_seconds=settings.image_seconds,
        public_urls=lambda: public_urls(settings, store),
    )


def public_urls(settings: Settings, store: Store | None) -> list[str]:
    """Return the addresses that Label Studio has in people's browsers: as set, and as it told of itself."""
    told = store.value(TOLD_HOSTNAME) if store is not None else ""
    return [url for url in (settings.label_studio_public_url, told) if url]


def keep_hostname(store: Store, hostname: object) -> None:
    """Keep the address that Label Studio tells of itself, but not the one that it tells where none is set there."""
    url = hostname.strip().rstrip("/") if isinstance(hostname, str) else ""
    known = url if is_public_url(url) and url != _UNSET_HOSTNAME else ""
    if known != (store.value(TOLD_HOSTNAME) or ""):
        store.set_value(TOLD_HOSTNAME, known)
