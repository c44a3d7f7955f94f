"""Ensembles: trained on resamples in the training process, killed in the middle, written whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from processes import children
from small_training import noise_items, same_weights
from torch import Tensor

from ml_backend.errors import CheckpointError, TrainingError
from ml_backend.learning.checkpoints import Checkpoints, VersionRecord
from ml_backend.learning.prediction.committees import load_ensemble
from ml_backend.learning.training import Job, Progress, train
from ml_backend.learning.training import process as training_process
from ml_backend.learning.training.data import Samples

NETWORK: dict[str, Any] = {"architecture": "unet", "encoder": "mobilenet_v2", "dropout": 0.1, "input_size": 32}
STATE = {"weight": torch.arange(12.0)}
RECORD = {"labels": {"1": "a"}, "settings": {"seed": 0}}


def make_job(folder: Path, **changes: Any) -> Job:
    """Six images of noise, two of them held out, on the smallest network; version 1 is there."""
    folder.mkdir(exist_ok=True)
    job = Job(
        items=noise_items(folder, 6, held_out=2),
        classes=("a", "b"),
        label_map_digest="map",
        data_digest="data",
        folder=folder / "models",
        **NETWORK | {"encoder_weights": "none", "iterations": 2, "batch_size": 2, "device": "cpu"},
    )
    if Checkpoints(job.folder).latest() is None:
        Checkpoints(job.folder).create(VersionRecord(("a", "b"), "map", "data", settings=NETWORK), STATE)
    return dataclasses.replace(job, **{"committee_of": 1, "members": 3} | changes)


def states_of(job: Job) -> list[dict[str, Tensor]]:
    found = Checkpoints(job.folder).committees.load(1)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, list[Progress]]:
    job, shown = make_job(tmp_path_factory.mktemp("trained")), list[Progress]()
    assert train(job, shown.append).number == 1
    return job, shown


# -- training ---------------------------------------------------------------------------------------------------------


def test_members_differ_and_learned_from_different_resamples(trained: tuple[Job, list[Progress]]) -> None:
    job, _ = trained
    states = states_of(job)
    head = "model.segmentation_head.0.weight"
    assert not any(torch.equal(states[a][head], states[b][head]) for a in range(3) for b in range(a))
    record = Checkpoints(job.folder).committees.record(1)
    assert record is not None
    assert len({tuple(sorted(resample)) for resample in record["resamples"]}) == 3
    assert load_ensemble(Checkpoints(job.folder), Checkpoints(job.folder).get(1), torch.device("cpu")).members == 3


def test_resamples_are_of_the_training_items_with_replacement(trained: tuple[Job, list[Progress]]) -> None:
    record = Checkpoints(trained[0].folder).committees.record(1)
    assert record is not None
    assert all(len(resample) == 4 for resample in record["resamples"])
    assert {one for resample in record["resamples"] for one in resample} <= {"0", "1", "2", "3"}
    assert any(len(set(resample)) < 4 for resample in record["resamples"])
    assert set(record["labels"]) == {"0", "1", "2", "3"}


def test_the_network_sees_its_resample_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[str]] = []
    original = Samples.batches

    def batches(self: Samples, *arguments: Any) -> Any:
        drawn.append([item.id for item in self.items])
        return original(self, *arguments)

    monkeypatch.setattr(Samples, "batches", batches)
    job = make_job(tmp_path, iterations=1)
    train(job)
    record = Checkpoints(job.folder).committees.record(1)
    assert record is not None
    assert drawn == record["resamples"]


def test_progress_names_the_member(trained: tuple[Job, list[Progress]]) -> None:
    shown = trained[1]
    assert {step.stage for step in shown} == {"reading", "training committee"}  # nothing is measured
    assert [step for step in shown if step.stage == "reading"][-1].total == 4
    steps = [step for step in shown if step.stage == "training committee"]
    assert [(step.member, step.done) for step in steps] == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]
    assert steps[2].label == "training committee: member 2 of 3"
    assert shown[0].label == "reading"


def test_the_seed_decides(trained: tuple[Job, list[Progress]], tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    again.mkdir()
    other.mkdir()
    train(first := make_job(again))
    assert all(map(same_weights, states_of(first), states_of(trained[0])))
    train(second := make_job(other, seed=5))
    assert not any(map(same_weights, states_of(second), states_of(trained[0])))


def test_no_version_is_made(trained: tuple[Job, list[Progress]]) -> None:
    assert [version.number for version in Checkpoints(trained[0].folder).versions()] == [1]


def test_a_resample_may_lack_a_class(tmp_path: Path) -> None:
    job = make_job(tmp_path, iterations=1, members=2)
    for item in job.items[1:]:
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(item.mask)
    train(job)
    assert len(states_of(job)) == 2


def test_a_committee_of_one_or_of_no_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="at least 2 members, not 1: set NEXTMASK_MEMBERS"):
        make_job(tmp_path, members=1)
    with pytest.raises(CheckpointError, match="Version 9"):
        train(make_job(tmp_path, committee_of=9))


def test_a_job_travels_as_text(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert Job.from_json(job.to_json()) == job
    assert (job.networks, dataclasses.replace(job, committee_of=None).networks) == (3, 1)


# -- killed in the middle ---------------------------------------------------------------------------------------------


def run(job: Job, progress: Any) -> int:
    return training_process.run(job, progress=progress, heartbeat=lambda: None)


def test_killed_in_the_middle_nothing_half_written_is_used(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    whole = make_job(tmp_path / "whole")
    run(whole, lambda _: None)  # in a process of its own, too: there may be other numbers of threads here
    before, shown = set(children()), list[Progress]()

    def kill(step: Progress) -> None:
        if step.member == 2:
            (child,) = set(children()) - before
            os.kill(child, signal.SIGKILL)

    with pytest.raises(TrainingError, match="SIGKILL"):
        run(job, kill)
    found = Checkpoints(job.folder)
    assert found.committees.load(1) is None
    assert found.committees.record(1) is None
    assert run(job, shown.append) == 1
    assert {step.member for step in shown if step.member} == {2, 3}  # the first was ready
    assert all(map(same_weights, states_of(job), states_of(whole)))
    assert sorted(path.name for path in (job.folder / "committees").iterdir()) == ["1"]


def test_members_of_another_job_are_not_used(tmp_path: Path) -> None:
    job, shown = make_job(tmp_path), list[Progress]()

    def stop(step: Progress) -> None:
        if step.member == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job, stop)
    train(dataclasses.replace(job, iterations=1), shown.append)
    assert {step.member for step in shown if step.member} == {1, 2, 3}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "models")


def test_what_is_written_is_read_again(checkpoints: Checkpoints) -> None:
    assert checkpoints.committees.load(3) is None
    assert not checkpoints.folder.exists()  # reading writes nothing
    checkpoints.committees.put(3, [STATE, {"weight": torch.zeros(2)}], RECORD)
    first, second = checkpoints.committees.load(3) or []
    assert same_weights(first, STATE)
    assert same_weights(second, {"weight": torch.zeros(2)})
    record = checkpoints.committees.record(3)
    assert record is not None
    assert record.items() >= {**RECORD, "members": 2}.items()
    assert (checkpoints.folder / "committees" / "3").is_dir()


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "record"])
def test_a_damaged_committee_is_none(checkpoints: Checkpoints, damage: str) -> None:
    checkpoints.committees.put(1, [STATE, STATE], RECORD)
    path = checkpoints.folder / "committees" / "1"
    victim = path / ("committee.json" if damage == "record" else "1.safetensors")
    content = victim.read_bytes()
    victim.unlink()
    if damage == "flip":
        victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage != "remove":
        victim.write_bytes(content[: len(content) // 2])
    assert checkpoints.committees.load(1) is None
    assert checkpoints.committees.record(1) is None
    checkpoints.committees.put(1, [STATE], RECORD)
    assert len(checkpoints.committees.load(1) or []) == 1


def test_old_committees_leave(checkpoints: Checkpoints) -> None:
    for number in (1, 2, 3):
        checkpoints.committees.put(number, [STATE], RECORD)
    assert [checkpoints.committees.load(number) is not None for number in (1, 2, 3)] == [False, True, True]
    checkpoints.committees.put(1, [STATE], RECORD)  # after a rollback
    assert [checkpoints.committees.load(number) is not None for number in (1, 2, 3)] == [True, False, True]


def test_a_full_disk_leaves_what_was_there(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.committees.put(1, [STATE], RECORD)

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("ml_backend.system.files.write_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoints.committees.put(1, [STATE, STATE], RECORD)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoints.committees.keep_part(2, 0, STATE, RECORD)
    monkeypatch.undo()
    assert len(checkpoints.committees.load(1) or []) == 1
    assert checkpoints.committees.parts(2, RECORD) == {}


def test_a_part_that_cannot_be_read_is_trained_again(checkpoints: Checkpoints) -> None:
    checkpoints.committees.keep_part(1, 0, STATE, RECORD)
    checkpoints.committees.keep_part(1, 2, STATE, RECORD)
    (checkpoints.folder / "committees" / ".parts-1" / "2.safetensors").write_bytes(b"torn")
    assert list(checkpoints.committees.parts(1, RECORD)) == [0]
    assert checkpoints.committees.parts(1, {**RECORD, "labels": {}}) == {}
