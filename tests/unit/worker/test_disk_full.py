"""The disk under MODEL_DIR is full: what still works, what is said, and that nothing is lost or half taken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from full_disks import SmallDisk
from image_files import encoded
from memory_studio import MemoryStudio
from PIL import Image
from small_training import once_under_way, small_job
from small_training import run as run_training
from wiring import (
    PROJECT,
    XML,
    Json,
    data_uri,
    disc,
    give_project,
    make_services,
    open_installation,
    overlap_with_truth,
    task_of,
)

from ml_backend.annotations.label_map import parse_label_config
from ml_backend.annotations.masks import mask_from_png, read_result
from ml_backend.dashboard.pictures.cache import PictureCache
from ml_backend.errors import DiskFull
from ml_backend.images.cache import ImageCache
from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.projects.services import Services, open_services
from ml_backend.projects.status import project_status
from ml_backend.server.app import create_app
from ml_backend.store import Store
from ml_backend.system.disk import RESERVE, free_bytes
from ml_backend.system.whole_files import write_once
from ml_backend.worker.worker import Worker

pytestmark = pytest.mark.sqlite("PostgreSQL's disk is another one")

SAYS = r"^Disk full: free [\d,]+ bytes under MODEL_DIR = .*Work goes on by itself then\.$"


def write_until_full(store: Store) -> None:
    """Small changes find room in pages that are there already, for a while."""
    for number in range(5000):
        store.put_tasks([task_of(number, error="x" * 2000)])


def test_the_state_says_that_it_is_full_and_goes_on(disk: SmallDisk) -> None:
    store = Store(f"sqlite:///{disk.folder / 'state' / 'nextmask.sqlite3'}")
    store.wake(PROJECT, title="known")
    disk.fill()
    with pytest.raises(DiskFull, match=SAYS):
        write_until_full(store)
    known = store.project(PROJECT)
    assert known is not None
    assert known.title == "known"
    written = store.tasks(PROJECT)
    disk.free()
    store.put_tasks([task_of(9999)])
    assert store.tasks(PROJECT) == [*written, task_of(9999)], "nothing was half written, nothing lost"
    store.close()


def test_a_file_is_whole_or_not_there(disk: SmallDisk) -> None:
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        write_once(disk.folder / "mask.png", bytes(50_000))
    assert [path.name for path in disk.folder.iterdir()] == ["ballast"]
    disk.free()
    (disk.folder / "mask.png").write_bytes(b"")  # as a power failure may leave it
    write_once(disk.folder / "mask.png", b"whole")
    assert (disk.folder / "mask.png").read_bytes() == b"whole"


def test_images_are_decoded_without_the_cache(disk: SmallDisk) -> None:
    limits = {"max_bytes": 10**9, "max_image_bytes": 10**7, "max_pixels": 10**7}
    studio = MemoryStudio()
    studio.add_task(0)
    cache = ImageCache(disk.folder / "images", studio.fetch, **limits)
    disk.fill()
    reference = "/data/upload/0.png"
    assert (cache.load(reference) == disc(0)[0]).all()
    (found,) = cache.arrays([reference])
    assert (found == disc(0)[0]).all()
    studio.files["/a.jpg"] = encoded(Image.new("RGB", (40, 32), "red"), "JPEG")  # whose header is looked through
    assert cache.load("/a.jpg").shape == (32, 40, 3)
    with pytest.raises(DiskFull, match=SAYS):
        list(cache.prefetch([reference]))
    disk.free()
    assert cache.path(reference).exists()
    assert not list((disk.folder / "images").glob("*.part"))


def test_pictures_are_shown_without_being_kept(disk: SmallDisk) -> None:
    pictures = PictureCache(disk.folder / "pictures", max_bytes=10**9)
    disk.fill()
    assert pictures.made("key", lambda: bytes(50_000)) == bytes(50_000)
    assert pictures.get("key") is None
    disk.free()
    pictures.put("key", b"kept")
    assert pictures.get("key") == b"kept"


def test_a_training_that_finds_no_room_leaves_no_version_and_is_made_again(disk: SmallDisk) -> None:
    folder = disk.folder / "project"
    folder.mkdir()
    job = small_job(folder)
    with pytest.raises(DiskFull, match=r"^Disk full: free [\d,]+ bytes"):
        run_training(job, progress=once_under_way(lambda _: disk.fill()))
    checkpoints = Checkpoints(job.folder)
    assert checkpoints.versions() == []
    assert checkpoints.damaged() == {}
    disk.free()
    version = checkpoints.get(run_training(job))
    assert checkpoints.load_state(version)
    assert [path.name for path in (job.folder / "versions").iterdir()] == [str(version.number)]


# -- the server --------------------------------------------------------------------------------------------------------
@pytest.fixture
def services(disk: SmallDisk) -> Iterator[Services]:
    with open_installation(disk.folder / "state") as services:
        give_project(services)
        yield services


def test_the_server_answers_while_the_disk_is_full(disk: SmallDisk, services: Services) -> None:
    services.store.put_tasks([task_of(7)])
    with TestClient(create_app(services.settings)) as client:
        disk.fill()
        with pytest.raises(DiskFull):
            write_until_full(services.store)
        assert client.get("/health").status_code == 200
        setup = {"project": f"{PROJECT}.0", "schema": XML, "extra_params": '{"strategy": "margin"}'}
        assert client.post("/setup", json=setup).json() == {"model_version": "nextmask-1.1"}

        body = {"project": f"{PROJECT}.0", "label_config": XML, "tasks": [{"id": 7, "data": {"image": data_uri(4)}}]}
        (prediction,) = client.post("/predict", json=body).json()["results"]
        mask = read_result(prediction["result"], parse_label_config(XML), size=disc(4)[1].shape).mask
        assert overlap_with_truth(mask, 4) > 0.5

        begin = time.monotonic()
        answer = client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": PROJECT}})
        assert time.monotonic() - begin < 1
        assert answer.status_code == 503
        assert answer.json()["detail"].startswith("Disk full: free ")
        assert project_status(services.settings, services.store, PROJECT).errors["disk"].startswith("Disk full: free ")

        disk.free()
        assert client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": PROJECT}}).is_success
        assert "disk" not in project_status(services.settings, services.store, PROJECT).errors
        known = services.store.project(PROJECT)
        assert known is not None
        assert known.train_requested_at


# -- the worker --------------------------------------------------------------------------------------------------------
class FillsTheDisk(MemoryStudio):
    """A host during whose answer the disk becomes full."""

    disk: SmallDisk | None = None

    def changed_tasks(self, project_id: int, since: str | None) -> Iterator[Json]:
        if self.disk:
            self.disk.fill()
        yield from super().changed_tasks(project_id, since)


def test_no_label_is_lost_and_work_goes_on_by_itself(disk: SmallDisk, caplog: pytest.LogCaptureFixture) -> None:
    studio = FillsTheDisk()
    tasks = [studio.add_task(index) for index in range(8)]
    settings: dict[str, Any] = {"train_after": 1000, "lease_seconds": 2.0, "reconcile_seconds": 0.1}
    services = make_services(disk.folder / "state", studio, **settings)
    services.store.wake(PROJECT)
    worker = Worker(services)

    # 1. Too little is free to begin: said in the state, and nothing is touched.
    while free_bytes(disk.folder) >= RESERVE:
        with (disk.folder / "ballast").open("ab") as file:
            file.write(bytes(1 << 22))
    assert worker.run_once()
    status = project_status(services.settings, services.store, PROJECT)
    assert status.state == "failed"
    assert status.errors["project"].startswith("Disk full: free ")
    assert not services.store.tasks(PROJECT)

    # 2. It becomes full in the middle of reading labels.
    disk.free()
    for task in tasks:
        studio.label(task)
    studio.disk = disk
    services.store.wake(PROJECT)
    worker_runs_through(worker)
    assert project_status(services.settings, services.store, PROJECT).errors["disk"].startswith("Disk full: free ")
    assert "Traceback" not in caplog.text

    # 3. There is room again: nobody does anything.
    studio.disk = None
    disk.free()
    deadline = time.monotonic() + 60
    while len(services.store.tasks(PROJECT, status="labelled")) < len(tasks):
        assert time.monotonic() < deadline, "it did not go on by itself"
        worker_runs_through(worker)
        time.sleep(0.1)
    for task in services.store.tasks(PROJECT):
        truth = disc(tasks.index(task.task_id))[1]
        assert (mask_from_png(services.files.read(task.mask_file)) == truth).all()
    worker_runs_through(worker)
    status = project_status(services.settings, services.store, PROJECT)
    assert (status.labels, status.errors) == (8, {})
    services.store.close()


def worker_runs_through(worker: Worker) -> None:
    """One turn of the worker's loop, which outlives a state that cannot be written."""
    try:
        worker.run_once()
    except DiskFull:
        return


def test_the_loop_of_a_worker_outlives_a_full_disk(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ml_backend.worker.worker.FULL_SECONDS", 0.05)
    services = make_services(disk.folder / "state", MemoryStudio(), lease_seconds=2.0, reconcile_seconds=0.1)
    worker, turns = Worker(services), [0]

    def full(only: int | None = None) -> bool:
        turns[0] += 1
        if turns[0] > 3:
            worker.stop()
        write_until_full(services.store)
        return False

    disk.fill()
    monkeypatch.setattr(worker, "run_once", full)
    assert worker.run()
    assert turns[0] >= 4
    assert [record.message for record in caplog.records if "Disk full" in record.message] != []
    assert len([record for record in caplog.records if "Disk full" in record.message]) == 1, "once a minute"
    assert "Traceback" not in caplog.text
    services.store.close()


def test_a_start_on_a_full_disk_says_so(disk: SmallDisk) -> None:
    services = make_services(disk.folder / "state")
    services.store.close()
    disk.fill()
    with pytest.raises(DiskFull, match=SAYS):
        open_services(services.settings)
    disk.free()
    again = open_services(services.settings)
    assert again.store.projects() == []
    again.store.close()
