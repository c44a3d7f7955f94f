"""One broken image among ten: the others are ranked, published and predicted, and the broken one is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from steps import label, predictions
from studio_client import StudioClient
from support import Nextmask

from ml_backend.datasets import Dataset

pytestmark = pytest.mark.live


@pytest.mark.parametrize("kind", ["damaged", "missing"])
def test_a_broken_image_among_ten(
    kind: str,
    serving: Nextmask,
    label_studio: StudioClient,
    make_project: Callable[..., int],
    shapes: Dataset,
    tmp_path: Path,
) -> None:
    project = make_project(images=13, dataset=shapes)
    tasks = label_studio.task_ids(project)
    broken = _add_broken(kind, label_studio, project, tmp_path)
    pool = [*tasks[4:8], broken, *tasks[8:]]
    assert len(pool) == 10
    serving.connect(project)
    label(label_studio, project, shapes, tasks[:4])
    status = serving.wait_for_version(project, 1)

    assert (status.state, status.labels, status.pool, status.queue) == ("waiting", 4, 10, 9)
    assert set(status.errors) == {f"task {broken}"}
    reason = "cannot be decoded" if kind == "damaged" else "cannot be fetched"
    assert reason in status.errors[f"task {broken}"]
    ranked = [task.task_id for task, _ in serving.services.store.ranked(project)]
    assert sorted(ranked) == sorted(set(pool) - {broken})
    rows = predictions(label_studio, project, status.version)
    assert sorted(row["task"] for row in rows) == sorted(ranked)
    assert all(row["result"] for row in rows)

    asked = [label_studio.task(task) for task in pool]
    body = {"project": f"{project}.1", "tasks": [{"id": task["id"], "data": task["data"]} for task in asked]}
    answers = serving.post("/predict", body).json()["results"]
    stored = {row["task"]: row for row in rows}
    assert [bool(answer["result"]) for answer in answers] == [task != broken for task in pool]
    for task, answer in zip(pool, answers, strict=True):
        assert answer["model_version"] == status.version
        assert answer["score"] == (1.0 if task == broken else pytest.approx(stored[task]["score"]))
    masks = [[region["value"]["rle"] for region in answer["result"]] for answer in answers]
    assert [mask for mask in masks if mask] == [
        [region["value"]["rle"] for region in stored[task]["result"]] for task in pool if task != broken
    ]


def _add_broken(kind: str, client: StudioClient, project: int, folder: Path) -> int:
    if kind == "missing":
        (task,) = client.import_tasks(project, [{"data": {"image": f"/data/upload/{project}/no-such-file.png"}}])
        return task
    path = folder / "damaged.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"no image follows" * 20)
    (task,) = client.upload_images(project, [path])
    return task
