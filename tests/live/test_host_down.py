"""The real Label Studio hangs, dies, and comes back on the same data while nextmask works.

`--down SECONDS` says for how long at least, each time; a few by default, which is longer than all time-outs here.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from invariants import assert_serves, assert_whole, labelled, trained_on, wait_until_healthy
from live_fixtures import FAST
from prepared_studio import TOKEN, host_on
from processes import wait_for
from steps import label
from support import Nextmask, Studio

from ml_backend.datasets import Dataset, label_config
from ml_backend.demo.label_studio import LabelStudioHost
from ml_backend.label_studio import LabelStudio

pytestmark = [pytest.mark.live, pytest.mark.timeout(1800)]

PATIENCE = 600.0
"""Seconds; a busy machine trains slowly."""


@pytest.fixture
def host(label_studio_command: Path, first_starts: Path, tmp_path: Path) -> Iterator[LabelStudioHost]:
    """A Label Studio of its own: the others' must not go down."""
    with host_on(label_studio_command, tmp_path / "label-studio", first_starts).running() as running:
        yield running


def test_label_studio_hangs_dies_and_comes_back(
    host: LabelStudioHost, request: pytest.FixtureRequest, shapes: Dataset, tmp_path: Path
) -> None:
    client = LabelStudio(host.url, TOKEN)
    project = int(client.create_project(title="down", label_config=label_config(shapes, "BrushLabels"))["id"])
    client.upload_images(project, [one.image for one in shapes.splits["train"][:20]])
    tasks, done = client.task_ids(project), list[int]()

    def submit(count: int) -> None:
        some = tasks[len(done) : len(done) + count]
        done.extend(some)
        label(client, project, shapes, some)

    down = float(request.config.getoption("--down"))
    environment = {"reconcile_seconds": 1.0, "request_timeout": 2.0}
    nextmask = Nextmask(Studio(host.url, TOKEN, "", ""), tmp_path / "nextmask", FAST, environment=environment)
    request.addfinalizer(nextmask.close)
    request.addfinalizer(nextmask.stop)
    nextmask.start()
    nextmask.connect(project, queue_window=8, iterations=20)
    wait_until_healthy(nextmask, project, seconds=PATIENCE)

    submit(4)
    wait_for(lambda: trained_on(nextmask, project) == set(done), seconds=PATIENCE, name="the first training")
    wait_until_healthy(nextmask, project, seconds=PATIENCE)
    first = nextmask.status(project).version
    assert first.startswith("nextmask-1.")

    # It hangs while a training runs: the training ends, serving goes on, and the queue follows when it answers again.
    submit(4)
    wait_for(lambda: stage(nextmask, project) == "training", seconds=PATIENCE, name="a training")
    send(host, signal.SIGSTOP)
    try:
        wait_for(lambda: trained_on(nextmask, project) == set(done), seconds=PATIENCE, name="the training's end")
        wait_for(lambda: failed(nextmask, project), seconds=PATIENCE, name="the failure")
        assert "no answer within 2 s" in nextmask.status(project).errors["project"]
        assert nextmask.status(project).version == first, "what is shown cannot have changed"
        time.sleep(down)
        assert failed(nextmask, project)
        assert_serves(nextmask, project)
    finally:
        send(host, signal.SIGCONT)
    wait_until_healthy(nextmask, project, seconds=PATIENCE)
    assert nextmask.status(project).version.startswith("nextmask-2.")
    assert_whole(nextmask, client, project, done)

    # It is killed right after labels were submitted, and comes back on the same data and port.
    submit(3)
    send(host, signal.SIGKILL)
    wait_for(lambda: failed(nextmask, project), seconds=PATIENCE, name="the failure")
    assert "did not answer" in nextmask.status(project).errors["project"]
    time.sleep(down)
    assert failed(nextmask, project)
    assert_serves(nextmask, project)
    host.stop()
    host.start()
    wait_for(lambda: labelled(nextmask, project) == set(done), seconds=PATIENCE, name="the labels")
    submit(1)
    wait_for(lambda: trained_on(nextmask, project) == set(done), seconds=PATIENCE, name="a training on all labels")
    wait_until_healthy(nextmask, project, seconds=PATIENCE)
    assert_whole(nextmask, client, project, done)
    assert nextmask.status(project).version.startswith("nextmask-3.")
    assert "Traceback" not in nextmask.log.read_text()


def send(host: LabelStudioHost, number: signal.Signals) -> None:
    """Send a signal to all of Label Studio's processes."""
    assert host.pid
    os.killpg(host.pid, number)


def stage(nextmask: Nextmask, project: int) -> str:
    known = nextmask.services.store.project(project)
    return known.stage if known else ""


def failed(nextmask: Nextmask, project: int) -> bool:
    known = nextmask.services.store.project(project)
    return known is not None and known.state == "failed"
