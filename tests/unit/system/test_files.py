"""Files by key: a folder and an object store keep the same promises; what only a store can get wrong stands below."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from full_disks import SmallDisk

from ml_backend.errors import DiskFull, FilesUnavailable
from ml_backend.system import bucket as buckets
from ml_backend.system.bucket import Bucket
from ml_backend.system.files import Files, Folder

MASK = "projects/7/masks/12-0123456789abcdef0123.png"
"""Named after its content, as masks are."""
MODEL = "projects/7/model"


class Killed(BaseException):
    pass


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    """A place of its own in the object store that fsspec keeps in the memory of a process."""
    return Bucket(f"memory://nextmask/{uuid4().hex}", tmp_path / "cache", 10**6)


@pytest.fixture(params=["folder", "bucket"])
def files(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Files:
    return bucket if request.param == "bucket" else Folder(tmp_path / "files")


# -- both ------------------------------------------------------------------------------------------------------------
def test_what_is_written_is_read(files: Files) -> None:
    assert files.write_once(MASK, b"a mask") == MASK
    files.write(f"{MODEL}/history/3.json", b"{}")
    assert (files.read(MASK), files.local(MASK).read_bytes()) == (b"a mask", b"a mask")
    assert files.below(MODEL).read("history/3.json") == b"{}"
    assert files.state(f"{MODEL}/history/3.json").size == 2
    assert files.names("projects/7") == ["masks", "model"]
    assert files.names("projects/7/masks") == [MASK.rpartition("/")[2]]
    assert files.below(MODEL).names() == ["history"]
    assert files.names("projects/8") == []


def test_a_file_that_is_replaced_is_another(files: Files) -> None:
    key = f"{MODEL}/committees/1/committee.json"
    files.write(key, b"old")
    before = files.state(key)
    assert files.read(key) == b"old"
    time.sleep(0.002)  # a file system's clock may tick as slowly
    files.write(key, b"new")
    assert files.state(key) != before
    assert files.read(key) == b"new"


def test_what_is_not_there(files: Files) -> None:
    for key in (MASK, f"{MODEL}/versions/1/version.json"):
        with pytest.raises(FileNotFoundError):
            files.read(key)
        files.remove(key)
    with pytest.raises(FileNotFoundError):
        files.state(f"{MODEL}/versions/1/version.json")
    files.remove_together(f"{MODEL}/versions/1")


def test_files_that_are_written_together_appear_together(files: Files) -> None:
    model = files.below(MODEL)

    def half() -> object:
        yield "weights.safetensors", b"weights"
        raise Killed

    with suppress(Killed), model.writing("versions"):
        model.write_together("versions/1", half())  # type: ignore[arg-type]
    assert model.names("versions") == []
    with model.writing("versions"):
        model.write_together("versions/1", [("weights.safetensors", b"weights"), ("version.json", b"{}")])
    assert model.names("versions") == ["1"]
    assert model.names("versions/1") == ["version.json", "weights.safetensors"]
    with model.writing("versions"):
        model.write_together("versions/1", [("version.json", b"{1}")])  # in its place
    assert (model.names("versions/1"), model.read("versions/1/version.json")) == (["version.json"], b"{1}")
    model.remove_together("versions/1")
    assert model.names("versions") == []


def test_numbers_are_taken_for_ever(files: Files) -> None:
    model = files.below(MODEL)
    assert model.highest("last_number") == 0
    with model.writing("versions"):
        assert model.take("last_number", 9)
        assert model.take("last_number", 10)
    assert model.highest("last_number") == 10


def test_a_program_works_on_a_copy_and_what_it_leaves_is_kept(files: Files, tmp_path: Path) -> None:
    key = "projects/7/strategy/vaal-1.pt"
    (tmp_path / "files" / "projects" / "7" / "strategy").mkdir(parents=True)  # where strategies make theirs
    with files.working_copy(key) as path:
        assert not path.exists()
        path.write_bytes(b"learned")
    with suppress(Killed), files.working_copy(key) as path:
        assert path.read_bytes() == b"learned"
        path.write_bytes(b"learned more")
        raise Killed
    assert files.read(key) == b"learned more"
    with files.working_copy(key) as path:
        assert path.read_bytes() == b"learned more"


def stored(bucket: Bucket) -> list[str]:
    """What the object store holds, without nextmask's help."""
    return [path for path in fsspec.filesystem("memory").store if path.startswith(bucket.url.removeprefix("memory:/"))]


# -- an object store -------------------------------------------------------------------------------------------------
def test_a_number_that_another_has_taken_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    other = Bucket(bucket.url, tmp_path / "another machine", 10**6)
    assert bucket.take("last_number", 1)
    assert not other.take("last_number", 1)
    assert other.take("last_number", 2)
    assert bucket.highest("last_number") == 2


