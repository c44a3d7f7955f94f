"""Parts for tests without Label Studio: settings, services, a small trained model, and a host in memory."""

from __future__ import annotations

import base64
import io
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml_backend.annotations import brush
from ml_backend.annotations.label_map import LabelMap, parse_label_config
from ml_backend.errors import ImageError, LabelStudioError, LabelStudioNotFound
from ml_backend.images.cache import ImageCache
from ml_backend.learning.checkpoints import Version
from ml_backend.learning.training import Item, Job, train
from ml_backend.projects.services import Services, open_services
from ml_backend.projects.shown_masks import MaskRenderer
from ml_backend.settings import Settings, load_settings
from ml_backend.store import Task
from ml_backend.worker.look import Look

Json = dict[str, Any]
PAYLOADS = Path(__file__).with_name("payloads")
PROJECT = 65  # the project of the recorded payloads
XML = """<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="tag" toName="image"><Label value="cell"/><Label value="nucleus"/></BrushLabels>
</View>"""
LABEL_MAP = parse_label_config(XML)
SHAPE = (32, 40)  # height, width of all images here
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


def found_share(mask: npt.NDArray[np.uint8], index: int) -> float:
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
        **{"iterations": 12, "batch_size": 4, "input_size": 32, "learning_rate": 1e-3, "device": "cpu"},
    )
    train(job, None)
    return keeper


def give_model(services: Services, project: int = PROJECT) -> None:
    """Put the trained model into a project, as version 1, not published."""
    folder = services.checkpoints(project).folder
    shutil.copytree(Path(_trained().name) / "model", folder)


def give_project(services: Services, project: int = PROJECT, *, version: str = "nextmask-1.1", **fields: Any) -> None:
    """Make a project known, served by the trained model."""
    give_model(services, project)
    services.checkpoints(project).publish(1)
    services.store.wake(project, label_config=XML, ranking_version=version, decided_model=1, **fields)
    services.store.mark_published(project, version)


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


