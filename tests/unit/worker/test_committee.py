"""The committee of a version: when one is trained, what is shown of it, and when it is tried again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from trainings import Run, Trainings, label
from wiring import PROJECT, look_at

from ml_backend.errors import TrainingError
from ml_backend.learning.training import Job, Progress
from ml_backend.learning.training import process as training_process
from ml_backend.projects.services import Services
from ml_backend.worker.committee import ensure_committee
from ml_backend.worker.train import RETRY_SECONDS

TRAIN_AFTER = 4
pytestmark = [
    pytest.mark.usefixtures("known_project"),
    pytest.mark.studio(12),
    pytest.mark.settings(train_after=TRAIN_AFTER),
]


Ensure = Callable[..., None]


@pytest.fixture
def ensure(services: Services, trained: None) -> Ensure:
    """Ask for the committee of the version that serves; keyword arguments are the project's settings."""

    def go(*, stages: Any = None, **settings: Any) -> None:
        usual = {"strategy": "bald", "committee": "ensemble"}
        version = services.checkpoints(PROJECT).current()
        assert version is not None
        labelled = services.store.tasks(PROJECT, status="labelled")
        ensure_committee(look_at(services, settings=usual | settings, stages=stages), version, labelled)

    return go


def test_an_ensemble_is_trained_once(services: Services, ensure: Ensure, trainings: Trainings) -> None:
    ensure()
    job = trainings.jobs[-1]
    assert (job.committee_of, job.members, job.parent) == (1, 4, None)
    assert sorted(item.id for item in job.items) == ["1", "2", "3"]  # 4 is held out
    ensure()
    assert len(trainings.jobs) == 2  # the version, and its committee
    ensure(members=6)
    assert [len(services.checkpoints(PROJECT).committees.load(1) or []), trainings.jobs[-1].members] == [6, 6]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"strategy": "suggestive_annotation", "committee": "auto"}, True),
        ({"strategy": "sa", "committee": "auto"}, True),
        ({"strategy": "bald", "committee": "auto"}, False),  # MC dropout needs no training
        ({"strategy": "suggestive_annotation", "committee": "mc_dropout"}, False),
        ({"strategy": "suggestive_annotation", "strategy_options": {"measure": "entropy"}}, False),
        ({"strategy": "entropy", "committee": "ensemble"}, False),  # one network is enough
    ],
)
def test_an_ensemble_is_trained_where_one_is_needed(
    ensure: Ensure, trainings: Trainings, settings: dict[str, Any], wanted: bool
) -> None:
    ensure(**settings)
    assert (len(trainings.jobs) == 2) == wanted


def test_progress_shows_the_member(ensure: Ensure, trainings: Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, int, int]] = []
    original = trainings.run

    def run(job: Job, *, progress: Any, **rest: Any) -> int:
        progress(Progress("training committee", 5, 200, 0.5, member=2, members=4))
        return original(job, progress=progress, **rest)

    monkeypatch.setattr(training_process, "run", run)
    ensure(stages=shown)
    assert ("training committee: member 2 of 4", 5, 200) in shown


def test_a_committee_that_failed_waits_unless_something_changes(
    services: Services, ensure: Ensure, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings.fails = "out of memory"
    for _ in range(3):
        with pytest.raises(TrainingError, match="out of memory"):
            ensure()
    assert len(trainings.jobs) == 2
    with pytest.raises(TrainingError, match="out of memory"):
        ensure(batch_size=2)
    assert len(trainings.jobs) == 3
    trainings.fails = ""
    later = time.time() + RETRY_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    ensure(batch_size=2)
    assert services.checkpoints(PROJECT).committees.load(1) is not None


def test_a_training_whose_model_makes_no_committee_is_not_begun(
    services: Services, run: Run, trainings: Trainings
) -> None:
    label(services, range(1, 5))
    with pytest.raises(TrainingError, match=r"NEXTMASK_DROPOUT = 0: .*'bald'.* Set NEXTMASK_DROPOUT to 0\.1 or more"):
        run(strategy="bald", dropout=0)
    assert not trainings.jobs
    assert run(strategy="bald", dropout=0, committee="ensemble")
    label(services, range(1, 5), "second")
    assert run(strategy="entropy", dropout=0)
    label(services, range(1, 5), "third")
    assert run(strategy="bald", dropout=0.1)  # mended: it does not wait
