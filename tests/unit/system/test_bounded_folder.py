"""Folders within bounds; what is kept in them has tests of its own (images, pictures)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ml_backend.system.bounded_folder import BoundedFolder, touch


def folder(path: Path, in_use: tuple[str, ...] = ()) -> BoundedFolder:
    return BoundedFolder(path / "kept", suffix=".x", max_bytes=100, in_use=lambda: in_use)


def add(kept: BoundedFolder, key: str, size: int, used_at: float) -> Path:
    file = kept.file(key)
    with kept.adding(file) as target:
        target.write(b"x" * size)
    if file.exists():
        os.utime(file, (used_at, used_at))
    return file


def test_files_used_least_recently_go_but_none_that_is_in_use(tmp_path: Path) -> None:
    kept = folder(tmp_path, in_use=("old.x",))
    old, middle, newer = (add(kept, key, 30, at) for at, key in enumerate(("old", "middle", "newer"), start=1))
    assert touch(newer)
    newest = add(kept, "newest", 30, 9)
    assert [file.exists() for file in (old, middle, newer, newest)] == [True, False, True, True]


def test_what_fails_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    with pytest.raises(TypeError), kept.adding(kept.file("one")) as target:
        target.writelines([b"half", None])  # type: ignore[list-item]
    assert list(kept.path.iterdir()) == []
    assert not touch(kept.file("one"))


def test_what_dead_processes_left_is_removed_after_an_hour(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    kept.path.mkdir()
    left, fresh = kept.path / "a.part", kept.path / "b.part"
    for part in (left, fresh):
        part.write_bytes(b"half")
    os.utime(left, (1, 1))
    add(kept, "one", 1, 2)
    assert (left.exists(), fresh.exists()) == (False, True)
