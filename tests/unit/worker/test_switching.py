"""Switching configuration, strategy and network at any time, and several annotators: seen from the whole reconcile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_studio import MemoryStudio
from wiring import PROJECT, XML, disc, nothing, project_of, region

from ml_backend.annotations.config_edits import with_points_control
from ml_backend.annotations.masks import mask_from_png
from ml_backend.errors import ConfigurationError, NextmaskError, TrainingError
from ml_backend.learning.checkpoints import Checkpoints, VersionRecord
from ml_backend.learning.training import Job
from ml_backend.learning.training import process as training_process
from ml_backend.learning.training.recipe import resolved
from ml_backend.projects.audit import AuditSet
from ml_backend.projects.services import Services
from ml_backend.projects.status import project_status
from ml_backend.server.model import NextmaskModel
from ml_backend.store import Task
from ml_backend.worker.reconcile import reconcile
from ml_backend.worker.train import changed_labels

QUICK = {"input_size": 32, "train_after": 3, "queue_window": 2, "audit_share": 0.0}
MORE = XML.replace('<Label value="nucleus"/>', '<Label value="vessel"/>')

pytestmark = [
    pytest.mark.usefixtures("one_thread", "known_project"),
    pytest.mark.studio(8, connected=True),
    pytest.mark.settings(**QUICK),
]


class Trainings:
    """Stands in for the training process: the new version has the weights of the one before."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def run(self, job: Job, *, progress: Any, heartbeat: Any) -> int:
        job = resolved(job)
        self.jobs.append(job)
        self.meanwhile()
        if job.architecture == "no-such-network":
            raise TrainingError("NEXTMASK_ARCHITECTURE = 'no-such-network' is unknown.")
        checkpoints = Checkpoints(job.folder)
        before = checkpoints.get(1)
        names = ("architecture", "encoder", "network_options", "input_size", "dropout")
        record = VersionRecord(
            classes=before.record.classes,
            label_map_digest=job.label_map_digest,
            data_digest=job.data_digest,
            parent=job.parent,
            labels={item.id: item.digest for item in job.items},
            skipped=dict(job.unavailable),
            settings={name: getattr(job, name) for name in names},
        )
        return checkpoints.create(record, checkpoints.load_state(before)).number


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    found = Trainings()
    monkeypatch.setattr(training_process, "run", found.run)
    return found


def look(services: Services) -> NextmaskError | None:
    """One reconcile as the worker does it."""
    try:
        reconcile(services, PROJECT, nothing)
    except NextmaskError as error:
        services.store.update_project(PROJECT, state="failed", error=str(error))
        return error
    return None


def enter(studio: MemoryStudio, **params: Any) -> None:
    """Type settings into Label Studio."""
    studio.backends[0]["extra_params"] = json.dumps(params)


# -- the labelling configuration -------------------------------------------------------------------------------------
def label_with(studio: MemoryStudio, task: int, *labels: str) -> None:
    studio.annotate(task, [region(disc(task)[1], label) for label in labels])


@pytest.mark.usefixtures("trainings")
def test_the_notice_says_what_a_changed_configuration_drops(services: Services, studio: MemoryStudio) -> None:
    label_with(studio, 1, "cell", "nucleus")
    label_with(studio, 2, "nucleus", "nucleus")
    assert look(services) is None
    assert (project_of(services).notice, project_status(services.settings, services.store, PROJECT).notice) == ("", "")
    studio.xml = MORE
    assert look(services) is None
    expected = (
        "The labelling configuration changed: 'nucleus' was removed (3 regions in 2 labels are ignored now), 'vessel' "
        "was added."
    )
    assert project_status(services.settings, services.store, PROJECT).notice == expected
    assert project_status(services.settings, services.store, PROJECT).as_json()["notice"] == expected
    assert look(services) is None
    assert project_of(services).notice == expected  # until the next change
    studio.xml = XML
    look(services)
    assert (
        project_of(services).notice == "The labelling configuration changed: 'vessel' was removed, 'nucleus' was added."
    )
    assert {task.status for task in services.store.tasks(PROJECT) if task.task_id < 3} == {"labelled"}  # all back


