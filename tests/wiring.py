"""Parts for tests without Label Studio: images, masks, settings, services, and a small trained model."""

from __future__ import annotations

import base64
import io
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
import torch
from PIL import Image

from ml_backend.annotations import brush, masks
from ml_backend.annotations.label_map import LabelMap, parse_label_config
from ml_backend.errors import LeaseLost
from ml_backend.images.cache import ImageCache
from ml_backend.learning.checkpoints import Version
from ml_backend.learning.training import Item, Job, train
from ml_backend.projects.audit import audit_set
from ml_backend.projects.services import Services, open_services
from ml_backend.projects.shown_masks import MaskRenderer
from ml_backend.settings import Settings, load_settings
from ml_backend.store import Project, Store, Task
from ml_backend.worker.look import Look
from ml_backend.worker.sync import Sync

if TYPE_CHECKING:
    from memory_studio import MemoryStudio

Json = dict[str, Any]
PAYLOADS = Path(__file__).with_name("payloads")
PROJECT = 65  # the project of the recorded payloads
XML = """<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="tag" toName="image"><Label value="cell"/><Label value="nucleus"/></BrushLabels>
</View>"""
LABEL_MAP = parse_label_config(XML)
SHAPE = (32, 40)  # height, width of all images here
URL = "http://127.0.0.1:9090"  # where nextmask runs, as settings say by default
BROKEN = "/data/upload/broken.png"  # a Label Studio in memory has it, and it is no image
NOBODY = "http://127.0.0.1:9"  # no Label Studio answers there


def payload(name: str) -> Json:
    """One recorded request: method, path, headers, body."""
    recorded: Json = json.loads((PAYLOADS / f"{name}.json").read_text(encoding="utf-8"))
    return recorded


