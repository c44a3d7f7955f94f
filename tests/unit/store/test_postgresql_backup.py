"""PostgreSQL is backed up by its own tools, as docs/operations.md says: pg_dump first, the folder after it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from installed_state import fill, rows_of
from memory_studio import MemoryStudio
from postgresql import Cluster
from wiring import PROJECT, disc, make_services, nothing, project_of, region

from ml_backend.worker.reconcile import reconcile


def dump(cluster: Cluster, url: str) -> Path:
    file = cluster.folder / "state.dump"
    cluster.run("pg_dump", "--username=nextmask", "--format=custom", f"--file={file}", url.rpartition("/")[2])
    return file


def restore(cluster: Cluster, file: Path, url: str) -> None:
    cluster.run("pg_restore", "--username=nextmask", "--exit-on-error", f"--dbname={url.rpartition('/')[2]}", str(file))


def test_all_that_matters_comes_back(
    shared_postgresql: Cluster, postgresql_url: str, empty_postgresql_url: str, tmp_path: Path
) -> None:
    services = make_services(tmp_path / "state", database_url=postgresql_url)
    fill(services, tasks=50)
    services.store.close()
    before = rows_of(postgresql_url)
    file = dump(shared_postgresql, postgresql_url)
    subprocess.run(
        ["tar", "-C", str(tmp_path / "state"), "-cf", str(tmp_path / "projects.tar"), "projects"], check=True
    )

    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").mkdir()
    subprocess.run(["tar", "-C", str(tmp_path / "state"), "-xf", str(tmp_path / "projects.tar")], check=True)
    restore(shared_postgresql, file, empty_postgresql_url)
    assert rows_of(empty_postgresql_url) == before
    second = make_services(tmp_path / "state", database_url=empty_postgresql_url)
    task = second.store.task(PROJECT, 1)
    assert task is not None
    assert second.files.read(task.mask_file) == b"a mask"
    assert second.checkpoints(PROJECT).current() is not None
    newest = second.store.events(PROJECT)[0].id
    second.store.add_event(PROJECT, "trained", "the next")
    assert second.store.events(PROJECT)[0].id > newest
    second.store.close()


def test_what_changed_between_dump_and_copy_is_read_again(
    shared_postgresql: Cluster, postgresql_url: str, empty_postgresql_url: str, tmp_path: Path
) -> None:
    """A label is replaced after the dump: the mask that the dump names is gone when the folder is copied."""
    studio = MemoryStudio()
    tasks = [studio.add_task(index) for index in range(3)]
    first = make_services(tmp_path / "state", studio, audit_share=0.0, database_url=postgresql_url)
    first.store.wake(PROJECT)
    studio.label(tasks[0])
    reconcile(first, PROJECT, nothing)
    dumped = first.store.task(PROJECT, tasks[0])
    assert dumped is not None
    file = dump(shared_postgresql, postgresql_url)

    studio.annotate(tasks[0], [region(255 - disc(0)[1])])
    studio.label(tasks[1])
    first.store.wake(PROJECT)
    reconcile(first, PROJECT, nothing)
    replaced = first.store.task(PROJECT, tasks[0])
    assert replaced is not None
    assert replaced.label_digest != dumped.label_digest
    (tmp_path / "state" / dumped.mask_file).unlink(missing_ok=True)  # as tidying up does
    shutil.copytree(tmp_path / "state" / "projects", tmp_path / "copy")
    expected = {task.task_id: task.label_digest for task in first.store.tasks(PROJECT, status="labelled")}
    first.store.close()

    shutil.rmtree(tmp_path / "state" / "projects")
    shutil.copytree(tmp_path / "copy", tmp_path / "state" / "projects")
    restore(shared_postgresql, file, empty_postgresql_url)
    second = make_services(tmp_path / "state", studio, audit_share=0.0, database_url=empty_postgresql_url)
    predictions = len(studio.predictions)
    reconcile(second, PROJECT, nothing)
    labelled = second.store.tasks(PROJECT, status="labelled")
    assert {task.task_id: task.label_digest for task in labelled} == expected
    assert all((tmp_path / "state" / task.mask_file).exists() for task in labelled)
    assert not project_of(second).error
    assert len(studio.predictions) >= predictions
    second.store.close()
