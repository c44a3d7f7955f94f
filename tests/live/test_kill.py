"""kill -9 of the worker and of the server while a training runs: nothing is lost, left behind or done twice."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from processes import children, is_running, kill, wait_for
from steps import label
from support import Nextmask

from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio

pytestmark = pytest.mark.live

ENDLESS = {"iterations": 1_000_000}


def server_of(nextmask: Nextmask) -> int:
    assert nextmask.process
    return nextmask.process.pid


def worker_of(nextmask: Nextmask) -> int:
    return wait_for(lambda: children(server_of(nextmask)), name="a worker")[0]


def training_of(nextmask: Nextmask) -> int:
    return wait_for(lambda: children(worker_of(nextmask)), name="a training process")[0]


def wait_for_steps(nextmask: Nextmask, project: int) -> None:
    def steps() -> bool:
        status = nextmask.status(project)
        return status.state == "training" and status.total == ENDLESS["iterations"] and status.done > 0

    wait_for(steps, name="optimiser steps")


def versions_on_disk(nextmask: Nextmask, project: int) -> list[str]:
    folder = nextmask.services.checkpoints(project).folder / "versions"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_kill_in_training_then_restart(
    make_nextmask: Callable[..., Nextmask], label_studio: LabelStudio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    nextmask = make_nextmask()
    project = make_project(images=15, dataset=shapes)
    tasks = label_studio.task_ids(project)

    # 1. The worker is killed: the server starts another one, which trains.
    nextmask.connect(project, **ENDLESS)
    label(label_studio, project, shapes, tasks[:4])
    wait_for_steps(nextmask, project)
    worker, training = worker_of(nextmask), training_of(nextmask)
    nextmask.connect(project)  # the next training is a short one
    kill(worker)
    wait_for(lambda: not is_running(training), name="the end of the training process")
    assert nextmask.wait_for_version(project, 1).trained_labels == 4
    assert worker_of(nextmask) != worker
    assert versions_on_disk(nextmask, project) == ["1"]

    # 2. The server is killed: its worker and the training end with it, and the next server does the work.
    nextmask.connect(project, **ENDLESS)
    label(label_studio, project, shapes, tasks[4:8])
    wait_for_steps(nextmask, project)
    worker, training = worker_of(nextmask), training_of(nextmask)
    nextmask.connect(project)
    nextmask.kill()
    wait_for(lambda: not is_running(worker) and not is_running(training), name="the end of worker and training")
    label(label_studio, project, shapes, tasks[8:9])
    assert versions_on_disk(nextmask, project) == ["1"]
    nextmask.start()
    status = nextmask.wait_for_version(project, 2)
    assert (status.labels, status.trained_labels) == (9, 9)
    assert versions_on_disk(nextmask, project) == ["1", "2"]

    # 3. The worker is killed after the version was written and before it was published: that very one is published.
    worker = worker_of(nextmask)
    label(label_studio, project, shapes, tasks[9:13])
    training = training_of(nextmask)
    kill(worker, signal.SIGSTOP)
    wait_for(lambda: not is_running(training), seconds=240, name="the end of the training")
    assert versions_on_disk(nextmask, project) == ["1", "2", "3"]
    assert nextmask.status(project).version == status.version
    kill(worker)
    status = nextmask.wait_for_version(project, 3)
    assert (status.labels, status.trained_labels, status.queue, status.errors) == (13, 13, 2, {})

    nextmask.services.store.wake(project)
    nextmask.wait_settled(project)
    assert versions_on_disk(nextmask, project) == ["1", "2", "3"]
    started = nextmask.log.read_text().count("training process")
    assert started == 5, "two were killed, three made a version"
    assert label_studio.project(project)["model_version"] == status.version
    assert {task.task_id for task in nextmask.services.store.tasks(project, status="labelled")} == set(tasks[:13])
