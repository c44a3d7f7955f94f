"""Model versions on disk: whole or not at all, whatever happens to the writer or to the files."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from ml_backend.errors import CheckpointError
from ml_backend.learning.checkpoints import Checkpoints, Version, VersionRecord

STATE = {"weight": torch.arange(12.0).reshape(3, 4), "count": torch.tensor(7)}
RECORD = VersionRecord(
    classes=("background", "cell"),
    label_map_digest="map",
    data_digest="data",
    labels={"1": "a", "2": "b"},
    skipped={"3": "no image"},
    held_out=("2",),
    measures={"miou": 0.5, "iou": {"background": 0.7, "cell": None}},
    settings={"architecture": "unet"},
    reason="first version",
)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "models")


def make(checkpoints: Checkpoints, count: int = 1, *, accepted: bool = True, publish: bool = False) -> list[Version]:
    made = [checkpoints.create(dataclasses.replace(RECORD, accepted=accepted), STATE) for _ in range(count)]
    if publish:
        checkpoints.publish(made[-1].number)
    return made


def current_number(checkpoints: Checkpoints) -> int | None:
    version = Checkpoints(checkpoints.folder).current()
    return version.number if version else None


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_an_empty_folder_has_no_versions(checkpoints: Checkpoints) -> None:
    assert checkpoints.versions() == []
    assert checkpoints.damaged() == {}
    assert checkpoints.current() is None
    assert checkpoints.latest() is None
    assert not checkpoints.folder.exists()  # reading writes nothing


def test_what_is_written_is_read_again(checkpoints: Checkpoints) -> None:
    (version,) = make(checkpoints)
    read = Checkpoints(checkpoints.folder).get(1)
    assert read == version
    assert dataclasses.replace(read.record, number=0, created_at="") == RECORD
    assert read.record.created_at.endswith("+00:00")
    state = checkpoints.load_state(read)
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)
    assert sorted(path.name for path in version.weights.parent.iterdir()) == ["version.json", "weights.safetensors"]


def test_tensors_of_any_layout_can_be_stored(checkpoints: Checkpoints) -> None:
    images = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state = {"a": images, "b": images, "c": images.requires_grad_()[:, 1]}
    stored = checkpoints.load_state(checkpoints.create(RECORD, state))
    assert all(torch.equal(stored[name], state[name]) for name in state)


def test_creating_does_not_publish(checkpoints: Checkpoints) -> None:
    make(checkpoints, 2)
    assert checkpoints.current() is None
    checkpoints.publish(1)
    assert current_number(checkpoints) == 1
    latest = checkpoints.latest()
    assert latest is not None
    assert latest.number == 2


def test_publishing_what_is_not_there_is_refused(checkpoints: Checkpoints) -> None:
    make(checkpoints, 2)
    with pytest.raises(CheckpointError, match=r"Version 9 cannot be used: there is no such version.*: 1, 2\."):
        checkpoints.publish(9)


def test_rollback_goes_to_the_accepted_version_before(checkpoints: Checkpoints) -> None:
    make(checkpoints)
    make(checkpoints, accepted=False)
    make(checkpoints, publish=True)
    assert checkpoints.rollback().number == 1
    assert current_number(checkpoints) == 1
    with pytest.raises(CheckpointError, match=r"no earlier accepted version to go back to \(version 1 serves\)"):
        checkpoints.rollback()
    assert checkpoints.rollback(2).number == 2  # a person may insist
    assert current_number(checkpoints) == 2


def test_rollback_before_anything_is_published(checkpoints: Checkpoints) -> None:
    with pytest.raises(CheckpointError, match="none is published"):
        checkpoints.rollback()


def test_numbers_are_never_given_twice(checkpoints: Checkpoints) -> None:
    make(checkpoints, 3)
    subprocess.run(["rm", "-r", str(checkpoints.folder / "versions" / "3")], check=True)
    assert [version.number for version in make(checkpoints)] == [4]
    (checkpoints.folder / "last_number").unlink()
    assert [version.number for version in make(Checkpoints(checkpoints.folder))] == [5]


@pytest.mark.parametrize("harm", ["truncated", "missing", "changed"])
def test_a_damaged_version_is_not_served(checkpoints: Checkpoints, harm: str) -> None:
    _, second = make(checkpoints, 2, publish=True)
    if harm == "truncated":
        os.truncate(second.weights, second.size - 1)
    elif harm == "missing":
        second.weights.unlink()
    else:
        flip_a_byte(second.weights)
    assert current_number(checkpoints) == 1
    with pytest.raises(CheckpointError, match=r"version 2|Version 2"):
        checkpoints.load_state(second)
    with pytest.raises(CheckpointError, match=r"Version 2 .*Good versions here: 1"):
        checkpoints.publish(2)


def test_damage_that_shows_without_reading_the_weights_is_reported(checkpoints: Checkpoints) -> None:
    versions = make(checkpoints, 5)
    os.truncate(versions[0].weights, 10)
    (versions[1].weights.parent / "version.json").write_text('{"format": 1, "rec')
    versions[2].weights.unlink()
    record = versions[3].weights.parent / "version.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"format": 2}))
    assert [version.number for version in checkpoints.versions()] == [5]
    damaged = checkpoints.damaged()
    assert f"has 10 bytes instead of {versions[0].size}" in damaged[1]
    assert "version.json cannot be read" in damaged[2]
    assert damaged[3] == "weights.safetensors is missing"
    assert "written by another release" in damaged[4]


def test_a_version_that_was_copied_over_another_is_damaged(checkpoints: Checkpoints) -> None:
    first, _ = make(checkpoints, 2)
    first.weights.parent.rename(checkpoints.folder / "versions" / "7")
    assert checkpoints.damaged() == {7: "its record is that of version 1"}


def test_the_stand_in_is_accepted_and_older_if_there_is_one(checkpoints: Checkpoints) -> None:
    make(checkpoints)
    make(checkpoints, accepted=False)
    (third,) = make(checkpoints, publish=True)
    make(checkpoints)  # never published: not decided yet
    flip_a_byte(third.weights)
    assert current_number(checkpoints) == 1
    flip_a_byte(checkpoints.get(1).weights)
    assert current_number(checkpoints) == 4


def test_a_damaged_pointer_falls_back_to_the_newest(checkpoints: Checkpoints) -> None:
    make(checkpoints, 3, publish=True)
    (checkpoints.folder / "current").write_bytes(b"\xff\x00")
    assert current_number(checkpoints) == 3


def test_a_pointer_to_nothing_good(checkpoints: Checkpoints) -> None:
    (version,) = make(checkpoints, publish=True)
    flip_a_byte(version.weights)
    assert current_number(checkpoints) is None


def test_foreign_files_are_left_alone(checkpoints: Checkpoints) -> None:
    make(checkpoints)
    notes = checkpoints.folder / "versions" / "notes.txt"
    notes.write_text("mine")
    make(checkpoints)
    assert notes.read_text() == "mine"
    assert [version.number for version in checkpoints.versions()] == [1, 2]


def test_what_a_killed_writer_left_is_removed_by_the_next(checkpoints: Checkpoints) -> None:
    make(checkpoints)
    (checkpoints.folder / "last_number").write_text("2\n")  # taken by the killed one
    left = checkpoints.folder / "versions" / ".unfinished-2"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    (checkpoints.folder / ".current").write_text("")
    assert [version.number for version in checkpoints.versions()] == [1]
    assert checkpoints.damaged() == {}
    assert [version.number for version in make(checkpoints, publish=True)] == [3]
    assert not left.exists()
    assert current_number(checkpoints) == 3


def test_a_full_disk_leaves_nothing(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    make(checkpoints)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            make(checkpoints)
        with pytest.raises(CheckpointError, match=r"Version 1 cannot be published: .*No space left"):
            checkpoints.publish(1)
    assert [path.name for path in (checkpoints.folder / "versions").iterdir()] == ["1"]


WRITER = """
import sys, torch
from pathlib import Path
from ml_backend.learning.checkpoints import Checkpoints, VersionRecord
record = VersionRecord(("a", "b"), "map", "data")
state = {"weight": torch.zeros(500_000)}
print("ready", flush=True)
while True:
    Checkpoints(Path(sys.argv[1])).create(record, state)
