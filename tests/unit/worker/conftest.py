"""What tests of the worker's steps share."""

from __future__ import annotations

from typing import Any

import pytest
from postgresql import on_both as pytest_generate_tests  # noqa: F401 (called by pytest)
from trainings import Run, Trainings, label
from wiring import LABEL_MAP, look_at, nothing

from ml_backend.annotations.label_map import LabelMap
from ml_backend.learning.training import process as training_process
from ml_backend.projects.services import Services
from ml_backend.worker.train import train_if_wanted


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    found = Trainings()
    monkeypatch.setattr(training_process, "run", found.run)
    return found


@pytest.fixture
def run(services: Services, trainings: Trainings) -> Run:
    """Look whether a training is wanted, and train; keyword arguments are the project's settings."""

    def go(label_map: LabelMap = LABEL_MAP, *, check: Any = nothing, stages: Any = None, **settings: Any) -> bool:
        look = look_at(services, label_map=label_map, settings=settings, check=check, stages=stages)
        return train_if_wanted(look)

    return go


@pytest.fixture
def trained(services: Services, run: Run, known_project: None) -> None:
    """Version 1 was trained on labels 1 to 4 and serves."""
    label(services, range(1, 5))
    assert run()
