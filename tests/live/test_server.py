"""The server as Label Studio meets it: who is let in, how fast it answers, and the "Start training" button."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
from processes import children, wait_for
from steps import label
from support import PASSWORD, USER, Nextmask

from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.registration import SECRET_HEADER, webhook_secret

pytestmark = pytest.mark.live


def test_who_is_let_in(serving: Nextmask) -> None:
    def status(method: str, path: str, **options: Any) -> int:
        return requests.request(method, f"{serving.url}{path}", timeout=10, **options).status_code

    everything = [("GET", "/versions"), *(("POST", path) for path in ("/setup", "/predict", "/webhook", "/versions"))]
    everything += [("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/no-such-page")]
    assert status("GET", "/health") == 200
    for method, path in everything:
        assert status(method, path, json={}) == 401, path
        assert status(method, path, json={}, auth=(USER, "wrong")) == 401, path
        assert status(method, path, json={}, auth=(USER, PASSWORD)) != 401, path
    secret = {SECRET_HEADER: webhook_secret(serving.services.settings, serving.services.store)}
    event = {"action": "PROJECT_UPDATED", "project": {"id": 999_999_999}}
    assert status("POST", "/webhook", json=event, headers=secret) == 201
    assert status("POST", "/webhook", json=event, auth=(USER, PASSWORD)) == 201
    assert status("POST", "/webhook", json=event, headers={SECRET_HEADER: "guess"}) == 401
    assert status("POST", "/predict", json={"tasks": []}, headers=secret) == 401, "the secret opens more than /webhook"


def test_the_button_start_training_trains_with_few_labels(
    serving: Nextmask, label_studio: LabelStudio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    project = make_project(images=5, dataset=shapes)
    serving.connect(project, train_after=99)
    label(label_studio, project, shapes, label_studio.task_ids(project)[:2])
    status = serving.wait_settled(project)
    assert (status.labels, status.trained_labels, status.version) == (2, 0, "nextmask-0.1")
    (backend,) = label_studio.ml_backends(project)
    label_studio.transport.json("POST", f"/api/ml/{backend['id']}/train", json={})
    status = serving.wait_for_version(project, 1)
    assert (status.labels, status.trained_labels, status.errors) == (2, 2, {})


def test_answers_are_quick_right_after_the_start_and_during_training(
    make_nextmask: Callable[..., Nextmask], label_studio: LabelStudio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    nextmask = make_nextmask()
    setup = {"project": "999999999.1", "schema": "<View/>", "extra_params": ""}
    assert median_seconds(lambda: nextmask.post("/setup", setup), 9) < 0.3

    project = make_project(images=20, dataset=shapes)
    nextmask.connect(project, iterations=1_000_000, queue_window=6)
    nextmask.wait_settled(project)
    nextmask.annotate(project, shapes, 4)
    wait_for(lambda: nextmask.status(project).done > 0 and training(nextmask), name="a training")
    # The window is filled up while the training runs, long before it ends.
    wait_for(lambda: nextmask.status(project).queue == 6, name="a full window")
    nextmask.annotate(project, shapes, 4)
    wait_for(lambda: nextmask.status(project).queue == 6, name="a full window, again")
    assert training(nextmask)

    headers = {SECRET_HEADER: webhook_secret(nextmask.services.settings, nextmask.services.store)}
    event = {"action": "TASKS_CREATED", "tasks": [{"id": 1}], "project": {"id": project}}
    assert median_seconds(lambda: requests.post(f"{nextmask.url}/webhook", json=event, headers=headers), 30) < 0.1
    known = nextmask.services.store.project(project)
    assert known
    setup |= {"project": f"{project}.1", "extra_params": known.extra_params}
    assert median_seconds(lambda: nextmask.post("/setup", setup), 9) < 0.3

    # Told to stop, it ends the training and leaves nothing behind.
    assert nextmask.process
    (worker,) = children(nextmask.process.pid)
    (process,) = children(worker)
    nextmask.stop()
    wait_for(lambda: not children(worker), name="the end of the training")
    assert nextmask.process.returncode is not None
    assert not [pid for pid in (worker, process) if pid in children(1)], "an orphan is left"


def training(nextmask: Nextmask) -> bool:
    assert nextmask.process
    return any(children(worker) for worker in children(nextmask.process.pid))


def median_seconds(call: Callable[[], requests.Response], times: int) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        answer = call()
        taken.append(time.perf_counter() - start)
        assert answer.ok, answer.text
    return statistics.median(taken)
