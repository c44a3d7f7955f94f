"""Status: the state of a project from the store and the checkpoints alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from wiring import PROJECT, give_project, make_services, task_of

from ml_backend.errors import ConfigurationError
from ml_backend.label_studio.predictions import model_number, ranking_number
from ml_backend.projects.registration import webhook_secret
from ml_backend.projects.services import Services
from ml_backend.projects.status import known_project, project_status


def test_a_project_that_was_just_connected(services: Services) -> None:
    services.store.wake(PROJECT, title="Cells")
    status = project_status(services.settings, services.store, PROJECT)
    assert (status.project, status.title, status.state, status.strategy) == (PROJECT, "Cells", "idle", "auto")
    assert (status.version, status.labels, status.trained_labels, status.held_out_miou) == ("", 0, 0, None)
    assert (status.pool, status.queue, status.skipped, status.agreement, status.errors) == (0, 0, 0, None, {})


def test_a_project_at_work(services: Services) -> None:
    give_project(services, extra_params='{"strategy": "margin"}')
    store = services.store
    store.put_tasks(
        [
            task_of(1, status="labelled", agreement=0.5),
            task_of(2, status="labelled", agreement=1.0, error="one region of it cannot be read"),
            task_of(3, status="labelled"),
            task_of(4, status="skipped"),
            task_of(5, status="broken", error="no image"),
            *(task_of(one) for one in (6, 7, 8)),
        ]
    )
    store.put_published(PROJECT, "nextmask-1.1", [(one, 0.5, None) for one in (1, 6, 7)])
    store.update_project(PROJECT, state="training", stage="training", stage_done=3, stage_total=9, reconciled_at=1.0)
    store.update_project(PROJECT, stage_ends=1e9)
    status = project_status(services.settings, services.store, PROJECT)
    assert (status.state, status.stage, status.done, status.total) == ("training", "training", 3, 9)
    assert status.ends == 1e9
    assert (status.strategy, status.version) == ("margin", "nextmask-1.1")
    assert (status.labels, status.trained_labels, status.agreement) == (3, 6, 0.75)
    record = services.checkpoints(PROJECT).get(1).record
    assert status.held_out_miou == record.measures["miou"]
    assert status.held_out_miou is not None
    assert status.held_out is not None
    assert [status.held_out.low, status.held_out.high] == record.measures["intervals"]["miou"]
    shown = json.loads(json.dumps(status.as_json()))
    assert (shown["held_out_miou"], shown["held_out"]["images"]) == (record.measures["miou"], 2)
    assert (status.pool, status.queue, status.skipped) == (3, 2, 1)
    assert status.errors == {"task 2": "one region of it cannot be read", "task 5": "no image"}


def test_a_failure_of_the_project_comes_first(services: Services) -> None:
    services.store.wake(PROJECT, error="Label Studio did not answer", state="failed", reconciled_at=1.0)
    services.store.put_tasks([task_of(5, status="broken", error="no image")])
    status = project_status(services.settings, services.store, PROJECT)
    assert status.state == "failed"
    assert next(iter(status.errors.items())) == ("project", "Label Studio did not answer")
    assert len(status.errors) == 2


def test_waiting_is_told_from_never_looked_at(services: Services) -> None:
    services.store.wake(PROJECT, reconciled_at=1.0)
    assert project_status(services.settings, services.store, PROJECT).state == "waiting"


def test_a_version_whose_files_are_gone_measures_nothing(services: Services) -> None:
    services.store.wake(PROJECT)
    services.store.mark_published(PROJECT, "nextmask-7.2")
    status = project_status(services.settings, services.store, PROJECT)
    assert (status.version, status.trained_labels, status.held_out_miou) == ("nextmask-7.2", 0, None)


def test_invalid_settings_of_the_project_are_shown_not_raised(services: Services) -> None:
    services.store.wake(PROJECT, extra_params='{"train_aftr": 3}')
    status = project_status(services.settings, services.store, PROJECT)
    assert status.strategy == "auto"
    assert "'train_aftr', which is not one of" in status.errors["settings"]


def test_scripts_get_what_the_documentation_promises(services: Services) -> None:
    services.store.wake(PROJECT)
    promised = {"project", "state", "strategy", "version", "labels", "trained_labels", "held_out_miou", "pool", "queue"}
    shown = project_status(services.settings, services.store, PROJECT).as_json()
    assert promised | {"skipped", "errors"} <= shown.keys()
    assert json.loads(json.dumps(shown)) == shown


def test_an_unknown_project_says_how_to_connect_it(services: Services) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"Project 7 is not connected.*{services.settings.model_dir}.*connect 7"
    ):
        known_project(services.settings, services.store, 7)
    services.store.wake(8)
    assert known_project(services.settings, services.store, 8).id == 8
    services.store.update_project(8, managed=False)
    with pytest.raises(ConfigurationError, match="Project 8 is not connected"):
        known_project(services.settings, services.store, 8)


# -- version strings and the webhook's secret ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("version", "model", "ranking"),
    [
        ("nextmask-7.2", 7, 2),
        ("nextmask-12.345", 12, 345),
        ("nextmask-0.0", 0, 0),
        ("nextmask-3", 3, 0),
        ("", 0, 0),
        ("someone else's", 0, 0),
        ("other-9.12", 0, 0),
        ("nextmask-x.y", 0, 0),
    ],
)
def test_numbers_of_a_version_string(version: str, model: int, ranking: int) -> None:
    assert (model_number(version), ranking_number(version)) == (model, ranking)


def test_a_secret_is_made_once_and_a_given_one_stands(services: Services, tmp_path: Path) -> None:
    made = webhook_secret(services.settings, services.store)
    assert len(made) >= 32
    assert webhook_secret(services.settings, services.store) == made
    again = make_services(tmp_path)
    assert webhook_secret(again.settings, again.store) == made
    again.store.close()
    given = make_services(tmp_path / "other", webhook_secret="given")
    assert webhook_secret(given.settings, given.store) == "given"
    given.store.close()


# -- advice and notice -----------------------------------------------------------------------------------------------
def test_advice_follows_the_version_that_serves(services: Services) -> None:
    services.store.wake(PROJECT)
    assert project_status(services.settings, services.store, PROJECT).advice is None
    give_project(services)
    services.store.put_tasks(
        # submitted in the order of their annotations, not of the tasks
        task_of(30 - number, status="labelled", annotation_id=number, agreement=0.1 if number < 5 else 0.9)
        for number in range(25)
    )
    advice = project_status(services.settings, services.store, PROJECT).advice
    assert advice is not None
    assert (advice.held_out, advice.gain, advice.gain_images) == (2, None, 0)
    assert (advice.agreement, advice.agreement_labels) == (pytest.approx(0.9), 20)
    shown = project_status(services.settings, services.store, PROJECT).as_json()
    assert json.loads(json.dumps(shown))["advice"]["sentences"] == list(advice.sentences)