def test_a_store_that_lets_two_writers_make_one_object_is_refused(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.try_out()
    assert bucket.names() == []
    system = bucket._store.system
    pipe = system.pipe_file
    monkeypatch.setattr(system, "pipe_file", lambda path, content, **_: pipe(path, content))
    with pytest.raises(FilesUnavailable, match="If-None-Match"):
        bucket.try_out()
    assert bucket.names() == []


def test_a_missing_file_is_not_a_missing_bucket_whatever_they_are_called(tmp_path: Path) -> None:
    files = Bucket(f"memory://my-bucket/{uuid4().hex}", tmp_path / "cache", 10**6)
    with pytest.raises(FileNotFoundError):
        b"".join(files._fetched("projects/7/masks/container.png", None))


def test_numbers_that_a_folder_had_taken_are_taken_in_the_bucket_that_it_was_copied_to(bucket: Bucket) -> None:
    bucket.write("last_number", b"9\n")
    assert bucket.highest("last_number") == 9
    assert bucket.take("last_number", 10)
    assert bucket.highest("last_number") == 10


def test_what_another_machine_writes_is_seen_at_once_and_what_it_removes_soon(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Bucket(bucket.url, tmp_path / "another machine", 10**6)
    key = f"{MODEL}/versions/1/version.json"
    with pytest.raises(FileNotFoundError):
        bucket.read(key)
    other.write(key, b"{}")
    assert bucket.read(key) == b"{}"
    other.remove(key)
    monkeypatch.setattr(buckets, "LISTED_SECONDS", 0.0)
    assert bucket.names(f"{MODEL}/versions") == []


def test_what_a_killed_writer_left_is_removed_after_an_hour(bucket: Bucket) -> None:
    model = bucket.below(MODEL)
    model.write("versions/1/weights.safetensors", b"weights without a record")
    with model.writing("versions"):
        assert len(stored(bucket)) == 1, "its writer may still be at work"
    fsspec.filesystem("memory").store[stored(bucket)[0]].created = datetime.now(timezone.utc) - timedelta(hours=2)
    with model.writing("versions"):
        assert stored(bucket) == []


def test_what_was_read_is_kept_within_bounds(bucket: Bucket, tmp_path: Path) -> None:
    small = Bucket(bucket.url, tmp_path / "small", 1000)
    keys = [f"projects/7/masks/{number}-{number:020x}.png" for number in range(1, 9)]
    for number, key in enumerate(keys):
        bucket.write_once(key, bytes([number]) * 300)
    for key in keys:
        small.read(key)
        time.sleep(0.002)
    kept = list((tmp_path / "small").glob("*.file"))
    assert sum(file.stat().st_size for file in kept) <= 1000
    assert small.local(keys[-1]) in kept, "what was used last stays"
    assert [small.read(key)[0] for key in keys] == list(range(8)), "what left is fetched again"


def test_what_is_kept_needs_no_store(bucket: Bucket) -> None:
    bucket.write_once(MASK, b"a mask")
    fsspec.filesystem("memory").rm(bucket.url.removeprefix("memory:/"), recursive=True)
    assert bucket.read(MASK) == b"a mask"


def test_a_fetch_that_is_killed_is_not_seen(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    key = f"{MODEL}/versions/1/weights.safetensors"
    bucket.write(key, bytes(10))
    monkeypatch.setattr(buckets, "AT_ONCE", 4)
    memory = type(fsspec.filesystem("memory"))
    fetch = memory.cat_file

    def killed(self: object, path: str, start: int | None = None, **options: object) -> bytes:
        if start:
            raise Killed
        return bytes(fetch(self, path, start=start, **options))

    with monkeypatch.context() as patch:
        patch.setattr(memory, "cat_file", killed)
        with pytest.raises(Killed):
            bucket.local(key)
    assert list(bucket.cache.glob("*.file")) == []
    assert bucket.read(key) == bytes(10), "large files are fetched in parts"


def test_a_full_disk_keeps_nobody_from_reading(bucket: Bucket, disk: SmallDisk) -> None:
    bucket.write_once(MASK, b"a mask" * 10_000)
    full = Bucket(bucket.url, disk.folder / "cache", 10**9)
    (disk.folder / "cache").mkdir()
    disk.fill()
    assert full.read(MASK) == b"a mask" * 10_000
    with pytest.raises(DiskFull, match=r"Disk full: .* under MODEL_DIR"):
        full.local(MASK)
    disk.free()
    assert full.local(MASK).stat().st_size == 60_000
    assert list((disk.folder / "cache").iterdir()) == [full.local(MASK)]


def test_a_driver_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as where it is missing
    with pytest.raises(FilesUnavailable, match=r"gs://scans/x needs a package .*: pip install 'nextmask\[gs\]'"):
        Bucket("gs://scans/x", tmp_path, 10**6).names()
