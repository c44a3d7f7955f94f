"""Backup and restore: all that matters comes back, whole, elsewhere; what is damaged or hostile does not."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import zstandard
from memory_studio import MemoryStudio
from wiring import PROJECT, make_services, open_installation, task_of

from ml_backend.errors import BackupError
from ml_backend.learning.checkpoints import VersionRecord
from ml_backend.projects.services import Services
from ml_backend.projects.status import project_status
from ml_backend.settings import Settings
from ml_backend.store.backup import backup, restore
from ml_backend.system.whole_files import write_once
from ml_backend.worker.reconcile import reconcile

pytestmark = pytest.mark.sqlite("archives hold its file; with PostgreSQL, see test_postgresql_backup.py")

RECORD = VersionRecord(classes=("a", "b"), label_map_digest="", data_digest="", measures={"miou": 0.5})


def nothing(*_: object) -> None:
    pass


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with open_installation(tmp_path / "first") as services:
        fill(services)
        yield services


def fill(services: Services) -> None:
    folder, store = services.project_folder(PROJECT), services.store
    checkpoints = services.checkpoints(PROJECT)
    for number in (1, 2):
        checkpoints.create(RECORD, {"weight": torch.full((3,), float(number))})
    checkpoints.publish(1)
    checkpoints.committees.put(1, [{"weight": torch.ones(2)}, {"weight": torch.zeros(2)}], {"members": 2})
    mask = services.files.write_once(f"projects/{PROJECT}/masks/aa.png", b"a mask")
    effort = services.files.write_once(f"projects/{PROJECT}/masks/effort-aa.npy", b"effort")
    write_once(folder / "strategy" / "vaal-1.pt", b"learned")
    write_once(services.settings.model_dir / "images" / "big.png", b"can be fetched again")
    store.wake(PROJECT, title="Cells", published_version="nextmask-1.1", state="training", decided_model=2)
    store.put_tasks([task_of(1, status="labelled", mask_file=mask, effort_file=effort), task_of(2)])
    store.put_ranking(PROJECT, {2: 0.5}, ranking_version="nextmask-1.1")
    store.put_published(PROJECT, "nextmask-1.1", [(2, 0.5, b"png")])
    store.add_event(PROJECT, "trained", "Version 1")
    store.set_default("webhook_secret", "kept")
    assert store.acquire("the worker", lease_seconds=1000, interval=1) is not None


def elsewhere(services: Services, tmp_path: Path) -> Settings:
    return services.settings.model_copy(update={"model_dir": tmp_path / "second" / "state"})


def files_of(folder: Path) -> dict[str, bytes]:
    kept = (path for path in sorted(folder.rglob("*")) if path.is_file() and "sqlite3" not in path.name)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}


# -- there and back --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["of today.tar.zst", "of today.tar.gz"])
def test_everything_comes_back_elsewhere(name: str, services: Services, tmp_path: Path) -> None:
    shown: list[tuple[int, int]] = []
    checkpoints = services.checkpoints(PROJECT)
    (checkpoints.folder / "versions" / ".unfinished-3").mkdir()
    (checkpoints.folder / "versions" / ".unfinished-3" / "weights.safetensors").write_bytes(b"half")
    (services.project_folder(PROJECT) / "masks" / "tmp1.part").write_bytes(b"half")
    before, settings = files_of(services.settings.model_dir), elsewhere(services, tmp_path)
    count = backup(services.settings, tmp_path / name, progress=lambda *done: shown.append(done))
    assert shown[-1][0] == shown[-1][1] > 0
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]
    assert restore(settings, tmp_path / name, progress=nothing) == count

    left_out = {name for name in before if "images/" in name or ".unfinished" in name or ".part" in name}
    left_out |= {f"projects/{PROJECT}/model/lock"}
    assert files_of(settings.model_dir) == {name: data for name, data in before.items() if name not in left_out}
    second = make_services(tmp_path / "unused", model_dir=settings.model_dir)
    mine, theirs = (
        project_status(second.settings, second.store, PROJECT),
        project_status(services.settings, services.store, PROJECT),
    )
    assert replace(mine, state="") == replace(theirs, state="")
    assert (mine.state, theirs.state) == ("idle", "training")
    task = second.store.task(PROJECT, 1)
    assert task is not None
    assert second.files.read(task.mask_file) == b"a mask"
    assert second.files.read(task.effort_file) == b"effort"
    again = second.checkpoints(PROJECT)
    assert [version.number for version in again.versions()] == [1, 2]
    assert again.current() is not None
    assert len(again.committees.load(1) or []) == 2
    assert again.create(RECORD, {"weight": torch.ones(1)}).number == 3
    assert second.store.events(PROJECT) == services.store.events(PROJECT)
    assert second.store.set_default("webhook_secret", "another") == "kept"
    assert second.store.acquire("the next worker", lease_seconds=9, interval=9) is not None  # it is nobody's
    second.store.close()


def test_what_is_taken_while_everything_changes_fits_together(services: Services, tmp_path: Path) -> None:
    """Masks are replaced, versions made and published, and the old masks removed, as fast as a disk can."""
    ended, failed = threading.Event(), list[BaseException]()
    masks, checkpoints = f"projects/{PROJECT}/masks/{{}}.png", services.checkpoints(PROJECT)

    def churn() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            mask = services.files.write_once(masks.format(number), f"mask {number}".encode())
            services.store.put_tasks([task_of(7, status="labelled", mask_file=mask, label_digest=str(number))])
            services.files.remove(masks.format(number - 1))
            if number % 20 == 0:
                made = checkpoints.create(RECORD, {"weight": torch.full((9,), float(number))})
                checkpoints.publish(made.number)
                services.store.update_project(PROJECT, published_version=f"nextmask-{made.number}.1")

    def watched() -> None:
        try:
            churn()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=watched)
    thread.start()
    try:
        for number in range(4):
            file = tmp_path / f"{number}.tar.gz"
            backup(services.settings, file, progress=nothing)
            settings = services.settings.model_copy(update={"model_dir": tmp_path / f"restored-{number}"})
            restore(settings, file, progress=nothing)
            second = make_services(tmp_path / "unused", model_dir=settings.model_dir)
            task = second.store.task(PROJECT, 7)
            if task is not None:
                assert second.files.read(task.mask_file).decode() == f"mask {task.label_digest}"
            current = second.checkpoints(PROJECT).current()
            assert current is not None
            assert current.number == int(second.store.value(f"serving_{PROJECT}") or 0)
            assert second.checkpoints(PROJECT).damaged() == {}
            second.store.close()
    finally:
        ended.set()
        thread.join()
    assert failed == []


def test_a_folder_may_be_removed_while_the_files_are_listed(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old versions are removed while server and worker run: here between the listing of all and of the one."""
    scan, committee = os.scandir, services.checkpoints(PROJECT).folder / "committees" / "1"
    assert committee.is_dir()

    def scandir(path: str | int) -> object:
        if path == str(committee) and committee.exists():
            shutil.rmtree(committee)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert backup(services.settings, tmp_path / "a.tar.gz", progress=nothing) > 5
    assert not committee.exists()


