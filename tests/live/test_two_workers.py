"""Two of everything on one MODEL_DIR, by mistake; and a worker that was stopped for longer than its lease."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy, held, wait_until_seen
from invariants import assert_whole, labelled, trained_on, wait_until_healthy
from processes import kill, wait_for
from steps import label
from support import Nextmask

from ml_backend.datasets import Dataset
from ml_backend.demo.label_studio import free_port
from ml_backend.label_studio import LabelStudio
from ml_backend.label_studio.predictions import DUPLICATE

pytestmark = pytest.mark.live


def owner(nextmask: Nextmask, project: int) -> int | None:
    """Process id of the worker that holds the project."""
    known = nextmask.services.store.project(project)
    return int(known.lease_owner.split(":")[1]) if known and known.lease_owner else None


def stop_between_writes(worker: int, database: Path) -> None:
    """Stop a worker, but not while it holds SQLite's only lock for writing: nobody else could go on then."""
    for _ in range(100):
        kill(worker, signal.SIGSTOP)
        connecting = sqlite3.connect(database, timeout=0.5, isolation_level=None)
        with closing(connecting) as connection, suppress(sqlite3.OperationalError):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            return
        kill(worker, signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError("the worker writes without end")


@pytest.fixture
def twins(make_nextmask: Callable[..., Nextmask], tmp_path: Path) -> tuple[Nextmask, Nextmask]:
    """Two servers, each with its worker, on one folder and with one address in Label Studio."""
    shared = {"model_dir": tmp_path / "state", "lease_seconds": 4.0, "reconcile_seconds": 1.0}
    first = make_nextmask(**shared)
    address = first.settings.effective_backend_url
    return first, make_nextmask(**shared, port=free_port(), backend_url=address)


def test_two_servers_and_workers_on_one_folder(
    twins: tuple[Nextmask, Nextmask],
    label_studio: LabelStudio,
    make_project: Callable[..., int],
    shapes: Dataset,
) -> None:
    """They share the work; then one is stopped in the middle of each step, and wakes up as a zombie."""
    first, second = twins
    project = make_project(images=20, dataset=shapes)
    tasks, done = label_studio.task_ids(project), list[int]()

    def submit(count: int) -> None:
        some = tasks[len(done) : len(done) + count]
        label(label_studio, project, shapes, some)
        done.extend(some)

    first.connect(project, queue_window=8)
    submit(4)
    wait_for(lambda: trained_on(first, project) == set(done), name="the first version")
    wait_until_healthy(first, project)
    assert_whole(first, label_studio, project, done)

    workers = {first.worker(), second.worker()}
    for stage in ("training", "publishing", "syncing"):
        submit(4)

        def busy(wanted: str = stage) -> int | None:
            known = first.services.store.project(project)
            return owner(first, project) if known and known.stage.startswith(wanted) else None

        zombie = wait_for(busy, name=f"somebody's {stage}", every=0.005)
        assert zombie in workers
        stop_between_writes(zombie, first.settings.model_dir / "nextmask.sqlite3")
        other = (workers - {zombie}).pop()
        wait_for(lambda sleeper=other: owner(first, project) == sleeper, name="the other worker's lease")
        wait_for(lambda: labelled(first, project) == set(done), name="all labels")
        kill(zombie, signal.SIGCONT)
        wait_for(lambda: trained_on(first, project) == set(done), name="a training on all labels")
        wait_until_healthy(first, project)
        assert_whole(first, label_studio, project, done)
    versions = first.services.checkpoints(project).versions()
    assert [len(version.record.labels) for version in versions] == sorted(len(one.record.labels) for one in versions)
    for nextmask in twins:
        assert "Traceback" not in nextmask.log.read_text()


def test_a_zombie_whose_import_is_on_its_way(
    make_nextmask: Callable[..., Nextmask],
    label_studio: LabelStudio,
    make_project: Callable[..., int],
    shapes: Dataset,
    tmp_path: Path,
) -> None:
    """No check helps against a request that was sent already: what it doubles is parted afterwards."""
    with FaultyProxy(label_studio.transport.url) as proxy:
        shared = {"model_dir": tmp_path / "state", "lease_seconds": 4.0, "reconcile_seconds": 1.0}
        nextmask = make_nextmask(**shared, label_studio_url=proxy.url)
        project = make_project(images=12, dataset=shapes)
        release = threading.Event()
        held_back = proxy.fault(held(release), method="POST", path="import/predictions", times=1)
        nextmask.connect(project, queue_window=8)
        wait_until_seen(held_back)
        kill(nextmask.worker())  # what it has sent is on its way, and arrives after the next worker's import
        wait_for(lambda: nextmask.status(project).queue == 8, name="the next worker's import")
        release.set()
        wait_for(lambda: parted(label_studio, project) == 8, name="the second predictions being renamed")
        wait_until_healthy(nextmask, project)
        assert_whole(nextmask, label_studio, project, [])


def parted(client: LabelStudio, project: int) -> int:
    """How many predictions were the second of their version."""
    return sum(count for name, count in client.model_versions(project).items() if name.endswith(DUPLICATE))
