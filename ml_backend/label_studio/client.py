"""The calls of Label Studio's API that nextmask makes.

Dictionaries are Label Studio's JSON objects. Every method may raise a LabelStudioError or an error derived from it.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final

from ml_backend.errors import LabelStudioError, LabelStudioNotFound
from ml_backend.images.hosts import PUBLIC, ImageHosts
from ml_backend.label_studio.queries import ANNOTATION_FIELDS, BEGINNING, TASK_FIELDS, condition, host_time, query
from ml_backend.label_studio.transport import Transport, misread

Json = dict[str, Any]

TESTED_RELEASE: Final = "1.23.2"
"""Release of Label Studio that nextmask is tested with."""

_TASK_INCLUDE = ",".join(TASK_FIELDS + ANNOTATION_FIELDS)
IDS_PER_PAGE = 1000
"""Tasks asked for at a time where only their numbers matter."""
UPLOAD_FILES = 100
"""Images uploaded in a request: Label Studio's own limit."""
_UPLOAD_BYTES = 100_000_000
_SETTLE_SECONDS = 60.0
# Label Studio cuts the list of a task's model versions at 500 characters with quotes, and then drops the quotes.
_CUT_LENGTH = 360
_PUBLIC_HOSTS = ImageHosts.parse(PUBLIC)
_RECTANGLES = ("rectanglelabels", "rectangle")


