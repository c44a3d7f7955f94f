"""A real cluster of several nodes: the ranking is the local one, whatever dies; trainings come through, or say why."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import wait_for
from ray_cluster import RayCluster
from wiring import LABEL_MAP, PROJECT, SHAPE, data_uri, disc, look_at, nothing, png, put_task, task_of

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Box, boxes_to_text, covered_pixels
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.cluster import trainings
from ml_backend.demo.label_studio import free_port
from ml_backend.errors import ClusterError, ConfigurationError, LeaseLost, TrainingError
from ml_backend.learning.checkpoints import Checkpoints, Version
from ml_backend.learning.training import Item, Job, Progress, train
from ml_backend.projects.services import Services
from ml_backend.projects.training_turns import TrainingTurns
from ml_backend.store import Task
from ml_backend.worker import ray_scorer
from ml_backend.worker.score_pool import PoolRanker

KILLING = data_uri(400)
"""An image whose decoder dies on the nodes."""
POOL = 48

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.settings(batch_size=1)]
"""Of one image a batch: the last digits of what is computed depend on its size."""


@pytest.fixture(scope="session")
def killing_file() -> str:
    return hashlib.sha256(KILLING.encode()).hexdigest()[:40] + ".img"


@pytest.fixture(autouse=True)
def _small_pools_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_scorer, "LEAST_IMAGES", 2)


def pool_of(services: Services, count: int = POOL) -> list[Task]:
    tasks = [task_of(number, image=data_uri(number)) for number in range(1, count + 1)]
    services.store.put_tasks(tasks)
    return tasks


def ranked(
    services: Services,
    model: Version,
    tasks: Sequence[Task],
    *,
    address: str = "",
    device: str = "auto",
    **options: Any,
) -> Any:
    settings = services.settings.model_copy(update={"ray_address": address, "device": device})
    services = replace(services, settings=settings, turns=TrainingTurns(services.store, settings))
    look = look_at(services, **options)
    return PoolRanker(look, model).rank(tasks, round_number=1)


def events(services: Services) -> list[str]:
    return [event.text for event in services.store.events(PROJECT)]


def labelled(folder: Path, number: int, *boxes: Box) -> Task:
    """A disc with its true mask in some boxes."""
    mask = np.where(covered_pixels(boxes, SHAPE), disc(number)[1], IGNORE_INDEX).astype(np.uint8)
    file = folder / f"{number}.png"
    file.write_bytes(masks.png_bytes(mask))
    fields = {"status": "labelled", "mask_file": str(file), "boxes": boxes_to_text(boxes)}
    return task_of(number, image=data_uri(number), **fields)


def when_scored(action: Callable[[], None]) -> list[Any]:
    """A list of stages that does something once, as soon as the first images are scored."""

    class Stages(list[Any]):
        is_done = False

        def append(self, stage: Any) -> None:
            if stage[0] == "ranking" and stage[1] and not self.is_done:
                self.is_done = True
                action()
            super().append(stage)

    return Stages()


def processes(name: str) -> list[str]:
    """Command lines of running processes that hold a name."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if name in line]


# -- scoring ---------------------------------------------------------------------------------------------------------
def test_the_ranking_is_the_local_one_while_nodes_die_and_join(
    services: Services, model: Version, ray_cluster: RayCluster, tmp_path: Path
) -> None:
    """A node is killed in the middle, another joins, and one image kills each process that decodes it.

    Through the head, which stays: a driver that ran beside the killed node would be lost with it.
    """
    half = labelled(tmp_path, 70, Box(0, 0, 20, 32))
    tasks = [*pool_of(services), half, replace(task_of(71, image=half.image))]
    services.store.put_tasks(tasks)
    expected = ranked(services, model, tasks)

    def change_nodes() -> None:
        ray_cluster.kill_node()
        ray_cluster.add_node()

    killing = put_task(services, 200, image=KILLING)
    broken = put_task(services, 201, image="data:image/png;base64,AAAA")
    stages = when_scored(change_nodes)
    found = ranked(services, model, [*tasks, killing, broken], address=ray_cluster.client_address, stages=stages)
    assert events(services) == []
    assert len(ray_cluster.nodes) == 2
    assert dict(found.priorities) == dict(expected.priorities)
    assert dict(found.information) == dict(expected.information)
    errors = {task.task_id: task.error for task in services.store.tasks(PROJECT) if task.error}
    assert errors.keys() == {200, 201}
    assert "The processes that read and measured it ended" in errors[200]
    assert "is not a PNG" in errors[201]


def test_a_lost_lease_ends_all_that_the_cluster_does(
    services: Services, model: Version, ray_cluster: RayCluster
) -> None:
    tasks, lost = pool_of(services), threading.Event()

    def check() -> None:
        if lost.is_set():
            raise LeaseLost("another worker took it")

    stages = when_scored(lost.set)
    with pytest.raises(LeaseLost):
        ranked(services, model, tasks, address=ray_cluster.address, check=check, stages=stages)
    assert max(stage[1] for stage in stages) < POOL
    wait_for(lambda: not processes("ray::_scored"), seconds=20)


