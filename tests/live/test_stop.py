"""SIGTERM in the middle of a training, with a long prediction under way: an end within ten seconds, and a tidy one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import requests
from processes import children, is_running, wait_for
from steps import label
from support import Nextmask

from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio

pytestmark = pytest.mark.live

ENDLESS = {"iterations": 1_000_000}
MANY = 3000
"""Tasks in one request: their prediction takes far longer than ten seconds."""


def test_a_stop_ends_everything_within_ten_seconds(
    make_nextmask: Callable[..., Nextmask], label_studio: LabelStudio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    nextmask = make_nextmask(lease_seconds=600.0, minimum_free_bytes=0)
    project = make_project(images=10, dataset=shapes)
    tasks = label_studio.task_ids(project)
    wait_for(lambda: requests.get(f"{nextmask.url}/ready", timeout=10).status_code == 200, name="readiness")
    nextmask.connect(project)
    label(label_studio, project, shapes, tasks[:4])
    nextmask.wait_for_version(project, 1)
    nextmask.connect(project, **ENDLESS)
    label(label_studio, project, shapes, tasks[4:8])
    wait_for(lambda: nextmask.status(project).total == ENDLESS["iterations"], name="a training")
    nextmask.connect(project)  # the next training is a short one

    asked = [
        {"id": 10_000_000 + n, "project": project, "data": task["data"]}
        for n, task in enumerate(rows(nextmask, project))
    ]
    assert nextmask.post("/predict", {"tasks": asked[:1], "project": str(project)}).json()["results"][0]["result"]
    answers: list[requests.Response] = []
    request = threading.Thread(
        target=lambda: answers.append(nextmask.post("/predict", {"tasks": asked, "project": str(project)}))
    )
    request.start()
    time.sleep(2)  # it has begun: the network was loaded by the one before
    assert request.is_alive()
    assert nextmask.process
    below = children(nextmask.process.pid)
    below += [grandchild for child in below for grandchild in children(child)]
    assert len(below) == 2  # the worker and its training

    started = time.monotonic()
    nextmask.process.terminate()
    nextmask.process.wait(30)
    seconds = time.monotonic() - started
    request.join(30)
    print(f"stopped after {seconds:.1f} s")
    assert seconds < 10
    assert not any(is_running(pid) for pid in below)
    (answer,) = answers
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert len(results) == MANY
    assert results[0]["result"], "what was predicted is answered"
    assert not results[-1]["result"], "the rest without masks"
    known = nextmask.services.store.project(project)
    assert known
    assert (known.lease_owner, known.lease_expires) == (None, None)
    log = nextmask.log.read_text()
    assert "Traceback" not in log

    nextmask.start()  # and begins at once: the lease would have lasted ten minutes
    assert nextmask.wait_for_version(project, 2).trained_labels == 8


def rows(nextmask: Nextmask, project: int) -> list[dict[str, dict[str, str]]]:
    image = nextmask.services.store.tasks(project)[0].image
    return [{"data": {"image": image}}] * MANY
