"""A trial: when the other way with the encoder is tried, what becomes of it, and what is remembered.

The training process is replaced by one that writes a version at once, except in the last part, where all is real.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from memory_studio import MemoryStudio
from trainings import Trainings, label
from wiring import PROJECT, look_at, nothing, project_of

from ml_backend.errors import DiskFull, LabelStudioUnavailable, LeaseLost, TrainingError
from ml_backend.learning.checkpoints import Version
from ml_backend.learning.training import process as training_process
from ml_backend.projects.services import Services
from ml_backend.projects.serving import roll_back
from ml_backend.projects.status import in_full, project_state
from ml_backend.worker.reconcile import reconcile
from ml_backend.worker.train import train_if_wanted
from ml_backend.worker.trial import try_other_way

pytestmark = [
    pytest.mark.usefixtures("known_project"),
    pytest.mark.studio(48),
    pytest.mark.settings(train_after=4),
]
Try = Callable[..., None]


def publish_queue(services: Services) -> None:
    """As rank and publish would."""
    current = services.checkpoints(PROJECT).current()
    assert current is not None
    name = f"nextmask-{current.number}.1"
    services.store.update_project(PROJECT, ranking_version=name)
    services.store.mark_published(PROJECT, name)


def train(services: Services, labels: int) -> None:
    """Label so many tasks; a version is trained on them and its queue is there."""
    label(services, range(1, labels + 1))
    assert train_if_wanted(look_at(services))
    publish_queue(services)


@pytest.fixture
def attempt(services: Services, trainings: Trainings) -> Try:
    """Make the trial that is due after a version of eight labels, two of which measure."""

    def go(check: Any = nothing, undecided: int = 0, **settings: Any) -> None:
        look = look_at(services, settings=settings, check=check)
        look.undecided |= set(range(undecided))
        try_other_way(look)

    trainings.groups = 2
    train(services, 8)
    lease = services.store.acquire("a worker", lease_seconds=60, interval=60, only=PROJECT)
    assert lease is not None
    services.store.release(lease, handled=True)
    trainings.jobs.clear()
    return go


def is_woken(services: Services) -> bool:
    """Whether a look is due that nobody has begun."""
    project = project_of(services)
    return project.wakes > project.wakes_handled


def versions(services: Services) -> list[Version]:
    return services.checkpoints(PROJECT).versions()


def serving(services: Services) -> int:
    current = services.checkpoints(PROJECT).current()
    assert current is not None
    return current.number


def told(services: Services, kind: str) -> list[str]:
    return [event.text for event in services.store.events(PROJECT) if event.kind == kind]


# -- what is tried ---------------------------------------------------------------------------------------------------
def test_the_other_way_is_tried_on_the_labels_that_serve(
    services: Services, attempt: Try, trainings: Trainings
) -> None:
    label(services, range(9, 11))  # too few for a training; the next version has them
    attempt()
    (job,) = trainings.jobs
    assert (job.trial, job.train_encoder, job.train_from, job.parent) == (True, True, "last", 1)
    assert [item.id for item in job.items] == [str(one) for one in range(1, 9)]
    assert [item.id for item in job.items if item.held_out] == ["4", "8"]
    assert (job.training_budget, job.data_digest) == (2.0, versions(services)[0].record.data_digest)


def test_better_serves_and_the_way_is_remembered(services: Services, attempt: Try, trainings: Trainings) -> None:
    attempt()
    assert serving(services) == 2
    assert told(services, "published")[0] == "reason of a trial. Version 2 now serves."
    assert is_woken(services), "its queue comes with the next look"
    train(services, 16)
    assert trainings.jobs[-1].train_encoder is True
    assert not trainings.jobs[-1].trial
    attempt()  # twice as many labels: the way back
    job = trainings.jobs[-1]
    assert (job.trial, job.train_encoder, job.train_from, job.parent) == (True, False, "scratch", 3)
    train(services, 20)
    assert trainings.jobs[-1].train_encoder is False


def test_not_better_is_kept_back_and_nothing_changes(services: Services, attempt: Try, trainings: Trainings) -> None:
    trainings.accepted = False
    attempt()
    assert serving(services) == 1
    assert not is_woken(services)
    assert told(services, "kept_back") == ["reason of a trial. Version 2 was kept back."]
    (event,) = [event for event in services.store.events(PROJECT) if event.kind == "kept_back"]
    assert event.level == "info", "nothing went wrong"
    attempt()
    assert len(trainings.jobs) == 1
    assert not train_if_wanted(look_at(services)), "the labels were trained on"
    trainings.accepted = True
    train(services, 12)
    assert trainings.jobs[-1].train_encoder is False


def test_the_way_is_the_projects_own(services: Services, attempt: Try, trainings: Trainings) -> None:
    attempt()
    train_if_wanted(look_at(services, settings={"train_encoder": False, "architecture": "unet"}))
    assert trainings.jobs[-1].train_encoder is False, "what a person sets wins"
    train_if_wanted(look_at(services, settings={"encoder_weights": "none", "architecture": "fpn"}))
    assert trainings.jobs[-1].train_encoder is True


def test_only_the_newest_version_is_tried_against(services: Services, attempt: Try, trainings: Trainings) -> None:
    trainings.accepted = False
    label(services, range(1, 17))
    assert train_if_wanted(look_at(services))
    assert serving(services) == 1
    attempt()
    assert not any(job.trial for job in trainings.jobs)


def test_after_a_rollback_none_comes_before_the_next_version(
    services: Services, attempt: Try, trainings: Trainings
) -> None:
    attempt()
    roll_back(services.settings, services.store, PROJECT, 1)
    publish_queue(services)
    attempt()
    assert len(trainings.jobs) == 1


def test_the_sentence_is_shown(services: Services, attempt: Try) -> None:
    attempt()
    records = services.checkpoints(PROJECT).history()
    state = project_state(services.settings, services.store, PROJECT)
    status = in_full(services.settings, services.store, state, records=records, labels=[], efforts=[])
    assert status.advice is not None
    assert "reason of a trial." in status.advice.sentences


# -- when is it due? -------------------------------------------------------------------------------------------------
def test_it_is_due_again_with_twice_as_many_labels(services: Services, attempt: Try, trainings: Trainings) -> None:
    trainings.accepted = False
    attempt()
    trainings.accepted = True
    for labels, trials in [(12, 1), (16, 2), (24, 2), (32, 3)]:
        train(services, labels)
        attempt()
        assert sum(job.trial for job in trainings.jobs) == trials, labels


@pytest.mark.parametrize(
    "settings",
    [
        {"train_encoder": True},
        {"train_encoder": False},
        {"iterations": 50},
        {"encoder_weights": "none"},
    ],
    ids=str,
)
def test_where_it_is_decided_nothing_is_tried(attempt: Try, trainings: Trainings, settings: dict[str, Any]) -> None:
    attempt(**settings)
    assert trainings.jobs == []


def few_audits(services: Services) -> None:
    record = versions(services)[0].record
    few = dataclasses.replace(record, measures={"groups": 1})
    services.checkpoints(PROJECT).publish(services.checkpoints(PROJECT).create(few, {}).number)
    services.store.update_project(PROJECT, decided_model=2)
    publish_queue(services)


def no_queue(services: Services) -> None:
    services.store.update_project(PROJECT, published_version="nextmask-0.1")


def labels_wait(services: Services) -> None:
    label(services, range(9, 13))


def asked_for(services: Services) -> None:
    label(services, [9])
    services.store.wake(PROJECT, train=True)


def drawn_anew(services: Services) -> None:
    label(services, [1], "second")


def training_failed(services: Services) -> None:
    services.store.update_project(PROJECT, train_error="Training failed.")


@pytest.mark.parametrize("is_so", [few_audits, no_queue, labels_wait, asked_for, drawn_anew, training_failed])
def test_it_waits(services: Services, attempt: Try, trainings: Trainings, is_so: Callable[[Services], None]) -> None:
    is_so(services)
    attempt()
    assert trainings.jobs == []


def test_it_waits_for_decisions_of_stream_mode(attempt: Try, trainings: Trainings) -> None:
    attempt(undecided=1)
    assert trainings.jobs == []
    attempt()
    assert len(trainings.jobs) == 1


def test_it_takes_no_turn_from_another_project(services: Services, attempt: Try, trainings: Trainings) -> None:
    with services.turns.take(PROJECT + 1):
        attempt()
        assert not services.turns.is_awaited, "it does not stand in line"
    assert trainings.jobs == []
    attempt()
    assert len(trainings.jobs) == 1


# -- what ends it ----------------------------------------------------------------------------------------------------
def test_labels_that_come_end_it_and_it_begins_again_after_their_version(
    services: Services, attempt: Try, trainings: Trainings
) -> None:
    def arrive() -> None:
        label(services, range(9, 13))

    trainings.before_heartbeat = arrive
    attempt()
    assert trainings.jobs == []
    assert is_woken(services), "the training need not wait for the timer"
    trainings.before_heartbeat = nothing
    train(services, 12)
    assert not trainings.jobs[-1].trial
    attempt()
    assert trainings.jobs[-1].trial
    assert told(services, "trial_failed") == []


def test_another_project_that_waits_ends_it(services: Services, attempt: Try, trainings: Trainings) -> None:
    def ask() -> None:
        with pytest.raises(Exception, match="waits for its turn"), services.turns.take(PROJECT + 1):
            pass

    trainings.before_heartbeat = ask
    attempt()
    assert trainings.jobs == []
    with services.turns.take(PROJECT + 1):
        pass
    trainings.before_heartbeat = nothing
    attempt()
    assert len(trainings.jobs) == 1


@pytest.mark.parametrize("error", [TrainingError("Training ran out of memory."), DiskFull("The disk is full.")])
def test_one_that_fails_is_told_and_not_repeated(
    services: Services, attempt: Try, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tries = []

    def fail(*_: object, **__: object) -> int:
        tries.append(1)
        raise error

    monkeypatch.setattr(training_process, "run", fail)
    attempt()
    attempt()
    assert len(tries) == 1
    (text,) = told(services, "trial_failed")
    assert text.startswith("A trial came to nothing, and the model that serves is not affected: ")
    assert (project_of(services).train_error, serving(services)) == ("", 1)


def test_a_killed_process_does_not_try_again(services: Services, attempt: Try, trainings: Trainings) -> None:
    def die() -> None:
        raise KeyboardInterrupt  # nothing is put right on the way out, as with SIGKILL

    trainings.meanwhile = die
    with pytest.raises(KeyboardInterrupt):
        attempt()
    trainings.meanwhile = nothing
    trainings.jobs.clear()
    attempt()
    assert trainings.jobs == []
    train(services, 16)
    attempt()
    assert trainings.jobs[-1].trial


@pytest.mark.parametrize("error", [LeaseLost("stopped"), LabelStudioUnavailable("away")])
def test_a_worker_that_stops_leaves_it_to_the_next(
    services: Services, attempt: Try, trainings: Trainings, error: Exception
) -> None:
    def stop() -> None:
        raise error

    trainings.meanwhile = stop
    with pytest.raises(type(error)):
        attempt()
    trainings.meanwhile = nothing
    attempt()
    assert serving(services) == 2


def test_killed_between_its_version_and_its_publication(
    services: Services, attempt: Try, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training_process.run

    def killed_after(*arguments: Any, **options: Any) -> int:
        run(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(training_process, "run", killed_after)
    with pytest.raises(KeyboardInterrupt):
        attempt()
    monkeypatch.setattr(training_process, "run", run)
    assert serving(services) == 1
    assert not train_if_wanted(look_at(services))
    assert serving(services) == 2, "settled by the next look"
    train(services, 12)
    assert trainings.jobs[-1].train_encoder is True


# -- with real trainings ---------------------------------------------------------------------------------------------
REAL = {"input_size": 32, "batch_size": 2, "training_budget": 0.02, "train_after": 8, "queue_window": 4}


@pytest.fixture
def labelled(studio: MemoryStudio) -> None:
    """Twelve images were labelled before nextmask came, some of which measure."""
    for task in list(studio.items):
        if task <= 12:
            studio.label(task)


@pytest.mark.usefixtures("one_thread", "labelled")
@pytest.mark.studio(20, connected=True)
@pytest.mark.settings(**REAL, audit_share=0.4)
def test_a_real_trial_in_a_real_look(services: Services, studio: MemoryStudio) -> None:
    reconcile(services, PROJECT, nothing, trial=False)
    assert len(versions(services)) == 1, "who waits for the end of a look waits for no trial"

    def killed_in_the_middle() -> None:
        if project_of(services).stage_note.startswith("a trial"):
            raise LeaseLost("killed")

    with pytest.raises(LeaseLost):
        reconcile(services, PROJECT, killed_in_the_middle)
    assert (len(versions(services)), serving(services)) == (1, 1)
    reconcile(services, PROJECT, nothing)
    first, second = versions(services)
    assert first.record.measures["groups"] >= 2
    assert (first.record.trial, first.record.settings["train_encoder"]) == (False, False)
    assert (second.record.trial, second.record.settings["train_encoder"]) == (True, True)
    assert second.record.labels == first.record.labels
    assert set(second.record.held_out) == set(first.record.held_out)
    assert second.record.reason.startswith("An encoder that learns measured mIoU ")
    assert serving(services) == (2 if second.record.accepted else 1)
    reconcile(services, PROJECT, nothing)
    assert len(versions(services)) == 2
    assert studio.fields["model_version"] == project_of(services).published_version
    assert project_of(services).published_version.startswith(f"nextmask-{serving(services)}.")
    assert (project_of(services).state, project_of(services).error) == ("waiting", "")
    assert any(second.record.reason in event.text for event in services.store.events(PROJECT))