# -- images and masks ------------------------------------------------------------------------------------------------
def disc(index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A bright disc ("cell") on a dark noisy ground, and its mask."""
    random = np.random.default_rng(index)
    height, width = SHAPE
    rows, columns = np.ogrid[:height, :width]
    row, column, radius = random.integers(10, height - 10), random.integers(10, width - 10), random.integers(8, 12)
    mask = ((rows - row) ** 2 + (columns - column) ** 2 < radius**2).astype(np.uint8)
    image = np.where(mask[..., None] == 1, [230, 200, 60], [30, 40, 80]) + random.normal(0, 8, (*SHAPE, 3))
    return image.clip(0, 255).astype(np.uint8), mask


def overlap_with_truth(mask: npt.NDArray[np.uint8], index: int) -> float:
    """Intersection over union of the cells (class 1) in a mask, and the disc that is there."""
    cells, truth = mask == 1, disc(index)[1] == 1
    return float((cells & truth).sum() / (cells | truth).sum())


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(index: int) -> str:
    """A disc's image as a reference that needs no host."""
    return f"data:image/png;base64,{base64.b64encode(png(disc(index)[0])).decode()}"


def region(mask: npt.NDArray[np.uint8], label: str = "cell") -> Json:
    """The brush region of a mask (pixels that are not 0)."""
    painted = (mask > 0).astype(np.uint8) * 255
    value = {"format": "rle", "rle": list(brush.encode(painted)), "brushlabels": [label]}
    size = {"original_width": mask.shape[1], "original_height": mask.shape[0], "image_rotation": 0}
    return {"id": "r1", "from_name": "tag", "to_name": "image", "type": "brushlabels", **size, "value": value}


# -- a trained model -------------------------------------------------------------------------------------------------
@cache
def _trained() -> tempfile.TemporaryDirectory[str]:
    """One real training for the whole session: four discs learned, two held out; class nucleus has no example."""
    keeper = tempfile.TemporaryDirectory()
    folder, items = Path(keeper.name), []
    for index in range(6):
        image, mask = folder / f"{index}.png", folder / f"{index}-mask.png"
        pixels, truth = disc(index)
        image.write_bytes(png(pixels))
        mask.write_bytes(png(truth))
        items.append(Item(str(index + 1), image, mask, index >= 4, f"digest-{index + 1}"))
    job = Job(
        items=tuple(items),
        classes=LABEL_MAP.classes,
        label_map_digest=LABEL_MAP.digest,
        data_digest="data",
        folder=folder / "model",
        **{"iterations": 40, "batch_size": 4, "input_size": 32, "learning_rate": 1e-3, "device": "cpu"},
    )
    train(job, None)
    return keeper


def give_model(services: Services, project: int = PROJECT) -> Version:
    """Put the trained model into a project, as version 1, not published."""
    checkpoints = services.checkpoints(project)
    shutil.copytree(Path(_trained().name) / "model", checkpoints.folder)
    return checkpoints.get(1)


def serve_model(services: Services, project: int = PROJECT) -> Version:
    """Let the trained model serve a known project, as a training of its own would; nothing is ranked yet."""
    give_model(services, project)
    services.store.update_project(project, decided_model=1)
    return services.checkpoints(project).publish(1)


def give_project(services: Services, project: int = PROJECT, *, version: str = "nextmask-1.1", **fields: Any) -> None:
    """Make a project known, served by the trained model."""
    give_model(services, project)
    services.checkpoints(project).publish(1)
    services.store.wake(project, label_config=XML, ranking_version=version, decided_model=1, **fields)
    services.store.mark_published(project, version)


# -- time ------------------------------------------------------------------------------------------------------------
class Clock:
    """A clock that stands still until a test sets `now`: whole seconds since the epoch, so that sums are exact."""

    def __init__(self) -> None:
        self.now = float(round(time.time()))

    def __call__(self) -> float:
        return self.now

    def go_on(self, hours: float) -> None:
        self.now += hours * 3600


# -- settings and services -------------------------------------------------------------------------------------------
def make_settings(folder: Path, **changes: Any) -> Settings:
    usual = {"label_studio_url": NOBODY, "label_studio_api_key": "0" * 40, "model_dir": folder, "device": "cpu"}
    return load_settings(**{**usual, **changes})


def make_services(folder: Path, studio: MemoryStudio | None = None, **changes: Any) -> Services:
    """Services of an installation; with a host in memory instead of the client when there is one."""
    services = open_services(make_settings(folder, **changes))
    if studio is None:
        return services
    limits = {"max_bytes": 10**9, "max_image_bytes": 10**7, "max_pixels": 10**7}
    images = ImageCache(folder / "images", studio.fetch, **limits)
    return replace(services, client=studio, images=images)  # type: ignore[arg-type]  # it stands in for the client


@contextmanager
def open_installation(folder: Path, studio: MemoryStudio | None = None, **changes: Any) -> Iterator[Services]:
    """Services as `make_services` makes them, whose database is closed at the end."""
    services = make_services(folder, studio, **changes)
    try:
        yield services
    finally:
        services.store.close()


def project_of(source: Services | Store, project: int = PROJECT) -> Project:
    """What the store knows of a project that it has to know."""
    store = source if isinstance(source, Store) else source.store
    known = store.project(project)
    assert known is not None, f"project {project} is not known"
    return known


def change_database(services: Services, statement: str) -> None:
    """Do something to the state's database behind the store's back."""
    execute(services.settings.effective_database_url, statement)


def execute(url: str, statement: str) -> list[Any]:
    """Execute a statement in a database without the store; returns the rows, if it has some."""
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            result = connection.exec_driver_sql(statement)
            return list(result) if result.returns_rows else []
    finally:
        engine.dispose()


class _WatchedLook(Look):
    def __init__(self, *arguments: Any, stages: list[tuple[str, int, int]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._stages = stages

    def stage(self, stage: str, done: int = 0, total: int = 0, **more: Any) -> None:
        self._stages.append((stage, done, total))
        super().stage(stage, done, total, **more)


def look_at(
    services: Services,
    project: int = PROJECT,
    label_map: LabelMap = LABEL_MAP,
    *,
    settings: Json | None = None,
    stages: list[tuple[str, int, int]] | None = None,
    **options: Any,
) -> Look:
    """A look at a project, with `settings` laid over those of the installation; `options` as of Look.

    Stages that it shows are added to `stages`: (name, done, total).
    """
    own = replace(services, settings=services.settings.for_project(settings or {}))
    return _WatchedLook(own, project, label_map, stages=[] if stages is None else stages, **options)


def kill_at_every_check(work: Callable[[Callable[[], None]], object]) -> int:
    """Let work lose its lease at the first check, then at the second, … until it comes through.

    Returns how often it was killed.
    """
    deaths = 0
    while True:
        try:
            work(_fails_at(deaths + 1))
            return deaths
        except LeaseLost:
            deaths += 1


def _fails_at(number: int) -> Callable[[], None]:
    calls = itertools.count(1)

    def check() -> None:
        if next(calls) == number:
            raise LeaseLost("killed")

    return check


def put_task(services: Services, task_id: int, **fields: Any) -> Task:
    """Put one task into the store."""
    task = task_of(task_id, **fields)
    services.store.put_tasks([task])
    return task


def renderer_of(
    services: Services,
    model: Version | None,
    label_map: LabelMap = LABEL_MAP,
    *,
    project: int = PROJECT,
    **options: Any,
) -> MaskRenderer:
    """The renderer of a project's masks with one version; `options` as of MaskRenderer."""
    return MaskRenderer(
        services.settings,
        services.store,
        project,
        label_map,
        images=services.images_of(project),
        predictor=partial(services.predictor, project, model.number) if model else None,
        **{"audit": audit_set(services.settings, services.store, project), **options},
    )


def synced(services: Services, **settings: Any) -> None:
    """Let a project be read once, with these settings."""
    Sync(look_at(services, settings=settings)).run()


def stored(services: Services, task_id: int = 1) -> Task:
    """What is known of a task."""
    found = services.store.task(PROJECT, task_id)
    assert found is not None
    return found


def mask_of(services: Services, task: Task) -> npt.NDArray[np.uint8]:
    """The mask of a label."""
    return masks.mask_from_png(services.files.read(task.mask_file))


def task_of(task_id: int, project: int = PROJECT, **fields: Any) -> Task:
    return Task(project, task_id, fields.pop("image", f"/data/upload/{task_id}.png"), **fields)


@contextmanager
def single_thread() -> Iterator[None]:
    """Networks as small as these run slower on several threads, which wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def nothing(*_arguments: object) -> None:
    """Progress nobody looks at, and a check that always passes."""