@pytest.mark.usefixtures("served_project", "trainings")
def test_the_notice_says_what_the_network_keeps(services: Services, studio: MemoryStudio) -> None:
    label_with(studio, 1, "cell")
    look(services)
    studio.xml = MORE
    look(services)
    assert project_of(services).notice.endswith("; the network keeps what it learned of the other 2 classes.")


def test_a_change_without_labels_or_without_meaning_is_no_news(services: Services, studio: MemoryStudio) -> None:
    look(services)
    studio.xml = MORE
    look(services)
    assert project_of(services).notice == ""
    label_with(studio, 1, "cell")
    look(services)
    studio.xml = MORE.replace("<View>", '<View style="padding: 2px">')
    look(services)
    enter(studio, unpainted="ignore")  # a setting, which reads the labels anew, and no change of the configuration
    look(services)
    assert project_of(services).notice == ""


# -- settings that cannot be used ------------------------------------------------------------------------------------
BAD_SETTINGS = [
    ({"strategy": "entropie"}, "entropie"),
    ({"strategy_options": {"temperature": 2}}, "temperature"),
    ({"strategy": "ceal", "strategy_options": {"preset": "mole"}}, "mole"),
    ({"train_aftr": 3}, "train_aftr"),
    ({"queue_window": "many"}, "QUEUE_WINDOW"),
]


@pytest.mark.usefixtures("served_project")
@pytest.mark.parametrize(("bad", "message"), BAD_SETTINGS)
def test_a_bad_setting_is_shown_and_the_queue_goes_on(
    services: Services, studio: MemoryStudio, bad: dict[str, Any], message: str
) -> None:
    enter(studio, train_after=99, minimum_area=4)
    assert look(services) is None
    version = studio.fields["model_version"]
    enter(studio, train_after=99, minimum_area=4, **bad)
    for task in studio.queue():
        studio.label(task)
    error = look(services)
    assert isinstance(error, ConfigurationError)
    assert message in str(error)
    assert len(studio.queue()) == 2  # filled up from the ranking that is there
    assert studio.fields["model_version"] == version
    assert message in " ".join(project_status(services.settings, services.store, PROJECT).errors.values())
    # an editor that opens any task still gets its mask
    task = next(one for one in studio.items if one not in studio.queue() and not studio.items[one]["annotations"])
    (prediction,) = NextmaskModel(services, str(PROJECT)).predict([{"id": task, **studio.items[task]}])
    assert prediction["result"]
    assert prediction["model_version"] == version

    enter(studio, train_after=99, minimum_area=4, strategy="margin")  # mended: no restart is needed
    assert look(services) is None
    assert studio.fields["model_version"] != version
    assert project_status(services.settings, services.store, PROJECT).errors == {}


@pytest.mark.usefixtures("served_project")
def test_the_last_good_settings_stand_in_for_bad_ones(services: Services, studio: MemoryStudio) -> None:
    enter(studio, train_after=99, queue_window=3)
    look(services)
    enter(studio, train_after=99, queue_window="many")
    assert look(services) is not None
    assert len(studio.queue()) == 3
    assert project_status(services.settings, services.store, PROJECT).errors["settings"].startswith("Invalid setting")


@pytest.mark.usefixtures("served_project")
def test_after_an_upgrade_settings_of_the_earlier_release_stand_in_until_they_are_renamed(
    services: Services, studio: MemoryStudio
) -> None:
    before = {"train_after": 99, "queue_window": 3, "held_out_share": 0}
    services.store.set_value(f"good_extra_params_{PROJECT}", json.dumps(before))
    enter(studio, **before)
    assert "It is called NEXTMASK_AUDIT_SHARE now." in str(look(services))
    assert len(studio.queue()) == 3


