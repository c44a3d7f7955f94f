"""The main job against a real Label Studio: rank, serve in that order, submit, train, rank anew.

The tests follow one project through its life, in this order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import requests
from steps import predictions
from studio_client import StudioClient
from support import PASSWORD, USER, Nextmask

from ml_backend.datasets import Dataset

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def project(serving: Nextmask, make_module_project: Callable[..., int], shapes: Dataset) -> int:
    """30 images, five of them labelled in the order that they were served in, one model."""
    made = make_module_project(images=30, dataset=shapes)
    serving.connect(made, train_after=5)
    serving.wait_settled(made)
    assert len(serving.annotate(made, shapes, 5)) == 5
    serving.wait_for_version(made, 1)
    return made


def test_submitted_masks_make_a_model_that_predicts_the_rest(
    project: int, serving: Nextmask, label_studio: StudioClient
) -> None:
    status = serving.status(project)
    assert (status.labels, status.trained_labels, status.pool, status.queue) == (5, 5, 25, 25)
    assert status.version == "nextmask-1.2"
    assert label_studio.model_versions(project) == {"nextmask-0.1": 30, "nextmask-1.2": 25}

    rows = predictions(label_studio, project, "nextmask-1.2")
    scores = {task.task_id: 1 - priority for task, priority in serving.services.store.ranked(project)}
    assert {row["task"]: row["score"] for row in rows} == pytest.approx(scores)
    assert all(row["result"] for row in rows), "a prediction without a mask"
    assert {region["type"] for row in rows for region in row["result"]} == {"brushlabels"}


def test_everybody_names_the_same_version(project: int, serving: Nextmask, label_studio: StudioClient) -> None:
    version = serving.status(project).version
    name = f"{project}.1700000000"
    task = label_studio.task(label_studio.task_ids(project)[0])
    setup = serving.post("/setup", {"project": name, "schema": "", "extra_params": serving_params(serving, project)})
    assert setup.json()["model_version"] == version
    predicted = serving.post("/predict", {"project": name, "tasks": [{"id": task["id"], "data": task["data"]}]}).json()
    assert [row["model_version"] for row in predicted["results"]] == [version]
    assert serving.post("/versions", {"project": name}).json()["versions"] == [version, "nextmask-0.1"]
    listed = requests.get(f"{serving.url}/versions", params={"project": name}, auth=(USER, PASSWORD), timeout=10).json()
    assert listed["versions"][0] == version
    assert label_studio.project(project)["model_version"] == version


def serving_params(serving: Nextmask, project: int) -> str:
    known = serving.services.store.project(project)
    assert known
    return known.extra_params


def test_tasks_are_served_exactly_in_the_order_of_the_ranking(project: int, serving: Nextmask, shapes: Dataset) -> None:
    serving.connect(project, train_after=99)  # no training in between
    serving.wait_settled(project)
    expected = [task.task_id for task, _ in serving.services.store.ranked(project)][:20]
    served = serving.annotate(project, shapes, 20)
    assert [submission.task for submission in served] == expected
    assert all(submission.agreement is not None for submission in served), "a task came without a pre-annotation"


def test_more_labels_make_a_new_model_and_a_new_order(
    project: int, serving: Nextmask, label_studio: StudioClient, shapes: Dataset
) -> None:
    serving.connect(project, train_after=5, audit_share=0.3)
    status = serving.wait_for_version(project, 2)
    assert (status.version, status.labels, status.trained_labels, status.queue) == ("nextmask-2.3", 25, 25, 5)
    assert status.agreement is not None
    assert status.errors == {}
    record = serving.services.checkpoints(project).get(2).record
    held_out = [task for task in serving.services.store.tasks(project, status="labelled") if task.held_out]
    assert sorted(record.held_out) == sorted(str(task.task_id) for task in held_out)
    assert (status.held_out_miou is None) == (not held_out)

    rows = predictions(label_studio, project, status.version)
    by_score = [row["task"] for row in sorted(rows, key=lambda row: row["score"])]
    assert by_score == [task.task_id for task, _ in serving.services.store.ranked(project)]
    serving.connect(project, train_after=99)
    assert [submission.task for submission in serving.annotate(project, shapes, 5)] == by_score
    serving.wait_settled(project)
    assert serving.status(project).pool == 0
    assert label_studio.next_task(project) is None

    carried = Counter((row["task"], row["model_version"]) for row in predictions(label_studio, project))
    assert set(carried.values()) == {1}, "a task carries two predictions of one version"
