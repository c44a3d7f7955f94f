"""Versions in an object store: whole or not there, never under the number of another, and removed as in a folder."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
import torch

from ml_backend.errors import CheckpointError
from ml_backend.learning.checkpoints import Checkpoints, VersionRecord
from ml_backend.learning.checkpoints.archive import archive
from ml_backend.learning.training import Job
from ml_backend.system.bucket import Bucket

SETTINGS = {"architecture": "fpn", "encoder": "resnet18", "input_size": 64, "dropout": 0.0}
RECORD = VersionRecord(
    classes=("a", "b"), label_map_digest="map", data_digest="data", measures={"miou": 0.5}, settings=SETTINGS
)
STATE = {"weight": torch.ones(3)}


class Killed(BaseException):
    pass


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(f"memory://nextmask/{uuid4().hex}", tmp_path / "cache", 10**6).below("projects/7/model")


@pytest.fixture
def checkpoints(bucket: Bucket) -> Checkpoints:
    return Checkpoints(bucket)


def numbers(checkpoints: Checkpoints) -> list[int]:
    return [version.number for version in checkpoints.versions()]


def test_versions_are_made_published_and_rolled_back(checkpoints: Checkpoints, bucket: Bucket, tmp_path: Path) -> None:
    first, second = (checkpoints.create(RECORD, {"weight": torch.full((3,), float(at))}) for at in (1, 2))
    assert checkpoints.current() is None
    checkpoints.publish(2)
    elsewhere = Checkpoints(dataclasses.replace(bucket, cache=tmp_path / "another machine"))
    serving = elsewhere.current()
    assert serving is not None
    assert (serving.number, serving.record, serving.sha256) == (2, second.record, second.sha256)
    assert torch.equal(elsewhere.load_state(serving)["weight"], torch.full((3,), 2.0))
    assert elsewhere.rollback().number == 1
    assert b"".join(archive(first)).startswith(b"PK")
    assert checkpoints.damaged() == {}


def test_a_version_without_its_record_is_not_there_and_keeps_its_number(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.create(RECORD, STATE)
    write = Bucket.write

    def kill(self: Bucket, key: str, content: bytes) -> None:
        if key.endswith("version.json"):
            raise Killed
        write(self, key, content)

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(Bucket, "write", kill)
        checkpoints.create(RECORD, STATE)
    assert (numbers(checkpoints), checkpoints.damaged()) == ([1], {})
    assert checkpoints.create(RECORD, STATE).number == 3


def test_two_writers_do_not_share_a_number(bucket: Bucket, tmp_path: Path) -> None:
    """The second took its number between the first one's look at what is taken, and its own."""
    mine, theirs = Checkpoints(bucket), Checkpoints(dataclasses.replace(bucket, cache=tmp_path / "another machine"))
    assert mine.versions() == []  # what is listed is believed for a moment
    assert theirs.create(RECORD, STATE).number == 1
    assert mine.create(RECORD, STATE).number == 2
    third = Checkpoints(dataclasses.replace(bucket, cache=tmp_path / "a third machine"))
    assert numbers(third) == [1, 2]


def test_old_versions_are_removed_and_their_records_stay(checkpoints: Checkpoints, bucket: Bucket) -> None:
    for miou in (0.1, 0.9, 0.3, 0.5):
        checkpoints.create(dataclasses.replace(RECORD, measures={"miou": miou}), STATE)
    checkpoints.publish(4)
    before = checkpoints.history()
    assert checkpoints.remove_old(1) == [1, 3]
    assert (numbers(checkpoints), checkpoints.history()) == ([2, 4], before)
    assert bucket.names("history") == ["1.json", "3.json"]
    with pytest.raises(CheckpointError, match=r"Version 3 cannot be used: there is no such version"):
        checkpoints.get(3)
    assert checkpoints.create(RECORD, STATE).number == 5


def test_a_committee_and_its_members(checkpoints: Checkpoints) -> None:
    record = {"labels": {"1": "d"}}
    checkpoints.committees.keep_part(1, 0, STATE, record)
    assert list(checkpoints.committees.parts(1, record)) == [0]
    checkpoints.committees.put(1, [STATE, STATE], record)
    assert checkpoints.committees.parts(1, record) == {}
    checkpoints.committees.put(1, [STATE, {"weight": torch.zeros(2)}], record)
    _, second = checkpoints.committees.load(1) or []
    assert torch.equal(second["weight"], torch.zeros(2))


def test_weights_that_somebody_replaced_are_damaged(checkpoints: Checkpoints, bucket: Bucket) -> None:
    version = checkpoints.create(RECORD, STATE)
    bucket.write("versions/1/weights.safetensors", bytes(version.size))
    with pytest.raises(CheckpointError, match="weights of version 1 are damaged"):
        checkpoints.load_state(version)
    bucket.write("versions/1/weights.safetensors", b"short")
    assert "has 5 bytes" in checkpoints.damaged()[1]


def test_a_job_names_the_bucket(bucket: Bucket) -> None:
    job = Job(items=(), classes=("a", "b"), label_map_digest="", data_digest="", folder=bucket)
    assert Job.from_json(json.dumps(json.loads(job.to_json()))) == job