def test_what_keeps_a_cluster_from_being_used_is_a_sentence(
    services: Services, model: Version, ray_cluster: RayCluster
) -> None:
    tasks, nobody = pool_of(services, 3), f"ray://127.0.0.1:{free_port()}"
    ranked(services, model, tasks, address=nobody)
    with pytest.raises(ConfigurationError, match="not available here"):  # nor is there one here
        ranked(services, model, tasks, address=ray_cluster.address, device="cuda")
    assert events(services)[::-1] == [
        f"No Ray cluster can be used at NEXTMASK_RAY_ADDRESS = '{nobody}' ([Errno 111] Connection refused). Start one"
        " (ray start --head), or correct the address. The pool is scored here meanwhile.",
        f"NEXTMASK_DEVICE = 'cuda', but the Ray cluster at '{ray_cluster.address}' has no GPU. Add a node with one, or"
        " set NEXTMASK_DEVICE to auto. The pool is scored here meanwhile.",
    ]


def test_with_gpus_cpus_shrink_and_gpus_measure_within_the_object_store(
    services: Services, model: Version, ray_cluster: RayCluster
) -> None:
    """The GPU is one by name only: the stages, and what travels between them, are those of a real one."""
    node = ray_cluster.add_node(num_gpus=1)
    tasks = pool_of(services)
    found = ranked(services, model, tasks, address=ray_cluster.address)
    assert events(services) == []
    assert dict(found.information) == dict(ranked(services, model, tasks).information)
    ray_cluster.kill_node(node)


@pytest.mark.parametrize("refusals", [2, 3])
def test_a_head_that_could_not_start_a_process_is_asked_again(monkeypatch: pytest.MonkeyPatch, refusals: int) -> None:
    connection = pytest.importorskip("ml_backend.cluster.connection")
    asked = list[str]()

    def init(address: str, **_: Any) -> None:
        asked.append(address)
        if len(asked) <= refusals:
            raise ConnectionAbortedError("Initialization failure from server:\n")

    monkeypatch.setattr(connection.ray, "init", init)
    monkeypatch.setattr(connection, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(connection, "_reach", nothing)
    monkeypatch.setattr(connection.ray, "nodes", list)
    why = "has no node with a CPU" if refusals == 2 else "RAY_AUTH_TOKEN_PATH"
    with pytest.raises(ClusterError, match=why):
        connection.connect("ray://10.0.0.1:10001", "cpu", fetches=False)
    assert len(asked) == 3


# -- training --------------------------------------------------------------------------------------------------------
def job_in(folder: Path, **changes: Any) -> Job:
    items = []
    for number in range(1, 7):
        image, mask = folder / f"{number}.png", folder / f"{number}-mask.png"
        pixels, truth = disc(number)
        image.write_bytes(png(pixels))
        mask.write_bytes(png(truth))
        items.append(Item(str(number), image, mask, number > 4, f"digest-{number}"))
    values = {"iterations": 30, "batch_size": 4, "input_size": 32, "device": "cpu", "folder": folder / "model"}
    return Job(tuple(items), LABEL_MAP.classes, LABEL_MAP.digest, "data", **{**values, **changes})


def test_a_training_whose_node_dies_begins_again_and_gives_the_same_version(
    tmp_path: Path, ray_cluster: RayCluster
) -> None:
    killed = []

    def progress(news: Progress) -> None:
        if news.stage == "training" and not killed:
            killed.extend(ray_cluster.nodes)
            for node in killed:
                ray_cluster.kill_node(node)
                ray_cluster.add_node()

    job = job_in(tmp_path)
    number = trainings.run(job, address=ray_cluster.address, progress=progress, heartbeat=nothing)
    assert killed
    checkpoints = Checkpoints(job.folder)
    assert [version.number for version in checkpoints.versions()] == [number]
    here = train(replace(job, folder=tmp_path / "here"))
    there = checkpoints.get(number)
    assert there.record.labels == here.record.labels
    assert there.record.measures["miou"] == here.record.measures["miou"]
    assert there.sha256 == here.sha256


def test_members_of_a_committee_are_trained_at_the_same_time(tmp_path: Path, ray_cluster: RayCluster) -> None:
    first = train(job_in(tmp_path, iterations=2))
    job = job_in(tmp_path, iterations=2, committee_of=first.number, members=2)
    seen = set[int]()
    run = partial(trainings.run, address=ray_cluster.address, heartbeat=nothing)
    assert run(job, progress=lambda news: seen.add(news.member)) == first.number
    there = Checkpoints(job.folder).committees.load(first.number)
    train(job)
    here = Checkpoints(job.folder).committees.load(first.number)
    assert there is not None
    assert here is not None
    assert all(torch.equal(a[name], b[name]) for a, b in zip(there, here, strict=True) for name in a)


def test_a_training_that_fails_on_a_node_fails_as_it_does_here(tmp_path: Path, ray_cluster: RayCluster) -> None:
    job = job_in(tmp_path)
    for item in job.items:
        item.mask.write_bytes(b"no mask")
    with pytest.raises(TrainingError, match="There is nothing to train on") as failed:
        trainings.run(job, address=ray_cluster.address, progress=nothing, heartbeat=nothing)
    assert failed.value.skipped.keys() == {"1", "2", "3", "4", "5", "6"}
