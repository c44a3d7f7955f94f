"""train_if_wanted: when a training is wanted, what it is given, and which version serves afterwards.

The training process is replaced by one that writes a version at once: it is tested by itself in
tests/unit/learning/test_process.py, and together with all this in test_reconcile.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from memory_studio import MemoryStudio
from trainings import Run, Trainings, label
from wiring import LABEL_MAP, PROJECT, XML, look_at, project_of, task_of

from ml_backend.annotations.label_map import parse_label_config
from ml_backend.errors import LabelStudioUnavailable, LeaseLost, TrainingError, TrainingWaits
from ml_backend.learning.checkpoints import Version, VersionRecord
from ml_backend.projects.services import Services
from ml_backend.store import Task
from ml_backend.worker.train import RETRY_SECONDS, changed_labels, train_if_wanted

TRAIN_AFTER = 4

pytestmark = [
    pytest.mark.usefixtures("known_project"),
    pytest.mark.studio(12),
    pytest.mark.settings(train_after=TRAIN_AFTER),
]


def unlabel(services: Services, task_ids: Sequence[int]) -> None:
    services.store.put_tasks(task_of(one, image=f"/data/upload/{one - 1}.png") for one in task_ids)


def serving(services: Services) -> int | None:
    current = services.checkpoints(PROJECT).current()
    return current.number if current else None


# -- when is it wanted? ----------------------------------------------------------------------------------------------
def test_the_first_training_waits_for_enough_labels(services: Services, run: Run) -> None:
    assert not run()
    label(services, range(1, 4))
    assert not run()
    label(services, [4])
    assert run()
    assert serving(services) == 1


def test_on_request_one_label_is_enough_and_none_is_too_few(services: Services, run: Run) -> None:
    services.store.wake(PROJECT, train=True)
    assert not run()
    assert project_of(services).train_requested_at is not None  # it waits for a label
    label(services, [1])
    assert run()
    assert project_of(services).train_requested_at is None


@pytest.mark.usefixtures("trained")
def test_nothing_is_trained_twice_on_the_same_labels(services: Services, run: Run, trainings: Trainings) -> None:
    assert not run()
    assert not run()
    assert len(trainings.jobs) == 1


def new(services: Services) -> None:
    label(services, range(5, 9))


def too_few_new(services: Services) -> None:
    label(services, range(5, 8))


def changed(services: Services) -> None:
    label(services, range(1, 5), "second")


def deleted(services: Services) -> None:
    label(services, range(5, 7))
    unlabel(services, range(1, 3))


def too_few_deleted(services: Services) -> None:
    unlabel(services, range(1, 4))


def mixed(services: Services) -> None:
    label(services, range(5, 7))  # two new
    label(services, [1], "second")  # one changed
    unlabel(services, [2])  # one gone


def all_deleted(services: Services) -> None:
    unlabel(services, range(1, 5))


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("happens", "wanted"),
    [
        (new, True),
        (too_few_new, False),
        (changed, True),
        (deleted, True),
        (too_few_deleted, False),
        (mixed, True),
        (all_deleted, False),
    ],
)
def test_new_changed_and_deleted_labels_count(
    services: Services, run: Run, happens: Callable[[Services], None], wanted: bool
) -> None:
    happens(services)
    assert run() is wanted
    assert serving(services) == (2 if wanted else 1)


@pytest.mark.usefixtures("trained")
def test_a_request_trains_again_and_only_once(services: Services, run: Run, trainings: Trainings) -> None:
    services.store.wake(PROJECT, train=True)
    services.store.update_project(PROJECT, train_requested_at=time.time() + 2)  # well after version 1 was made
    assert run()
    services.store.update_project(PROJECT, train_requested_at=None)
    assert not run()
    assert len(trainings.jobs) == 2


@pytest.mark.usefixtures("trained")
def test_a_request_that_a_version_answers_already_is_done_with(
    services: Services, run: Run, trainings: Trainings
) -> None:
    # The worker died after the training, before it could note that.
    made = services.checkpoints(PROJECT).get(1).record.created_at
    before = datetime.fromisoformat(made).timestamp() - 10
    services.store.update_project(PROJECT, train_requested_at=before)
    assert not run()
    assert project_of(services).train_requested_at is None
    assert len(trainings.jobs) == 1


@pytest.mark.usefixtures("trained")
def test_a_request_after_that_version_on_other_labels_is_not_answered_by_it(services: Services, run: Run) -> None:
    label(services, [5])
    services.store.update_project(PROJECT, train_requested_at=datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp())
    assert run()


@pytest.mark.usefixtures("trained")
def test_a_request_during_a_training_is_kept_for_the_next(services: Services, run: Run, trainings: Trainings) -> None:
    new(services)
    trainings.meanwhile = lambda: services.store.wake(PROJECT, train=True)
    assert run()
    assert project_of(services).train_requested_at is not None


def test_a_version_tells_why_it_was_trained(services: Services, run: Run, trainings: Trainings) -> None:
    label(services, range(1, 5))
    assert run()
    label(services, range(5, 9))
    assert run()
    services.store.wake(PROJECT, train=True)
    services.store.update_project(PROJECT, train_requested_at=time.time() + 2)
    assert run()
    services.store.update_project(PROJECT, train_requested_at=None)
    assert run(parse_label_config(XML.replace('<Label value="cell"/>', '<Label value="vessel"/>')))
    assert run(parse_label_config(XML.replace('<Label value="cell"/>', '<Label value="vessel"/>')), input_size=64)
    assert [job.trigger for job in trainings.jobs] == [
        "The first 4 labels were there.",
        "4 labels were new, changed or gone since version 1.",
        "A person asked for it.",
        "The classes of the project changed after version 3.",
        "The settings of the network changed after version 4.",
    ]


OTHER_NETWORKS: list[dict[str, Any]] = [
    {"architecture": "linknet"},
    {"encoder": "mobilenet_v2"},
    {"input_size": 64},
    {"network_options": {"decoder_channels": [64, 32, 16, 16, 8]}},
]


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("settings", OTHER_NETWORKS)
def test_another_network_is_trained_on_the_next_change_of_labels(
    services: Services, run: Run, settings: dict[str, Any]
) -> None:
    label(services, [5])
    assert not run()
    assert run(**settings)


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("settings", OTHER_NETWORKS)
def test_another_network_is_trained_without_any_change_of_labels(run: Run, settings: dict[str, Any]) -> None:
    assert run(**settings)
    assert not run(**settings)


@pytest.mark.usefixtures("trained")
def test_other_effort_alone_is_no_reason(run: Run) -> None:
    assert not run(iterations=7, learning_rate=0.01, seed=9)


@pytest.mark.usefixtures("trained")
def test_other_classes_are_trained_at_once(services: Services, run: Run, trainings: Trainings) -> None:
    more = parse_label_config(XML.replace('<Label value="cell"/>', '<Label value="cell"/><Label value="vessel"/>'))
    assert run(more)
    assert trainings.jobs[-1].classes == ("background", "cell", "vessel", "nucleus")
    assert not run(more)


# -- trainings that fail ---------------------------------------------------------------------------------------------
def test_a_failed_training_is_noted_and_pauses(services: Services, run: Run, trainings: Trainings) -> None:
    label(services, range(1, 5))
    trainings.fails = "the disk is full"
    with pytest.raises(TrainingError, match="the disk is full"):
        run()
    noted = project_of(services)
    assert noted.train_error == "the disk is full"
    assert noted.retry_at is not None
    assert noted.retry_at > time.time() + RETRY_SECONDS / 2
    assert not run()  # the pause
    services.store.update_project(PROJECT, retry_at=time.time() - 1)
    trainings.fails = ""
    assert run()
    assert project_of(services).train_error == ""
    told = [(event.kind, event.level) for event in reversed(services.store.events(PROJECT))]
    assert told == [("training_failed", "error"), ("trained", "info"), ("published", "info")]


def test_other_labels_end_the_pause(services: Services, run: Run, trainings: Trainings) -> None:
    label(services, range(1, 5))
    trainings.fails = "a bad mask"
    with pytest.raises(TrainingError):
        run()
    label(services, [1], "mended")
    trainings.fails = ""
    assert run()


def test_mended_settings_end_the_pause(services: Services, run: Run, trainings: Trainings) -> None:
    label(services, range(1, 5))
    trainings.fails = "unknown encoder 'resnt18'"
    with pytest.raises(TrainingError):
        run(encoder="resnt18")
    assert not run(encoder="resnt18")
    trainings.fails = ""
    assert run(encoder="resnet18")


def test_a_request_ends_the_pause(services: Services, run: Run, trainings: Trainings) -> None:
    label(services, range(1, 5))
    trainings.fails = "out of memory"
    with pytest.raises(TrainingError):
        run()
    trainings.fails = ""
    services.store.wake(PROJECT, train=True)
    assert run()


def test_a_failed_request_is_answered_by_its_failure(services: Services, run: Run, trainings: Trainings) -> None:
    label(services, [1])
    services.store.wake(PROJECT, train=True)
    trainings.fails = "out of memory"
    with pytest.raises(TrainingError):
        run()
    assert project_of(services).train_requested_at is None
    assert not run()


def test_a_request_during_a_training_that_fails_is_kept(services: Services, run: Run, trainings: Trainings) -> None:
    label(services, range(1, 5))
    trainings.fails = "killed"
    trainings.meanwhile = lambda: services.store.wake(PROJECT, train=True)
    with pytest.raises(TrainingError):
        run()
    trainings.fails = ""
    assert run()


def test_a_lost_lease_ends_it_without_a_note(services: Services, run: Run) -> None:
    label(services, range(1, 5))

    def heartbeat() -> None:
        raise LeaseLost("gone")

    with pytest.raises(LeaseLost):
        run(check=heartbeat)
    assert (project_of(services).train_error, project_of(services).failed_digest) == ("", "")
    assert run()  # by whoever holds it now


# -- what it is given ------------------------------------------------------------------------------------------------
def test_the_job_holds_labels_settings_and_parent(services: Services, run: Run, trainings: Trainings) -> None:
    label(services, range(1, 5))
    stages: list[tuple[str, int, int]] = []
    run(stages=stages, iterations=33, encoder="resnet18", dropout=0.3)
    (job,) = trainings.jobs
    assert [(item.id, item.digest, item.held_out) for item in job.items] == [
        *(("1", "first", False), ("2", "first", False), ("3", "first", False), ("4", "first", True))
    ]
    assert all(item.image.exists() for item in job.items)  # fetched
    assert [str(item.mask) for item in job.items] == [f"/masks/{one}.png" for one in range(1, 5)]
    assert (job.classes, job.label_map_digest, job.parent) == (LABEL_MAP.classes, LABEL_MAP.digest, None)
    assert (job.iterations, job.encoder, job.dropout, job.device) == (33, "resnet18", 0.3, "cpu")
    assert ("fetching images", 4, 4) in stages
    assert stages[-1] == ("training", 1, 2)
    label(services, range(5, 9))
    run(iterations=33, encoder="resnet18")
    assert trainings.jobs[-1].parent == 1


def test_tasks_of_one_image_share_its_file(services: Services, run: Run, trainings: Trainings) -> None:
    label(services, range(1, 5))
    twin = replace(services.store.tasks(PROJECT)[0], task_id=50, mask_file="/masks/50.png")
    services.store.put_tasks([twin])
    run()
    images = {item.id: item.image for item in trainings.jobs[0].items}
    assert len(images) == 5
    assert images["1"] == images["50"]


def test_an_image_that_cannot_be_had_is_noted_and_left_out(
    services: Services, studio: MemoryStudio, run: Run, trainings: Trainings
) -> None:
    label(services, range(1, 6))
    del studio.files["/data/upload/2.png"]
    assert run()
    assert [item.id for item in trainings.jobs[0].items] == ["1", "2", "4", "5"]
    (failed,) = (task for task in services.store.tasks(PROJECT) if task.error)
    assert failed.task_id == 3
    assert "cannot be fetched" in failed.error


def test_only_one_training_runs_on_a_device_and_nobody_is_kept_waiting(services: Services, run: Run) -> None:
    label(services, range(1, 5))
    with services.turns.take(PROJECT + 1):
        with pytest.raises(TrainingWaits):
            run()
        assert serving(services) is None
    assert project_of(services).failed_digest == ""
    assert run()


def test_a_host_that_is_away_takes_no_label_out_of_a_training(
    services: Services, studio: MemoryStudio, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> NoReturn:
        raise LabelStudioUnavailable("Label Studio did not answer")

    label(services, range(1, 5))
    reference = "/data/upload/2.png"
    content = studio.files.pop(reference)
    monkeypatch.setattr(studio, "whoami", away)
    with pytest.raises(LabelStudioUnavailable):
        run()
    assert services.checkpoints(PROJECT).latest() is None
    assert not any(task.error for task in services.store.tasks(PROJECT))
    studio.files[reference] = content
    assert run()
    assert len(services.checkpoints(PROJECT).get(1).record.labels) == 4


# -- which version serves --------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("trained")
def test_a_rejected_version_is_kept_and_does_not_serve(services: Services, run: Run, trainings: Trainings) -> None:
    new(services)
    trainings.accepted = False
    assert run()
    assert serving(services) == 1
    assert project_of(services).decided_model == 2
    assert [version.number for version in services.checkpoints(PROJECT).versions()] == [1, 2]
    assert not run()  # the same labels are not tried again
    told = [(event.kind, event.level) for event in services.store.events(PROJECT)]
    assert told.count(("kept_back", "warning")) == 1


@pytest.mark.usefixtures("trained")
def test_a_version_whose_worker_died_right_after_training_is_published(services: Services, run: Run) -> None:
    checkpoints = services.checkpoints(PROJECT)
    checkpoints.create(checkpoints.get(1).record, {"weight": torch.ones(1)})
    assert serving(services) == 1
    assert not run()
    assert serving(services) == 2
    assert project_of(services).decided_model == 2


@pytest.mark.usefixtures("trained")
def test_a_rollback_is_not_undone(services: Services, run: Run) -> None:
    new(services)
    run()
    services.checkpoints(PROJECT).rollback()
    assert serving(services) == 1
    assert not run()
    assert serving(services) == 1
    label(services, range(9, 13))
    assert run()  # but a newer version is
    assert serving(services) == 3


def test_an_unknown_project_trains_nothing(services: Services, trainings: Trainings) -> None:
    assert not train_if_wanted(look_at(services, 999))
    assert trainings.jobs == []


# -- counting --------------------------------------------------------------------------------------------------------
def version(labels: dict[str, str], skipped: dict[str, str]) -> Version:
    record = VersionRecord(classes=("a",), label_map_digest="", data_digest="", labels=labels, skipped=skipped)
    return Version(1, Path("unused"), record, 0, "")


def labelled(**digests: str) -> list[Task]:
    return [task_of(int(key[1:]), status="labelled", label_digest=digest) for key, digest in digests.items()]


@pytest.mark.parametrize(
    ("now", "count"),
    [
        (labelled(t1="a", t2="b", t3="c"), 0),
        (labelled(t1="a", t2="x", t3="c"), 1),  # changed
        (labelled(t1="a", t3="c"), 1),  # gone
        (labelled(t1="a", t2="b", t3="c", t4="d", t5="e"), 2),  # new
        (labelled(t1="x", t4="d"), 4),
        ([], 3),
    ],
)
def test_labels_are_counted_by_what_a_version_learned(now: list[Task], count: int) -> None:
    # label 3 could not be used: it is no news that it is still there
    trained = version({"1": "a", "2": "b"}, {"3": "damaged"})
    assert changed_labels(trained, now) == count
    there = {task.task_id for task in now}
    waiting = [task_of(one, status="unavailable") for one in (1, 2, 3, 9) if one not in there]
    assert changed_labels(trained, now, waiting) == count - len({1, 2, 3} - there)
