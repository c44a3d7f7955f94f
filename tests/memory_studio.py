"""A Label Studio in memory: it answers as the client of a real one does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from wiring import BROKEN, PROJECT, URL, XML, Json, disc, png, region

from ml_backend.errors import ImageError, LabelStudioError, LabelStudioNotFound


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
    files: dict[str, bytes] = field(default_factory=lambda: {BROKEN: b"\x89PNG\r\n\x1a\n these are no pixels"})
    fields: Json = field(default_factory=lambda: {"sampling": "Sequential sampling", "model_version": None})
    backends: list[Json] = field(default_factory=list)
    hooks: list[Json] = field(default_factory=list)
    tabs: list[Json] = field(default_factory=list)
    people: list[Json] = field(default_factory=list)
    imports: list[list[Json]] = field(default_factory=list)
    refuses: Callable[[Json], bool] = lambda row: False
    ticks: int = 0

    @classmethod
    def with_images(cls, images: int | Iterable[int] = 0, *, connected: bool = False, **fields: Any) -> MemoryStudio:
        """Make one with tasks that show discs (a number: the first ones), and a backend when nextmask is connected."""
        backends = [{"id": 1, "url": URL, "title": "nextmask", "extra_params": {}}] if connected else []
        studio = cls(**{"backends": backends, **fields})
        for index in range(images) if isinstance(images, int) else images:
            studio.add_task(index)
        return studio

    # -- what people do there ----------------------------------------------------------------------------------------
    def add_task(self, index: int, **data: Any) -> int:
        """Upload the image of a disc."""
        task_id = max(self.items, default=0) + 1
        reference = f"/data/upload/{index}.png"
        self.files[reference] = png(disc(index)[0])
        self.items[task_id] = {"id": task_id, "data": {"image": reference, **data}, "annotations": []}
        self.items[task_id]["updated_at"] = self.now()
        return task_id

    def annotate(self, task_id: int, result: Sequence[Json], **fields: Any) -> int:
        """Submit an annotation; returns its id."""
        task = self.items[task_id]
        number = 1 + sum(len(item["annotations"]) for item in self.items.values())
        task["updated_at"] = now = self.now()
        task["annotations"].append(
            {"id": number, "result": list(result), "created_at": now, "updated_at": now} | fields
        )
        return number

    def label(self, task_id: int, **fields: Any) -> int:
        """Submit the true mask."""
        index = int(Path(self.items[task_id]["data"]["image"]).stem)
        return self.annotate(task_id, [region(disc(index)[1])], lead_time=2.0, **fields)

    def now(self) -> str:
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

    def users(self) -> list[Json]:
        return [{"id": 1, "first_name": "", "last_name": "", "email": "one@example.org"}, *self.people]

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
            self.items[created[-1]] = {"id": created[-1], "annotations": [], "updated_at": self.now(), **task}
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