class LabelStudio:
    """Label Studio as a user sees it. Safe to use from many threads.

    Args:
        url: address of Label Studio.
        token: legacy token or personal access token of a user who may edit the projects.
        timeout: seconds to wait for an answer; calls whose length grows with the project may take longer.
        image_hosts: hosts besides Label Studio that images may be fetched from.
        image_seconds: longest time that an image may take.
        public_urls: returns the addresses of Label Studio in people's browsers, which tasks may name.

    Raises:
        ConfigurationError: the address or the token is unusable.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout: float = 30.0,
        image_hosts: ImageHosts = _PUBLIC_HOSTS,
        image_seconds: float = 120.0,
        public_urls: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.transport = Transport(
            url,
            token,
            timeout=timeout,
            image_hosts=image_hosts,
            image_seconds=image_seconds,
            public_urls=public_urls,
        )

    def __repr__(self) -> str:
        return f"LabelStudio({self.transport.url!r})"

    # -- the installation ---------------------------------------------------------------------------------------------
    def whoami(self) -> Json:
        """Return the user that the token belongs to."""
        return self._get("/api/current-user/whoami")

    def users(self) -> list[Json]:
        """Return the users of the organisation, with id, first_name, last_name and email."""
        return self._rows("/api/users/")

    # -- projects -----------------------------------------------------------------------------------------------------
    def projects(self) -> list[Json]:
        """Return all projects that the user sees."""
        projects: list[Json] = []
        page = 1
        while True:
            answer = self._get("/api/projects/", page=page, page_size=100)
            projects += answer["results"]
            if not answer["next"]:
                return projects
            page += 1

    def some_projects(self, count: int) -> tuple[list[Json], int]:
        """Return id and title of the newest projects that the user sees, at most `count`, and how many there are."""
        answer = self._get("/api/projects/", page=1, page_size=count, include="id,title")
        return answer["results"], int(answer["count"])

    def project(self, project_id: int) -> Json:
        """Return a project, with counts such as task_number."""
        return self._get(f"/api/projects/{project_id}/")

    def is_gone(self, project_id: int) -> bool:
        """Whether Label Studio answers and has no such project: a 404 may also come from a proxy in front of it."""
        try:
            self.whoami()
        except LabelStudioError:
            return False
        try:
            self.project(project_id)
        except LabelStudioNotFound:
            return True
        except LabelStudioError:
            pass  # unknown
        return False

    def create_project(self, **fields: Any) -> Json:
        """Create a project from its fields: title, label_config, …"""
        return self._post("/api/projects/", fields)

    def update_project(self, project_id: int, **fields: Any) -> Json:
        """Change some fields. Label Studio refuses a model_version that no prediction has (400)."""
        return self._patch(f"/api/projects/{project_id}/", fields)

    # -- tasks --------------------------------------------------------------------------------------------------------
    def changed_tasks(self, project_id: int, since: str | None, page_size: int = 100) -> Iterator[Json]:
        """Yield the tasks that changed, the oldest change first.

        A task changes when it is created, when its data changes, and when an annotation is submitted, updated, skipped,
        restored or deleted; not when predictions are imported or drafts are saved. A task that changes during the call
        may come twice. The next call may start at the last `updated_at`, but not later than `settled`.

        Each task has id, data (references as imported), updated_at, total_annotations (without skips),
        cancelled_annotations, annotations (with skips), and predictions: id, model_version, score and result of those
        predictions that its annotations started from, with all rectangles, and of other regions only what they are.

        Args:
            project_id: Label Studio's.
            since: ISO time of the oldest change; None: all tasks.
            page_size: tasks per request.
        """
        operator, moment = "greater_or_equal", host_time(since or BEGINNING)
        while True:
            page = self._tasks_at(project_id, [condition("updated_at", operator, "Datetime", moment)], page_size)
            if len(page) < page_size:
                yield from self._with_parents(page)
                return
            last = page[-1]["updated_at"]
            # More tasks of the last moment may be on the next page: they are read together from there.
            complete = [task for task in page if task["updated_at"] != last]
            operator, moment = ("greater_or_equal" if complete else "greater"), host_time(last)
            yield from self._with_parents(complete or self._changed_at(project_id, moment, page_size))

    def _changed_at(self, project_id: int, moment: str, page_size: int) -> Iterator[Json]:
        """Yield tasks that all changed at the same moment, when they do not fit into a page."""
        same = condition("updated_at", "equal", "Datetime", moment)
        return self._by_id(project_id, [same], page_size, fields="all", include=_TASK_INCLUDE)

    def _tasks_at(self, project_id: int, conditions: list[Json], page_size: int) -> list[Json]:
        return self._list(
            project_id, query(conditions, "updated_at"), page_size=page_size, fields="all", include=_TASK_INCLUDE
        )

    def settled(self) -> str:
        """Return the time, by Label Studio's clock, before which no further change can appear: a minute ago.

        A change gets its time before it is written to the database, so it may appear later than its time says. A start
        for `changed_tasks` that is never later than this misses nothing.
        """
        return host_time((self.transport.clock() - timedelta(seconds=_SETTLE_SECONDS)).isoformat())

    def tasks(self, project_id: int, task_ids: Iterable[int]) -> Iterator[Json]:
        """Yield tasks as `changed_tasks` does, by id; deleted tasks are left out."""
        ordered = iter(sorted(set(task_ids)))
        while chunk := list(islice(ordered, 100)):
            wanted = [condition("id", "in_list", "Number", chunk)]
            page = self._list(
                project_id, query(wanted, "id"), page_size=len(chunk), fields="all", include=_TASK_INCLUDE
            )
            yield from self._with_parents(page)

    def task_ids(self, project_id: int) -> list[int]:
        """Return the ids of all tasks in order. It takes 4 s for 20,000 tasks; project()["task_number"] is quick."""
        return [int(task["id"]) for task in self._by_id(project_id, [], IDS_PER_PAGE, include="id")]

    def tasks_with_prediction(self, project_id: int, version: str) -> set[int]:
        """Return the ids of tasks that have a prediction of exactly this model version."""
        # Label Studio's filter is "contains": nextmask-7.2 matches nextmask-7.21 as well.
        contains = condition("predictions_model_versions", "contains", "List", [version])
        ids = set()
        for task in self._by_id(project_id, [contains], IDS_PER_PAGE, include="id,predictions_model_versions"):
            listed = str(task["predictions_model_versions"])
            exact = version in [name.strip() for name in listed.split(",")]
            if exact or (len(listed) >= _CUT_LENGTH and self._predictions_at(task["id"], version)):
                ids.add(int(task["id"]))
        return ids

    def _predictions_at(self, task_id: int, version: str) -> list[Json]:
        """Return a task's predictions of exactly this model version."""
        return [row for row in self._rows("/api/predictions/", task=task_id) if row.get("model_version") == version]

    def some_tasks(self, project_id: int, count: int) -> list[Json]:
        """Return id and data of the first task and of the newest tasks, at most `count` in all."""
        tasks: dict[int, Json] = {}
        for order, size in (("tasks:id", 1), ("-tasks:id", count)):
            wanted = json.dumps({"ordering": [order]})
            rows = self._list(project_id, wanted, page_size=size, fields="all", include="id,data")
            tasks |= {int(row["id"]): row for row in rows}
        return list(tasks.values())[:count]

    def next_task(self, project_id: int) -> Json | None:
        """Return the task that the user is to label next, and lock it; None when there is none."""
        try:
            return self._get(f"/api/projects/{project_id}/next")
        except LabelStudioNotFound:
            self.project(project_id)  # 404 also means that the project is gone, which this call would raise
            return None

    def import_tasks(self, project_id: int, tasks: Sequence[Json]) -> list[int]:
        """Create tasks ({"data": …, "annotations": …}) and return their ids, in the same order."""
        answer = self.transport.json(
            "POST", f"/api/projects/{project_id}/import", params={"return_task_ids": "true"}, json=tasks, slow=True
        )
        return [int(task_id) for task_id in answer.get("task_ids", [])]

    def upload_images(self, project_id: int, paths: Iterable[Path]) -> list[int]:
        """Upload image files, each as a task, and return the ids of the tasks in the same order."""
        created: list[int] = []
        for files in _uploads(paths):
            answer = self.transport.json(
                "POST",
                f"/api/projects/{project_id}/import",
                params={"return_task_ids": "true"},
                files=files,
                slow=True,
            )
            created += answer.get("task_ids", [])
        return created

    # -- annotations --------------------------------------------------------------------------------------------------
    def submit_annotation(self, task_id: int, result: Sequence[Json], lead_time: float, **extra: Any) -> Json:
        """Submit an annotation.

        Args:
            task_id: Label Studio's.
            result: regions.
            lead_time: seconds that it took.
            extra: further fields: parent_prediction, ground_truth, …
        """
        return self._post(f"/api/tasks/{task_id}/annotations/", {"result": result, "lead_time": lead_time, **extra})

    def skip_task(self, task_id: int, lead_time: float = 0.0) -> Json:
        """Skip a task, and return the cancelled annotation that stands for it."""
        return self.submit_annotation(task_id, [], lead_time, was_cancelled=True)

    # -- predictions --------------------------------------------------------------------------------------------------
    def prediction(self, prediction_id: int) -> Json:
        """Return a prediction, with its mask."""
        return self._get(f"/api/predictions/{prediction_id}/")

    def import_predictions(self, project_id: int, rows: Sequence[Mapping[str, Any]]) -> int:
        """Add predictions in a single request, and return how many Label Studio stored.

        It drops invalid predictions silently, but refuses all of them (400) when the task of any is deleted.

        Args:
            project_id: Label Studio's.
            rows: task, result, score in [0, 1], model_version.
        """
        path = f"/api/projects/{project_id}/import/predictions"
        return int(self._answer("POST", path, json=list(rows), slow=True)["created"])

    def model_versions(self, project_id: int) -> dict[str, int]:
        """Return the number of predictions of each model version."""
        counts = self._get(f"/api/projects/{project_id}/model-versions/")
        return {str(name): int(count) for name, count in counts.items()}

    def delete_model_version(self, project_id: int, version: str) -> int:
        """Delete all predictions of a version, and return their number; 0 when there is no such version."""
        path = f"/api/projects/{project_id}/model-versions/"
        answer = self._answer("DELETE", path, json={"model_version": version}, slow=True)
        return int(answer["deleted_predictions"])

    def rename_predictions(self, task_id: int, version: str, other: str, *, keep: int = 0) -> int:
        """Change the version of a task's predictions, and return how many were changed.

        Args:
            task_id: Label Studio's.
            version: present version, matched exactly.
            other: new version.
            keep: number of predictions, the oldest, that stay as they are.
        """
        rows = sorted(self._predictions_at(task_id, version), key=lambda row: int(row["id"]))[keep:]
        for row in rows:
            self._patch(f"/api/predictions/{row['id']}/", {"model_version": other})
        return len(rows)

    # -- machine learning backends ------------------------------------------------------------------------------------
    def ml_backends(self, project_id: int) -> list[Json]:
        """Return the ML backends of a project. Label Studio calls the /health of each before it answers."""
        return self._rows("/api/ml/", project=project_id)

    def add_ml_backend(self, *, project: int, url: str, title: str, **fields: Any) -> Json:
        """Connect an ML backend. Label Studio calls its /health and /setup, and adds a webhook for it."""
        return self._post("/api/ml/", {"project": project, "url": url, "title": title, **fields})

    def update_ml_backend(self, backend_id: int, *, project: int, url: str, **fields: Any) -> Json:
        """Change an ML backend; Label Studio requires project and url each time."""
        return self._patch(f"/api/ml/{backend_id}", {"project": project, "url": url, **fields})

    def delete_ml_backend(self, backend_id: int) -> None:
        """Disconnect an ML backend; its webhook stays."""
        self._delete(f"/api/ml/{backend_id}")

    # -- webhooks -----------------------------------------------------------------------------------------------------
    def webhooks(self, project_id: int) -> list[Json]:
        """Return the webhooks of a project."""
        return self._rows("/api/webhooks/", project=project_id)

    def add_webhook(self, *, project: int, url: str, **fields: Any) -> Json:
        """Add a webhook. Fields: actions, headers, send_payload, send_for_all_actions."""
        return self._post("/api/webhooks/", {"project": project, "url": url, **fields})

    def update_webhook(self, webhook_id: int, *, actions: Sequence[str], **fields: Any) -> Json:
        """Change a webhook. Its actions are required, since an update without actions would remove all of them."""
        return self._patch(f"/api/webhooks/{webhook_id}/", {"actions": list(actions), **fields})

    def delete_webhook(self, webhook_id: int) -> None:
        """Delete a webhook."""
        self._delete(f"/api/webhooks/{webhook_id}/")

    # -- tabs of the Data Manager -------------------------------------------------------------------------------------
    def views(self, project_id: int) -> list[Json]:
        """Return the tabs of a project."""
        return self._rows("/api/dm/views/", project=project_id)

    def add_view(self, project_id: int, data: Json) -> Json:
        """Add a tab: title, type, target, ordering, filters."""
        return self._post("/api/dm/views/", {"project": project_id, "data": data})

    def update_view(self, view_id: int, project_id: int, data: Json) -> Json:
        """Replace the data of a tab."""
        return self._patch(f"/api/dm/views/{view_id}/", {"project": project_id, "data": data})

    def delete_view(self, view_id: int) -> None:
        """Delete a tab."""
        self._delete(f"/api/dm/views/{view_id}/")

    # -- files --------------------------------------------------------------------------------------------------------
    def fetch(self, reference: str) -> AbstractContextManager[Iterable[bytes]]:
        """Open an image by a task's reference, and yield its bytes in chunks; see `Files.stream`.

        Raises:
            ImageError: it cannot be fetched.
        """
        return self.transport.stream(reference)

    # -- requests -----------------------------------------------------------------------------------------------------
    def _by_id(self, project_id: int, conditions: list[Json], page_size: int, **params: str) -> Iterator[Json]:
        last = 0
        while True:
            wanted = query([*conditions, condition("id", "greater", "Number", last)], "id")
            page = self._list(project_id, wanted, page_size=page_size, **params)
            yield from page
            if len(page) < page_size:
                return
            last = int(page[-1]["id"])

    def _list(self, project_id: int, wanted: str, **params: Any) -> list[Json]:
        # Resolved references differ between tasks and change every hour: ask for them as they were imported.
        answer = self._get("/api/tasks/", project=project_id, query=wanted, resolve_uri="false", **params)
        return list(answer["tasks"])

    def _with_parents(self, tasks: Iterable[Json]) -> Iterator[Json]:
        """Add the predictions that annotations started from. A list with all predictions would contain every mask."""
        for task in tasks:
            parents = {row["parent_prediction"] for row in task["annotations"] if row.get("parent_prediction")}
            task["predictions"] = [row for parent in sorted(parents) if (row := self._parent(parent))]
            yield task

    def _parent(self, prediction_id: int) -> Json | None:
        try:
            prediction = self.prediction(prediction_id)
        except LabelStudioNotFound:  # pruned meanwhile
            return None
        regions = [_without_drawing(region) for region in prediction.get("result") or [] if isinstance(region, dict)]
        return {name: prediction[name] for name in ("id", "model_version", "score")} | {"result": regions}

    def _get(self, path: str, **params: Any) -> Json:
        return self._answer("GET", path, params=params)

    def _rows(self, path: str, **params: Any) -> list[Json]:
        rows = self.transport.json("GET", path, params=params)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise misread(f"GET {path}", "a list of objects was expected")
        return rows

    def _post(self, path: str, fields: Json) -> Json:
        return self._answer("POST", path, json=fields)

    def _patch(self, path: str, fields: Json) -> Json:
        return self._answer("PATCH", path, json=fields)

    def _answer(self, method: str, path: str, **options: Any) -> Json:
        answer = self.transport.json(method, path, **options)
        if not isinstance(answer, dict):
            raise misread(f"{method} {path}", f"an object was expected, not {type(answer).__name__}")
        return answer

    def _delete(self, path: str) -> None:
        self.transport.json("DELETE", path)


def _without_drawing(region: Json) -> Json:
    """Return a region without its pixels or points; a rectangle as it is."""
    value = region.get("value")
    if region.get("type") in _RECTANGLES or not isinstance(value, dict):
        return region
    small = {key: part if key == region.get("type") else type(part)() for key, part in value.items()}
    return {**region, "value": small}


def _uploads(paths: Iterable[Path]) -> Iterator[list[tuple[str, tuple[str, bytes, str]]]]:
    """Yield files in groups that fit into a request."""
    files: list[tuple[str, tuple[str, bytes, str]]] = []
    size = 0
    for path in paths:
        content = path.read_bytes()
        if files and (len(files) == UPLOAD_FILES or size + len(content) > _UPLOAD_BYTES):
            yield files
            files, size = [], 0
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        # Label Studio keeps a single file per field name, in the order of the fields.
        files.append((f"file{len(files)}", (path.name, content, kind)))
        size += len(content)
    if files:
        yield files