def test_a_project_that_never_had_good_settings_waits_for_them(services: Services, studio: MemoryStudio) -> None:
    enter(studio, unpainted="sky")
    assert isinstance(look(services), ConfigurationError)
    assert studio.imports == []
    enter(studio)
    assert look(services) is None
    assert len(studio.queue()) == 2


@pytest.mark.usefixtures("served_project")
def test_another_network_is_trained_while_the_queue_of_the_old_one_stays(
    services: Services, studio: MemoryStudio, trainings: Trainings
) -> None:
    for task in (1, 2, 3):
        studio.label(task)
    look(services)
    (first,) = trainings.jobs
    before = studio.fields["model_version"], studio.queue()
    assert before[0] == "nextmask-2.1"
    trainings.meanwhile = lambda: seen.append((studio.fields["model_version"], studio.queue()))
    seen: list[Any] = []
    enter(studio, encoder_weights="none", input_size=64)
    assert look(services) is None
    assert seen == [before]
    assert (first.input_size, trainings.jobs[-1].input_size) == (32, 64)
    assert studio.fields["model_version"] == "nextmask-3.2"

    enter(studio, architecture="no-such-network")
    queue = studio.queue()
    studio.label(queue[0])
    studio.label(queue[1])
    error = look(services)
    assert isinstance(error, TrainingError)
    assert studio.fields["model_version"] == "nextmask-3.2"
    assert len(studio.queue()) == 2


# -- several annotators ----------------------------------------------------------------------------------------------
def mask_of(services: Services, task: Task | None) -> Any:
    assert task is not None
    return mask_from_png(services.files.read(task.mask_file))


def test_the_majority_of_annotators_makes_the_label(services: Services, studio: MemoryStudio) -> None:
    truth, other = disc(1)[1], disc(5)[1]
    for person, mask in ((7, truth), (8, truth), (9, other), (9, other)):
        last = studio.annotate(1, [region(mask)], completed_by=person, lead_time=float(person))
    look(services)
    task = services.store.task(PROJECT, 1)
    assert task is not None
    assert np.array_equal(mask_of(services, task), other)  # by default, the newest
    enter(studio, several_annotations="majority")
    look(services)
    voted = services.store.task(PROJECT, 1)
    assert voted is not None
    assert np.array_equal(mask_of(services, voted), truth)
    assert voted.label_digest != task.label_digest
    assert (voted.annotation_id, voted.lead_time) == (last, 9.0)  # what is recorded is the newest one's
    used = {Path(one.mask_file).name for one in services.store.tasks(PROJECT) if one.mask_file}
    assert {path.name for path in (services.project_folder(PROJECT) / "masks").glob("*.png")} == used

    studio.annotate(1, [region(other)], completed_by=7, ground_truth=True)
    studio.annotate(1, [region(truth)], completed_by=6)
    look(services)
    assert np.array_equal(mask_of(services, services.store.task(PROJECT, 1)), other)  # ground truth alone


def test_an_annotation_that_cannot_be_read_does_not_vote(services: Services, studio: MemoryStudio) -> None:
    enter(studio, several_annotations="majority")
    truth = disc(1)[1]
    studio.annotate(1, [region(truth)], completed_by=7)
    studio.annotate(1, [region(truth, "unheard of")], completed_by=8)
    look(services)
    task = services.store.task(PROJECT, 1)
    assert task is not None
    assert (task.status, task.annotation_id) == ("labelled", 1)
    assert "unheard of" in task.error
    assert np.array_equal(mask_of(services, task), truth)
    studio.annotate(1, [region(truth, "unheard of")], completed_by=7)
    look(services)
    broken = services.store.task(PROJECT, 1)
    assert broken is not None
    assert (broken.status, broken.annotation_id) == ("broken", 3)


