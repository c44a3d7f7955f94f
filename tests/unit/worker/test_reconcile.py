"""reconcile as a whole, for a Label Studio in memory: real masks, real training process, real ranking."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from memory_studio import MemoryStudio
from wiring import PROJECT, URL, XML, Clock, disc, kill_at_every_check, nothing, png, project_of, region

from ml_backend.errors import (
    CheckpointError,
    ConfigurationError,
    LabelConfigError,
    LabelStudioUnavailable,
    LeaseLost,
    MaskError,
    NextmaskError,
    TrainingError,
)
from ml_backend.learning.training import process as training_process
from ml_backend.projects.services import Services
from ml_backend.projects.serving import roll_back
from ml_backend.projects.settings import is_news
from ml_backend.worker import top_up
from ml_backend.worker.reconcile import reconcile
from ml_backend.worker.sync import RETRY_IMAGES_SECONDS

QUICK = {"input_size": 32, "iterations": 6, "batch_size": 4, "train_after": 4, "queue_window": 4}
NO_TRAINING = {"train_after": 99}

pytestmark = [
    pytest.mark.usefixtures("one_thread", "known_project"),
    pytest.mark.studio(8, connected=True),
    pytest.mark.settings(**QUICK),
]


def state(services: Services, studio: MemoryStudio) -> Any:
    """All that annotators see, and what the store knows of it."""
    rows = sorted((row["task"], row["model_version"], row["score"], str(row["result"])) for row in studio.predictions)
    return rows, studio.fields["model_version"], project_of(services).published_version, project_of(services).state


# -- the main job ----------------------------------------------------------------------------------------------------
def told(services: Services) -> list[tuple[str, str]]:
    """Kind and text of all events, the oldest first."""
    return [(event.kind, event.text) for event in reversed(services.store.events(PROJECT))]


def test_from_no_label_to_a_trained_queue(services: Services, studio: MemoryStudio) -> None:
    reconcile(services, PROJECT, nothing)
    assert studio.fields["model_version"] == "nextmask-0.1"
    assert len(studio.queue()) == 4
    assert all(row["result"] == [] for row in studio.predictions)  # there is no model yet

    for task in studio.queue():
        studio.label(task)
    reconcile(services, PROJECT, nothing)
    assert studio.fields["model_version"] == "nextmask-1.2" == project_of(services).published_version
    assert len(studio.queue()) == 4
    (version,) = services.checkpoints(PROJECT).versions()
    assert len(version.record.labels) == 4
    assert (project_of(services).state, project_of(services).stage, project_of(services).error) == ("waiting", "", "")

    before = state(services, studio), len(studio.imports), told(services)
    reconcile(services, PROJECT, nothing)
    assert (state(services, studio), len(studio.imports), told(services)) == before
    assert [kind for kind, _ in told(services)] == [
        # the second time while the training runs
        *("ranked", "queue_filled", "queue_filled", "trained", "published", "ranked", "queue_filled")
    ]
    (trained,) = (text for kind, text in told(services) if kind == "trained")
    assert re.fullmatch(r"Version 1 was trained on 4 labels \(\d held out\) in \d+ s: .+\.", trained)
    assert ("queue_filled", "4 tasks were added to the queue of nextmask-1.2, which now holds 4.") in told(services)


@pytest.mark.usefixtures("served_project")
def test_the_queue_has_masks_and_the_order_of_the_ranking(services: Services, studio: MemoryStudio) -> None:
    reconcile(services, PROJECT, nothing)
    assert studio.fields["model_version"] == "nextmask-1.1"
    ranked = [task.task_id for task, _ in services.store.ranked(PROJECT)]
    assert studio.queue() == ranked[:4]
    assert all(row["result"] for row in studio.predictions)
    for task in studio.queue():
        assert services.store.published_mask(PROJECT, "nextmask-1.1", task)


@pytest.mark.usefixtures("served_project")
def test_wherever_it_is_killed_the_next_one_finishes(services: Services, studio: MemoryStudio) -> None:
    deaths = kill_at_every_check(lambda check: reconcile(services, PROJECT, check))
    assert deaths > 10
    version = studio.fields["model_version"]
    assert version == project_of(services).published_version
    assert [row["model_version"] for row in studio.predictions] == [version] * 4
    assert len({row["task"] for row in studio.predictions}) == 4
    assert studio.queue() == [task.task_id for task, _ in services.store.ranked(PROJECT)][:4]


def test_a_project_nobody_knows_is_left_alone(services: Services, studio: MemoryStudio) -> None:
    reconcile(services, 999, nothing)
    assert studio.imports == []


def test_nothing_to_label_is_a_state_of_its_own(services: Services, studio: MemoryStudio) -> None:
    studio.items.clear()
    reconcile(services, PROJECT, nothing)
    assert (project_of(services).state, project_of(services).published_version, studio.imports) == ("waiting", "", [])


# -- what leads to a new ranking -------------------------------------------------------------------------------------
@pytest.mark.usefixtures("served_project")
def test_new_tasks_another_strategy_and_another_config_rank_anew(services: Services, studio: MemoryStudio) -> None:
    def version() -> str:
        reconcile(services, PROJECT, nothing)
        assert studio.fields["model_version"] == project_of(services).published_version
        return project_of(services).published_version

    assert version() == "nextmask-1.1"
    assert version() == "nextmask-1.1"
    studio.add_task(20)
    assert version() == "nextmask-1.2"
    studio.backends[0]["extra_params"] = {"strategy": "margin"}
    assert version() == "nextmask-1.3"
    assert project_of(services).extra_params == '{"strategy": "margin"}'
    studio.backends[0]["extra_params"] = '{"strategy": "margin", "minimum_area": 40}'
    assert version() == "nextmask-1.4"  # other masks
    studio.xml = XML.replace('<Label value="nucleus"/>', '<Label value="nucleus"/><Label value="vessel"/>')
    assert version() == "nextmask-1.5"
    studio.fields["title"] = "Renamed"
    assert version() == "nextmask-1.5"
    assert project_of(services).title == "Renamed"


def test_other_models_of_the_project_and_doubles_of_ours(services: Services, studio: MemoryStudio) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    other = {"id": 2, "url": "http://10.0.0.9:1", "title": "theirs", "extra_params": {"theirs": deep}}
    studio.backends = [other | {"id": 0}, *studio.backends, other | {"extra_params": {"theirs": 1}}]
    reconcile(services, PROJECT, nothing)
    assert (project_of(services).extra_params, project_of(services).error) == ("", "")
    assert not is_news(services.store, project_of(services), '{"theirs": 1}')
    assert is_news(services.store, project_of(services), '{"theirs": 2}')
    assert "registered_twice" not in [event.kind for event in services.store.events(PROJECT)]
    studio.backends = [*studio.backends[1:2], {"id": 3, "url": f"{URL}/", "title": "", "extra_params": {"seed": 3}}]
    reconcile(services, PROJECT, nothing)
    reconcile(services, PROJECT, nothing)
    assert (project_of(services).extra_params, project_of(services).error) == ("", "")
    assert [event.kind for event in services.store.events(PROJECT)].count("registered_twice") == 1


@pytest.mark.usefixtures("served_project")
def test_numbers_that_the_host_has_seen_are_never_used_again(services: Services, studio: MemoryStudio) -> None:
    # The state here was lost; predictions of its time are still in Label Studio.
    studio.predictions = [
        {"id": 1, "task": 1, "result": [], "score": 0.5, "model_version": "nextmask-4.17"},
        {"id": 2, "task": 1, "result": [], "score": 0.5, "model_version": "theirs-1.99"},
    ]
    reconcile(services, PROJECT, nothing)
    assert studio.fields["model_version"] == "nextmask-1.18"


@pytest.mark.usefixtures("served_project")
def test_consumed_and_skipped_tasks_leave_and_the_queue_is_refilled(services: Services, studio: MemoryStudio) -> None:
    studio.backends[0]["extra_params"] = {"train_after": 99}
    reconcile(services, PROJECT, nothing)
    first, second, third, _ = studio.queue()
    studio.label(first)
    studio.annotate(second, [], was_cancelled=True)
    reconcile(services, PROJECT, nothing)
    assert len(studio.queue()) == 2  # half the window is enough
    studio.label(third)
    reconcile(services, PROJECT, nothing)
    assert len(studio.queue()) == 4
    assert studio.fields["model_version"] == "nextmask-1.1"  # the same ranking goes on
    assert len({row["task"] for row in studio.predictions}) == len(studio.predictions)


@pytest.mark.usefixtures("served_project")
def test_a_pointer_that_somebody_moved_is_put_back(services: Services, studio: MemoryStudio) -> None:
    reconcile(services, PROJECT, nothing)
    studio.fields["model_version"] = ""
    reconcile(services, PROJECT, nothing)
    assert studio.fields["model_version"] == "nextmask-1.1"


@pytest.mark.usefixtures("served_project")
def test_old_versions_are_pruned_and_the_pointer_looked_at_again(
    services: Services, studio: MemoryStudio, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconcile(services, PROJECT, nothing)
    studio.add_task(20)
    reconcile(services, PROJECT, nothing)
    delete = studio.delete_model_version

    def delete_and_reset(project_id: int, version: str) -> int:
        studio.fields["model_version"] = None
        return delete(project_id, version)

    monkeypatch.setattr(studio, "delete_model_version", delete_and_reset)
    clock.go_on(hours=27)
    reconcile(services, PROJECT, nothing)
    assert set(studio.model_versions(PROJECT)) == {"nextmask-1.2"}
    assert studio.fields["model_version"] == "nextmask-1.2"
    text = "Predictions of nextmask-1.1, which nobody can have open any more, were deleted."
    assert ("pruned", text) in told(services)


@pytest.mark.usefixtures("served_project")
def test_a_rollback_is_followed_by_the_queue(services: Services, studio: MemoryStudio) -> None:
    checkpoints = services.checkpoints(PROJECT)
    first = checkpoints.get(1)
    checkpoints.create(first.record, checkpoints.load_state(first))
    reconcile(services, PROJECT, nothing)
    # version 2 was on disk and not decided, but nothing is labelled: it is settled all the same
    assert studio.fields["model_version"] == "nextmask-2.1"
    roll_back(services.settings, services.store, PROJECT, 1)
    reconcile(services, PROJECT, nothing)
    assert studio.fields["model_version"] == "nextmask-1.2"
    assert ("rolled_back", "Version 1 serves again, as requested.") in told(services)


@pytest.mark.usefixtures("served_project")
def test_old_model_versions_are_removed_and_what_serves_stays(services: Services, studio: MemoryStudio) -> None:
    checkpoints = services.checkpoints(PROJECT)
    first = checkpoints.get(1)
    for _ in range(3):
        checkpoints.create(dataclasses.replace(first.record, measures={}), checkpoints.load_state(first))
    services.store.update_project(PROJECT, decided_model=4)  # a person went back to the first
    few = dataclasses.replace(services, settings=services.settings.model_copy(update={"keep_versions": 1}))
    reconcile(few, PROJECT, nothing)
    assert [version.number for version in checkpoints.versions()] == [1, 4]
    assert project_of(services).published_version == "nextmask-1.1"
    (text,) = (text for kind, text in told(services) if kind == "version_deleted")
    assert "(NEXTMASK_KEEP_VERSIONS): 2, 3." in text


# -- images that fail ------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("served_project")
def test_a_broken_image_is_noted_and_comes_back_when_it_is_mended(
    services: Services, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = studio.items[3]["data"]["image"]
    content = studio.files.pop(reference)
    reconcile(services, PROJECT, nothing)
    assert 3 not in [task.task_id for task, _ in services.store.ranked(PROJECT)]
    failed = services.store.task(PROJECT, 3)
    assert failed is not None
    assert "cannot be fetched" in failed.error
    reconcile(services, PROJECT, nothing)
    assert [text for kind, text in told(services) if kind == "task_failed"] == [
        f"One task cannot be used: task 3: {failed.error}"
    ]

    studio.files[reference] = content
    services.store.set_value(f"images_retried_{PROJECT}", str(time.time()))
    reconcile(services, PROJECT, nothing)
    assert project_of(services).published_version == "nextmask-1.1"  # not asked again at once
    services.store.set_value(f"images_retried_{PROJECT}", str(time.time() - RETRY_IMAGES_SECONDS - 1))
    reconcile(services, PROJECT, nothing)
    assert 3 in [task.task_id for task, _ in services.store.ranked(PROJECT)]
    mended = services.store.task(PROJECT, 3)
    assert mended is not None
    assert mended.error == ""


def test_an_empty_annotation_asks_the_image_for_its_size(services: Services, studio: MemoryStudio) -> None:
    studio.files[studio.items[1]["data"]["image"]] = png(disc(0)[0])
    studio.annotate(1, [])
    reconcile(services, PROJECT, nothing)
    (labelled,) = services.store.tasks(PROJECT, status="labelled")
    assert labelled.task_id == 1


def test_masks_of_replaced_annotations_are_removed(services: Services, studio: MemoryStudio) -> None:
    studio.label(1)
    reconcile(services, PROJECT, nothing)
    studio.annotate(1, [region(disc(5)[1])])
    reconcile(services, PROJECT, nothing)
    folder = services.project_folder(PROJECT) / "masks"
    (labelled,) = services.store.tasks(PROJECT, status="labelled")
    assert {path.name for path in folder.iterdir()} == services.store.label_files(PROJECT)
    keys = {f"projects/{PROJECT}/masks/{path.name}" for path in folder.iterdir()}
    assert {labelled.mask_file, labelled.effort_file} == keys


# -- what goes wrong -------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("served_project")
def test_a_training_that_fails_leaves_annotators_their_queue(services: Services, studio: MemoryStudio) -> None:
    studio.backends[0]["extra_params"] = json.dumps({"encoder": "no-such-encoder"})
    for task in (1, 2, 3, 4):
        studio.label(task)
    with pytest.raises(TrainingError, match="no-such-encoder"):
        reconcile(services, PROJECT, nothing)
    assert studio.fields["model_version"] == "nextmask-1.1"
    assert sorted(studio.queue()) == [5, 6, 7, 8]
    reconcile(services, PROJECT, nothing)  # in the pause after it
    assert project_of(services).state == "failed"
    assert "no-such-encoder" in project_of(services).error


def test_settings_that_are_invalid_are_an_error_and_kept_for_the_status(
    services: Services, studio: MemoryStudio
) -> None:
    studio.backends[0]["extra_params"] = {"train_aftr": 3}
    with pytest.raises(ConfigurationError, match="train_aftr"):
        reconcile(services, PROJECT, nothing)
    assert project_of(services).extra_params == '{"train_aftr": 3}'
    studio.backends[0]["url"] = "http://other.example:1"  # somebody else's backend: its settings are not ours
    services.store.update_project(PROJECT, extra_params="")
    reconcile(services, PROJECT, nothing)


def test_a_config_without_masks_is_said_and_healed_by_the_next_look(services: Services, studio: MemoryStudio) -> None:
    studio.xml = '<View><Image name="image" value="$image"/></View>'
    with pytest.raises(LabelConfigError):
        reconcile(services, PROJECT, nothing)
    studio.xml = XML
    reconcile(services, PROJECT, nothing)
    assert len(studio.queue()) == 4


# -- while a training runs -------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("served_project")
def test_annotators_are_supplied_while_a_training_runs(
    services: Services, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reconcile(services, PROJECT, nothing)
    consumed = studio.queue()[:3]
    seen: list[tuple[int, int]] = []

    def training(_job: object, *, heartbeat: Callable[[], None], **_: Any) -> int:
        for task in consumed:
            studio.label(task)
        heartbeat()
        seen.append((len(studio.queue()), services.store.count_tasks(PROJECT)["labelled"]))
        with monkeypatch.context() as patch:
            patch.setattr(studio, "project", unavailable)
            heartbeat()  # a host that is away does not end the training
        raise TrainingError("the end of this test")

    def unavailable(_: int) -> Any:
        raise LabelStudioUnavailable("away")

    monkeypatch.setattr(training_process, "run", training)
    monkeypatch.setattr(top_up, "TOP_UP_SECONDS", 0.0)
    studio.label(next(task for task in studio.items if task not in studio.queue()))
    services.store.wake(PROJECT, train=True)
    with caplog.at_level(logging.WARNING), pytest.raises(TrainingError, match="the end"):
        reconcile(services, PROJECT, nothing)
    assert seen == [(4, 4)]  # the queue is full again, and the labels are read
    assert "top-up during training failed: away" in caplog.text


@pytest.mark.usefixtures("served_project")
def test_a_lease_lost_during_the_training_ends_it(
    services: Services, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = False

    def training(_job: object, *, heartbeat: Callable[[], None], **_: Any) -> int:
        nonlocal lost
        lost = True
        heartbeat()
        raise AssertionError("it went on")

    def check() -> None:
        if lost:
            raise LeaseLost("gone")

    monkeypatch.setattr(training_process, "run", training)
    studio.label(1)
    services.store.wake(PROJECT, train=True)
    with pytest.raises(LeaseLost):
        reconcile(services, PROJECT, check)


@pytest.mark.usefixtures("served_project")
@pytest.mark.parametrize("step", ["train", "decide", "rank"])
@pytest.mark.parametrize("error", [CheckpointError("damaged"), MaskError("no mask"), ValueError("a secret of ours")])
def test_a_step_that_fails_leaves_annotators_their_queue(
    services: Services, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    studio.backends[0]["extra_params"] = NO_TRAINING
    reconcile(services, PROJECT, nothing)
    consumed = studio.queue()[:3]
    for task in consumed:
        studio.label(task)

    def fails(_: object) -> None:
        raise error

    monkeypatch.setattr(f"ml_backend.worker.reconcile.{step}", fails)
    with pytest.raises(NextmaskError) as caught:
        reconcile(services, PROJECT, nothing)
    assert "secret" not in str(caught.value)
    assert len(studio.queue()) == 4  # it was filled up all the same


@pytest.mark.usefixtures("served_project")
@pytest.mark.parametrize("step", ["train", "decide", "rank"])
@pytest.mark.parametrize("error", [LeaseLost("gone"), LabelStudioUnavailable("away")])
def test_without_lease_or_host_nothing_else_is_done(
    services: Services, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch, step: str, error: NextmaskError
) -> None:
    studio.backends[0]["extra_params"] = NO_TRAINING

    def fails(_: object) -> None:
        raise error

    monkeypatch.setattr(f"ml_backend.worker.reconcile.{step}", fails)
    monkeypatch.delattr("ml_backend.worker.reconcile.publish")
    with pytest.raises(type(error)):
        reconcile(services, PROJECT, nothing)