def test_a_mask_that_is_lost_keeps_no_backup_from_being_taken(services: Services, tmp_path: Path) -> None:
    (services.project_folder(PROJECT) / "masks" / "aa.png").unlink()
    assert backup(services.settings, tmp_path / "a.tar.gz", progress=nothing) > 5


def test_the_next_look_goes_on_where_the_backup_was_taken(tmp_path: Path) -> None:
    studio = MemoryStudio()
    for index in range(6):
        studio.add_task(index)
    first = make_services(tmp_path / "first", studio, queue_window=3)
    first.store.wake(PROJECT)
    reconcile(first, PROJECT, nothing)
    backup(first.settings, tmp_path / "a.tar.gz", progress=nothing)
    restore(elsewhere(first, tmp_path), tmp_path / "a.tar.gz", progress=nothing)
    predictions = json.dumps(studio.predictions)
    second = make_services(tmp_path / "second", studio, model_dir=tmp_path / "second" / "state", queue_window=3)
    reconcile(second, PROJECT, nothing)
    assert json.dumps(studio.predictions) == predictions
    after, before = (
        project_status(second.settings, second.store, PROJECT),
        project_status(first.settings, first.store, PROJECT),
    )
    assert replace(after, done=0, total=0) == replace(before, done=0, total=0)  # of the last stage's progress
    for services in (first, second):
        services.store.close()


