"""Three hundred tasks in one /predict, directly and through the Data Manager's "Retrieve predictions"."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from steps import data_manager_action, label, predictions
from support import Nextmask

from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio

pytestmark = pytest.mark.live

WINDOW = 10


@pytest.fixture(scope="module")
def project(
    serving: Nextmask, label_studio: LabelStudio, make_module_project: Callable[..., int], shapes: Dataset
) -> int:
    """Three hundred tasks that share eight images, four of them labelled, a window of ten published."""
    made = make_module_project(images=8, dataset=shapes)
    images = [task["data"] for task in label_studio.tasks(made, label_studio.task_ids(made))]
    label_studio.import_tasks(made, [{"data": images[number % 8]} for number in range(292)])
    serving.connect(made, queue_window=WINDOW)
    label(label_studio, made, shapes, label_studio.task_ids(made)[:4])
    serving.wait_for_version(made, 1)
    return made


def test_order_and_length_are_kept(project: int, serving: Nextmask, label_studio: LabelStudio) -> None:
    tasks = list(label_studio.tasks(project, label_studio.task_ids(project)))
    random.Random(0).shuffle(tasks)
    body = {"project": f"{project}.1", "tasks": [{"id": task["id"], "data": task["data"]} for task in tasks]}
    results = serving.post("/predict", body).json()["results"]
    assert len(results) == 300

    priorities = serving.services.store.priorities_of_all(project, [task["id"] for task in tasks])
    assert len(priorities) == 296
    assert [result["score"] for result in results] == pytest.approx(
        [1 - priorities.get(task["id"], 0.0) for task in tasks]
    )
    seen: dict[str, list[list[int]]] = {}
    for task, result in zip(tasks, results, strict=True):
        masks = [region["value"]["rle"] for region in result["result"]]
        assert masks
        assert masks == seen.setdefault(task["data"]["image"], masks), "an answer belongs to another task"
    assert len({str(masks) for masks in seen.values()}) == 8


def test_the_data_manager_retrieves_predictions_for_all(
    project: int, serving: Nextmask, label_studio: LabelStudio
) -> None:
    version = serving.status(project).version
    tasks = label_studio.task_ids(project)
    published = {row["task"]: row["score"] for row in predictions(label_studio, project, version)}
    assert len(published) == WINDOW

    data_manager_action(label_studio, project, "retrieve_tasks_predictions", tasks)
    rows = predictions(label_studio, project, version)
    assert Counter(row["task"] for row in rows) == Counter(tasks), "not one prediction for each task"
    assert all(row["result"] for row in rows)
    scores = {row["task"]: row["score"] for row in rows}
    assert {task: scores[task] for task in published} == published
    # What is predicted on demand never jumps the queue.
    order = [task.task_id for task, _ in serving.services.store.ranked(project)]
    assert sorted(order, key=lambda task: scores[task]) == order
    served = label_studio.next_task(project)
    assert served
    assert served["id"] == order[0]
