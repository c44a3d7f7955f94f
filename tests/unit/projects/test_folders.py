"""Where a project's files are: MODEL_DIR may move, and the version that serves is named by the database alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from wiring import PROJECT, make_services, serve_model, task_of

from ml_backend.errors import CheckpointError
from ml_backend.projects.folders import ServingPointer
from ml_backend.projects.services import Services
from ml_backend.projects.serving import roll_back
from ml_backend.system.files import Folder


def serving(services: Services) -> int | None:
    version = services.checkpoints(PROJECT).current()
    return version.number if version else None


def test_a_pointer_in_a_file_is_moved_over_once(services: Services) -> None:
    """As 0.1 left it: the number in a file, nothing of it in the database."""
    serve_model(services)
    services.store.delete_values([f"serving_{PROJECT}"])
    pointer = services.checkpoints(PROJECT).folder / "current"
    pointer.write_text("1\n")
    assert serving(services) == 1
    assert services.store.value(f"serving_{PROJECT}") == "1"
    assert not pointer.exists()
    pointer.write_text("7\n")  # an old copy that somebody puts back says nothing any more
    assert serving(services) == 1


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"three"])
def test_a_damaged_pointer_falls_back_to_the_newest(content: bytes, services: Services) -> None:
    serve_model(services)
    services.store.delete_values([f"serving_{PROJECT}"])
    (services.checkpoints(PROJECT).folder / "current").write_bytes(content)
    assert serving(services) == 1
    assert "its number is unreadable" in services.checkpoints(PROJECT).stand_in()
    services.checkpoints(PROJECT).publish(1)
    assert services.checkpoints(PROJECT).stand_in() == ""


def test_a_pointer_that_cannot_be_read_for_a_moment_is_moved_over_later(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = serve_model(services)
    checkpoints = services.checkpoints(PROJECT)
    checkpoints.create(first.record, checkpoints.load_state(first))
    services.store.delete_values([f"serving_{PROJECT}"])
    pointer = checkpoints.folder / "current"
    pointer.write_text("1\n")
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "read", lambda *_: (_ for _ in ()).throw(OSError("stale file handle")))
        assert ServingPointer(services.store, PROJECT, checkpoints.files).get() == "?"
    assert pointer.exists()
    assert serving(services) == 1


def test_a_pointer_that_another_process_has_just_moved_is_that_of_the_database(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_model(services)
    answers = iter([None])
    monkeypatch.setattr(services.store, "value", lambda _: next(answers, "1"))
    assert serving(services) == 1


def test_all_processes_see_a_roll_back(services: Services) -> None:
    first = serve_model(services)
    checkpoints = services.checkpoints(PROJECT)
    checkpoints.create(first.record, checkpoints.load_state(first))
    checkpoints.publish(2)
    other = make_services(services.settings.local_folder, database_url=services.settings.database_url or None)
    assert serving(other) == 2
    roll_back(services.settings, services.store, PROJECT)
    assert serving(other) == 1
    with pytest.raises(CheckpointError, match="no earlier accepted version"):
        roll_back(other.settings, other.store, PROJECT)
    other.store.close()


def test_a_folder_that_is_moved_goes_on(services: Services, tmp_path: Path) -> None:
    serve_model(services)
    key = services.files.write_once(f"projects/{PROJECT}/masks/1-aa.png", b"a mask")
    services.store.put_tasks([task_of(1, status="labelled", mask_file=key)])
    url = services.settings.database_url
    shutil.copytree(services.settings.local_folder, tmp_path / "elsewhere", dirs_exist_ok=True, ignore=_not_itself)
    moved = make_services(tmp_path / "elsewhere", **({"database_url": url} if url else {}))
    shutil.rmtree(services.settings.local_folder / "projects")
    (task,) = moved.store.tasks(PROJECT)
    assert moved.files.read(task.mask_file) == b"a mask"
    assert serving(moved) == 1
    moved.store.close()


def _not_itself(_folder: str, names: list[str]) -> set[str]:
    return {"elsewhere"} & set(names)