# -- what is refused -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("a.zip", r"ends with \.tar\.zst or \.tar\.gz"),
        ("a.tar.gz", "exists already"),
        ("no/a.tar.gz", "cannot be written"),
    ],
)
def test_a_backup_that_cannot_be_written_leaves_nothing(
    name: str, match: str, services: Services, tmp_path: Path
) -> None:
    (tmp_path / "a.tar.gz").write_text("another one")
    with pytest.raises(BackupError, match=match):
        backup(services.settings, tmp_path / name, progress=nothing)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.tar.gz"]
    assert (tmp_path / "a.tar.gz").read_text() == "another one"


def test_a_disk_that_fills_up_leaves_no_backup(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(BackupError, match="No space left on device"):
        backup(services.settings, tmp_path / "a.tar.zst", progress=nothing)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_nothing_and_another_database_are_refused(services: Services, tmp_path: Path) -> None:
    empty = services.settings.model_copy(update={"model_dir": tmp_path / "empty"})
    with pytest.raises(BackupError, match="nothing to back up"):
        backup(empty, tmp_path / "a.tar.gz", progress=nothing)
    other = services.settings.model_copy(update={"database_url": "postgresql+psycopg://a:hush@b/c"})
    for call, tool in ((backup, "pg_dump --format=custom"), (restore, "pg_restore --dbname=c")):
        with pytest.raises(BackupError, match=tool) as raised:
            call(other, tmp_path / "a.tar.gz", progress=nothing)
        assert "hush" not in str(raised.value)


def test_a_folder_in_use_is_left_alone(services: Services, tmp_path: Path) -> None:
    backup(services.settings, tmp_path / "a.tar.gz", progress=nothing)
    before = files_of(services.settings.model_dir)
    with pytest.raises(BackupError, match=r"is not empty \(.*nextmask\.sqlite3.*\).*Stop nextmask"):
        restore(services.settings, tmp_path / "a.tar.gz", progress=nothing)
    assert files_of(services.settings.model_dir) == before


Content = list[tuple[tarfile.TarInfo, bytes]]


def read(file: Path) -> Content:
    with tarfile.open(file) as archive:
        return [(member, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]


def write(file: Path, content: Content) -> None:
    with tarfile.open(file, "w:gz") as archive:
        for member, data in content:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _named(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def _changed(content: Content) -> Content:
    return [(member, data[:-1] + b"?" if member.name.endswith("aa.png") else data) for member, data in content]


HOSTILE: dict[str, Callable[[Content], Content]] = {
    "a path upwards": lambda content: [_named("projects/7/../../../evil"), *content],
    "a path out": lambda content: [_named("../evil"), *content],
    "an absolute path": lambda content: [_named("/tmp/evil"), *content],
    "a link": lambda content: [_named("projects/7/masks/a.png", tarfile.SYMTYPE, "/etc/passwd"), *content],
    "a hard link": lambda content: [_named("projects/7/masks/a.png", tarfile.LNKTYPE, "nextmask.sqlite3"), *content],
    "a device": lambda content: [_named("projects/7/masks/a.png", tarfile.CHRTYPE), *content],
    "another file": lambda content: [_named("nextmask.sqlite3-wal"), *content],
    "a file twice": lambda content: [content[0], *content],
    "a changed file": _changed,
    "a file less": lambda content: content[1:],
    "a file more": lambda content: [_named("projects/7/masks/more.png"), *content],
    "no list": lambda content: content[:-1],
    "more after the list": lambda content: [*content, _named("projects/7/masks/more.png")],
    "no database": lambda content: [one for one in content if "sqlite3" not in one[0].name],
    "another form": lambda content: [*content[:-1], (content[-1][0], b'{"format": 99}')],
    "a list that is none": lambda content: [*content[:-1], (content[-1][0], b"[1, 2")],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_no_backup_of_ours_holds_is_refused_and_leaves_nothing(
    kind: str, services: Services, tmp_path: Path
) -> None:
    backup(services.settings, tmp_path / "good.tar.gz", progress=nothing)
    write(tmp_path / "bad.tar.gz", HOSTILE[kind](read(tmp_path / "good.tar.gz")))
    settings = elsewhere(services, tmp_path)
    with pytest.raises(BackupError):
        restore(settings, tmp_path / "bad.tar.gz", progress=nothing)
    assert list(settings.model_dir.iterdir()) == []
    assert not (tmp_path / "evil").exists()
    assert not Path("/tmp/evil").exists()
    restore(settings, tmp_path / "good.tar.gz", progress=nothing)  # and the folder can still be used


@pytest.mark.parametrize("suffix", [".tar.zst", ".tar.gz"])
def test_half_an_archive_and_none_are_refused(suffix: str, services: Services, tmp_path: Path) -> None:
    whole, settings = tmp_path / f"a{suffix}", elsewhere(services, tmp_path)
    backup(services.settings, whole, progress=nothing)
    data = whole.read_bytes()
    packed = zstandard.compress if suffix == ".tar.zst" else gzip.compress
    for damaged in (data[: len(data) // 2], data[:10], b"", b"text", packed(b"no archive")):
        (tmp_path / "half").write_bytes(damaged)
        with pytest.raises(BackupError):
            restore(settings, tmp_path / "half", progress=nothing)
        assert list(settings.model_dir.iterdir()) == []
    with pytest.raises(BackupError, match="cannot be restored"):
        restore(settings, tmp_path / "missing", progress=nothing)


def test_what_a_killed_restore_left_is_no_obstacle(services: Services, tmp_path: Path) -> None:
    backup(services.settings, tmp_path / "a.tar.gz", progress=nothing)
    settings = elsewhere(services, tmp_path)
    (settings.model_dir / ".restoring" / "projects").mkdir(parents=True)
    (settings.model_dir / ".restore-lock").touch()
    restore(settings, tmp_path / "a.tar.gz", progress=nothing)
    assert sorted(path.name for path in settings.model_dir.iterdir()) == ["nextmask.sqlite3", "projects"]


def test_a_second_restore_at_the_same_time_is_refused(services: Services, tmp_path: Path) -> None:
    file, settings = tmp_path / "a.tar.gz", elsewhere(services, tmp_path)
    backup(services.settings, file, progress=nothing)
    refused: list[str] = []

    def again(*_: int) -> None:
        with pytest.raises(BackupError) as raised:
            restore(settings, file, progress=nothing)
        refused.append(str(raised.value))

    restore(settings, file, progress=again)
    assert set(refused) == {f"Another restore is under way in MODEL_DIR = {settings.model_dir}."}


def test_a_database_that_a_later_release_made(services: Services, tmp_path: Path) -> None:
    import sqlite3

    from ml_backend.errors import StoreError

    copy = tmp_path / "later"
    shutil.copytree(services.settings.model_dir, copy)
    with closing(sqlite3.connect(copy / "nextmask.sqlite3")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
    backup(services.settings.model_copy(update={"model_dir": copy}), tmp_path / "a.tar.gz", progress=nothing)
    settings = elsewhere(services, tmp_path)
    with pytest.raises(StoreError, match="schema 0999"):
        restore(settings, tmp_path / "a.tar.gz", progress=nothing)
    assert list(settings.model_dir.iterdir()) == []