class _WatchedLook(Look):
    def __init__(self, *arguments: Any, stages: list[tuple[str, int, int]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._stages = stages

    def stage(self, stage: str, done: int = 0, total: int = 0) -> None:
        self._stages.append((stage, done, total))
        super().stage(stage, done, total)


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
        **options,
    )


def task_of(task_id: int, project: int = PROJECT, **fields: Any) -> Task:
    return Task(project, task_id, fields.pop("image", f"/data/upload/{task_id}.png"), **fields)


# -- Label Studio in memory ------------------------------------------------------------------------------------------
@dataclass
class MemoryStudio:
    """Answers as the client of a real Label Studio does, for one project, and keeps what is written.

    What it takes over from the real one: an import drops rows with unknown labels or scores outside [0, 1] and says
    nothing, but refuses all rows when one names a task that is gone; imports append; a model_version that no
    prediction carries is refused; registering a backend adds a webhook; predictions leave `updated_at` alone.
    """

    xml: str = XML
    id: int = PROJECT
    items: dict[int, Json] = field(default_factory=dict)
    predictions: list[Json] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    fields: Json = field(default_factory=lambda: {"sampling": "Sequential sampling", "model_version": None})
    backends: list[Json] = field(default_factory=list)
    hooks: list[Json] = field(default_factory=list)
    tabs: list[Json] = field(default_factory=list)
    imports: list[list[Json]] = field(default_factory=list)
    refuses: Callable[[Json], bool] = lambda row: False
    ticks: int = 0

    # -- what people do there ----------------------------------------------------------------------------------------
    def add_task(self, index: int, **data: Any) -> int:
        """Upload the image of a disc."""
        task_id = max(self.items, default=0) + 1
        reference = f"/data/upload/{index}.png"
        self.files[reference] = png(disc(index)[0])
        self.items[task_id] = {"id": task_id, "data": {"image": reference, **data}, "annotations": []}
        self.items[task_id]["updated_at"] = self._now()
        return task_id

    def annotate(self, task_id: int, result: Sequence[Json], **fields: Any) -> int:
        """Submit an annotation; returns its id."""
        task = self.items[task_id]
        number = 1 + sum(len(item["annotations"]) for item in self.items.values())
        task["updated_at"] = now = self._now()
        task["annotations"].append(
            {"id": number, "result": list(result), "created_at": now, "updated_at": now} | fields
        )
        return number

    def label(self, task_id: int, **fields: Any) -> int:
        """Submit the true mask."""
        index = int(Path(self.items[task_id]["data"]["image"]).stem)
        return self.annotate(task_id, [region(disc(index)[1])], lead_time=2.0, **fields)

    def _now(self) -> str:
        self.ticks += 1
        moment = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=self.ticks)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    # -- projects -----------------------------------------------------------------------------------------------------
    def project(self, project_id: int) -> Json:
        if project_id != self.id:
            raise LabelStudioNotFound(f"no project {project_id}", status=404)
        common = {"id": self.id, "title": "In memory", "label_config": self.xml, "task_number": len(self.items)}
        return {**common, **self.fields}

    def whoami(self) -> Json:
        return {"id": 1}

    def is_gone(self, project_id: int) -> bool:
        return project_id != self.id

    def update_project(self, project_id: int, **fields: Any) -> Json:
        self.project(project_id)
        version = fields.get("model_version")
        if version and version not in self.model_versions(project_id):
            raise LabelStudioError(f"Model version doesn't exist: {version}", status=400)
        self.xml = fields.pop("label_config", self.xml)
        self.fields.update(fields)
        return self.project(project_id)

    # -- tasks --------------------------------------------------------------------------------------------------------
    def changed_tasks(self, project_id: int, since: str | None) -> Iterator[Json]:
        found = sorted(self.items.values(), key=lambda item: item["updated_at"])
        yield from (self._with_parents(item) for item in found if since is None or item["updated_at"] >= since)

    def tasks(self, project_id: int, task_ids: Iterable[int]) -> Iterator[Json]:
        yield from (self._with_parents(self.items[one]) for one in sorted(task_ids) if one in self.items)

    def _with_parents(self, item: Json) -> Json:
        parents = {annotation.get("parent_prediction") for annotation in item["annotations"]}
        return {**item, "predictions": [row for row in self.predictions if row["id"] in parents]}

    def task_ids(self, project_id: int) -> list[int]:
        return sorted(self.items)

    def settled(self) -> str:
        return "2100-01-01T00:00:00.000000Z"

    def import_tasks(self, project_id: int, tasks: Sequence[Json]) -> list[int]:
        created = []
        for task in tasks:
            created.append(1 + max(self.items, default=0))
            self.items[created[-1]] = {"id": created[-1], "annotations": [], "updated_at": self._now(), **task}
        return created

    # -- predictions --------------------------------------------------------------------------------------------------
    def import_predictions(self, project_id: int, rows: Sequence[Json]) -> int:
        self.imports.append([dict(row) for row in rows])
        if any(row["task"] not in self.items for row in rows):
            raise LabelStudioError("400: a task is gone", status=400)
        kept = [row for row in rows if self._is_valid(row)]
        self.predictions += [{**row, "id": len(self.predictions) + at} for at, row in enumerate(kept, start=1)]
        return len(kept)

    def _is_valid(self, row: Json) -> bool:
        labels = [label for one in row["result"] for label in one["value"][one["type"]]]
        return 0 <= row["score"] <= 1 and all(f'"{name}"' in self.xml for name in labels) and not self.refuses(row)

    def tasks_with_prediction(self, project_id: int, version: str) -> set[int]:
        return {row["task"] for row in self.predictions if row["model_version"] == version}

    def model_versions(self, project_id: int) -> dict[str, int]:
        return dict(Counter(row["model_version"] for row in self.predictions))

    def delete_model_version(self, project_id: int, version: str) -> int:
        self.project(project_id)
        before = len(self.predictions)
        self.predictions = [row for row in self.predictions if row["model_version"] != version]
        return before - len(self.predictions)

    def rename_predictions(self, task_id: int, version: str, other: str, *, keep: int = 0) -> int:
        found = [row for row in self.predictions if (row["task"], row["model_version"]) == (task_id, version)][keep:]
        for row in found:
            row["model_version"] = other
        return len(found)

    def queue(self) -> list[int]:
        """Unlabelled tasks with a prediction of the current version, in the order in which they are served."""
        rows = [row for row in self.predictions if row["model_version"] == self.fields["model_version"]]
        rows = [row for row in rows if not self.items[row["task"]]["annotations"]]
        return [row["task"] for row in sorted(rows, key=lambda row: float(row["score"]))]

    # -- backends, webhooks, tabs -------------------------------------------------------------------------------------
    def ml_backends(self, project_id: int) -> list[Json]:
        return [dict(row) for row in self.backends]

    def add_ml_backend(self, *, project: int, url: str, title: str, **fields: Any) -> Json:
        self.backends.append({"id": self._next_id(), "url": url, "title": title, "state": "CO", **fields})
        self.hooks.append({"id": self._next_id(), "url": f"{url}/webhook", "send_for_all_actions": True, "headers": {}})
        return self.backends[-1]

    def update_ml_backend(self, backend_id: int, *, project: int, url: str, **fields: Any) -> Json:
        return _change(self.backends, backend_id, {"url": url, **fields})

    def delete_ml_backend(self, backend_id: int) -> None:
        self.backends = [row for row in self.backends if row["id"] != backend_id]

    def webhooks(self, project_id: int) -> list[Json]:
        return [dict(row) for row in self.hooks]

    def add_webhook(self, *, project: int, url: str, **fields: Any) -> Json:
        self.hooks.append({"id": self._next_id(), "project": project, "url": url, **fields})
        return self.hooks[-1]

    def update_webhook(self, webhook_id: int, *, actions: Sequence[str], **fields: Any) -> Json:
        return _change(self.hooks, webhook_id, {"actions": list(actions), **fields})

    def delete_webhook(self, webhook_id: int) -> None:
        self.hooks = [row for row in self.hooks if row["id"] != webhook_id]

    def views(self, project_id: int) -> list[Json]:
        return [dict(row) for row in self.tabs]

    def add_view(self, project_id: int, data: Json) -> Json:
        self.tabs.append({"id": self._next_id(), "data": data})
        return self.tabs[-1]

    def update_view(self, view_id: int, project_id: int, data: Json) -> Json:
        return _change(self.tabs, view_id, {"data": data})

    def delete_view(self, view_id: int) -> None:
        self.tabs = [row for row in self.tabs if row["id"] != view_id]

    def _next_id(self) -> int:
        return 1 + max((row["id"] for row in [*self.backends, *self.hooks, *self.tabs]), default=0)

    # -- files --------------------------------------------------------------------------------------------------------
    @contextmanager
    def fetch(self, reference: str) -> Iterator[Iterable[bytes]]:
        if reference not in self.files:
            raise ImageError(f"Image {reference} cannot be fetched: not found (404).")
        yield [self.files[reference]]


def _change(rows: list[Json], row_id: int, fields: Json) -> Json:
    row = next(row for row in rows if row["id"] == row_id)
    row.update(fields)
    return row


def nothing(*_arguments: object) -> None:
    """Progress nobody looks at, and a check that always passes."""