"""


def test_a_writer_killed_anywhere_leaves_only_whole_versions(checkpoints: Checkpoints) -> None:
    root = str(Path(__file__).parents[3])
    numbers: list[int] = []
    for delay in (0.05, 0.11):
        command = [sys.executable, "-c", WRITER, str(checkpoints.folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            while not checkpoints.versions():
                time.sleep(0.01)
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        assert checkpoints.damaged() == {}
        for version in checkpoints.versions():
            checkpoints.load_state(version)
        assert set(numbers) <= {version.number for version in checkpoints.versions()}
        numbers = [version.number for version in checkpoints.versions()]
    (version,) = make(checkpoints)
    assert version.number > max(numbers)
    assert not list((checkpoints.folder / "versions").glob(".*"))


def test_readers_see_only_whole_versions_while_one_writes(checkpoints: Checkpoints) -> None:
    make(checkpoints, publish=True)
    stop = threading.Event()

    def read() -> list[int]:
        seen: list[int] = []
        while not stop.is_set():
            reader = Checkpoints(checkpoints.folder)
            assert reader.damaged() == {}
            current = reader.current()
            assert current is not None
            reader.load_state(current)
            seen.append(current.number)
        return seen

    with ThreadPoolExecutor() as pool:
        reader = pool.submit(read)
        for _ in range(20):
            make(checkpoints, publish=True)
        stop.set()
        seen = reader.result()
    assert seen
    assert seen == sorted(seen)
    assert current_number(checkpoints) == 21


def test_two_writers_do_not_share_a_number(checkpoints: Checkpoints) -> None:
    def write() -> list[int]:
        return [version.number for version in make(Checkpoints(checkpoints.folder), 5)]

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write) for _ in range(2)]
        numbers = [number for writer in writers for number in writer.result()]
    assert sorted(numbers) == list(range(1, 11))


def test_reading_records_needs_no_torch(checkpoints: Checkpoints) -> None:
    make(checkpoints, publish=True)
    code = (
        "import sys; from pathlib import Path; from ml_backend.learning.checkpoints import Checkpoints\n"
        "version = Checkpoints(Path(sys.argv[1])).current(); assert version and version.number == 1\n"
        "assert 'torch' not in sys.modules and 'safetensors' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(checkpoints.folder)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[3])


# -- old versions ----------------------------------------------------------------------------------------------------
def measured(checkpoints: Checkpoints, *mious: float | None, parent: int | None = None) -> None:
    for miou in mious:
        checkpoints.create(dataclasses.replace(RECORD, measures={"miou": miou}, parent=parent), STATE)


def numbers(checkpoints: Checkpoints) -> list[int]:
    return [version.number for version in checkpoints.versions()]


def test_old_versions_are_removed_and_their_measures_stay(checkpoints: Checkpoints) -> None:
    measured(checkpoints, 0.1, 0.9, 0.3, None, 0.5, parent=None)
    measured(checkpoints, 0.6, parent=3)
    measured(checkpoints, 0.6, 0.6, 0.6)
    checkpoints.publish(6)
    before = checkpoints.history()
    assert checkpoints.remove_old(9) == []
    assert checkpoints.remove_old(2, needed=(4,)) == [1, 5, 7]
    # 2 was best, 3 is the parent of 6, which serves; 8 and 9 are the newest
    assert numbers(checkpoints) == [2, 3, 4, 6, 8, 9]
    assert checkpoints.history() == before
    assert [record.number for record in before] == list(range(1, 10))
    assert current_number(checkpoints) == 6
    assert checkpoints.damaged() == {}
    with pytest.raises(CheckpointError, match=r"Version 5 cannot be used: there is no such version\. Good versions"):
        checkpoints.get(5)
    assert not list((checkpoints.folder / "versions").glob(".*"))
    measured(checkpoints, 0.2)
    assert numbers(checkpoints)[-1] == 10, "a number is never used again"
    assert checkpoints.remove_old(1) == [4, 8, 9]


def test_a_better_version_that_was_kept_back_is_not_the_best(checkpoints: Checkpoints) -> None:
    checkpoints.create(dataclasses.replace(RECORD, measures={"miou": 0.99}, accepted=False), STATE)
    make(checkpoints, 2, publish=True)
    assert checkpoints.remove_old(1) == [1]


def test_a_damaged_version_is_left_to_people(checkpoints: Checkpoints) -> None:
    measured(checkpoints, 0.1, 0.2, 0.3)
    (checkpoints.folder / "versions" / "1" / "weights.safetensors").write_bytes(b"half")
    assert checkpoints.remove_old(1) == [2]
    assert set(checkpoints.damaged()) == {1}


@pytest.mark.parametrize("step", ["write_file", "rename", "rmtree"])
def test_a_removal_that_is_killed_goes_on_later(
    step: str, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(checkpoints, 0.1, 0.2, 0.3)
    history = checkpoints.history()

    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if step == "write_file":
            patch.setattr("ml_backend.system.files.write_file", kill)
        if step == "rename":
            patch.setattr(Path, "rename", kill)
        patch.setattr("shutil.rmtree", kill)
        with pytest.raises(Killed):
            checkpoints.remove_old(1)
    assert checkpoints.history() == history
    assert checkpoints.damaged() == {}
    checkpoints.remove_old(1)
    make(checkpoints)
    assert numbers(checkpoints) == [3, 4]
    assert not list((checkpoints.folder / "versions").glob(".*"))
    assert [record.number for record in checkpoints.history()] == [1, 2, 3, 4]