def test_a_mask_of_another_size_has_no_vote_and_is_said(services: Services, studio: MemoryStudio) -> None:
    enter(studio, several_annotations="majority")
    studio.annotate(1, [region(disc(1)[1])], completed_by=7)
    studio.annotate(1, [region(np.ones((8, 8), np.uint8))], completed_by=8)
    look(services)
    task = services.store.task(PROJECT, 1)
    assert task is not None
    assert (task.status, task.annotation_id) == ("labelled", 1)
    assert np.array_equal(mask_of(services, task), disc(1)[1])
    assert "8 x 8 pixels, this one is 40 x 32" in task.error


# -- labels that cannot train ----------------------------------------------------------------------------------------
def test_held_out_labels_alone_are_not_enough_and_no_failure(
    services: Services, studio: MemoryStudio, trainings: Trainings
) -> None:
    enter(studio, audit_share=0.5, train_after=1)
    images = {task: studio.items[task]["data"]["image"] for task in studio.items}
    kept = [task for task, image in images.items() if AuditSet(0.5, 0).has(image)]
    for task in kept:
        studio.label(task)
    services.store.wake(PROJECT, train=True)
    assert look(services) is None
    assert (trainings.jobs, project_of(services).state) == ([], "waiting")
    assert project_of(services).train_requested_at is not None  # the wish waits for a label that trains


@pytest.mark.usefixtures("served_project")
def test_labels_without_an_image_do_not_make_every_new_label_train(
    services: Services, studio: MemoryStudio, trainings: Trainings
) -> None:
    for task in (1, 2, 3, 4):
        studio.label(task)
    for task in (1, 2, 3):
        del studio.files[studio.items[task]["data"]["image"]]
    look(services)
    (job,) = trainings.jobs
    assert [item.id for item in job.items] == ["4"]
    assert [task.task_id for task in services.store.tasks(PROJECT, status="unavailable")] == [1, 2, 3]
    latest = services.checkpoints(PROJECT).latest()
    assert latest is not None
    assert changed_labels(latest, services.store.tasks(PROJECT, status="labelled")) == 0
    studio.label(5)
    look(services)
    assert len(trainings.jobs) == 1


# -- nothing left to label -------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("served_project")
def test_the_last_training_serves_though_nothing_is_left_to_label(
    services: Services, studio: MemoryStudio, trainings: Trainings
) -> None:
    enter(studio, train_after=99)
    look(services)
    assert studio.fields["model_version"] == "nextmask-1.1"
    for task in studio.items:
        studio.label(task)
    enter(studio, train_after=1)
    assert look(services) is None
    assert len(trainings.jobs) == 1
    assert studio.fields["model_version"] == "nextmask-2.2" == project_of(services).published_version
    status = project_status(services.settings, services.store, PROJECT)
    assert (status.version, status.trained_labels, status.pool, status.queue) == ("nextmask-2.2", 8, 0, 0)
    (prediction,) = NextmaskModel(services, str(PROJECT)).predict([{"id": 1, **studio.items[1]}])
    assert prediction["model_version"] == "nextmask-2.2"
    rows = len(studio.predictions)
    look(services)
    assert len(studio.predictions) == rows  # once
    studio.add_task(20)
    look(services)
    assert studio.fields["model_version"] == "nextmask-2.3"
    assert len(studio.queue()) == 1


@pytest.mark.studio(8, connected=True, xml=with_points_control(XML))
def test_a_project_turns_to_points_before_it_has_a_network_and_back(services: Services, studio: MemoryStudio) -> None:
    def shown(strategy: str) -> set[str]:
        """The kinds of regions in the queue with a strategy."""
        studio.backends[0]["extra_params"] = {**QUICK, "encoder_weights": "none", "strategy": strategy}
        reconcile(services, PROJECT, nothing)
        version = studio.fields["model_version"]
        rows = [row for row in studio.predictions if row["model_version"] == version]
        assert len(rows) == QUICK["queue_window"]
        return {region["type"] for row in rows for region in row["result"]}

    assert shown("entropy") == set()
    assert shown("points") == {"keypointlabels"}
    before = len(studio.imports)
    assert shown("points") == {"keypointlabels"}
    assert len(studio.imports) == before, "nothing changed, and all was ranked anew"
    assert shown("entropy") == set()
