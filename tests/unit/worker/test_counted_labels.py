"""What is counted is what trains: a label that cannot be used is left out at the sync, everywhere, with its reason."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from memory_studio import MemoryStudio
from wiring import PROJECT, SHAPE, Clock, disc, look_at, png, project_of, region

from ml_backend.annotations import masks
from ml_backend.annotations.label_map import parse_label_config
from ml_backend.doctor.project.facts import Facts
from ml_backend.doctor.project.labels import check_left_out
from ml_backend.errors import LabelStudioUnavailable, TrainingError
from ml_backend.projects.services import Services
from ml_backend.projects.status import project_status
from ml_backend.server.app import create_app
from ml_backend.store import Task
from ml_backend.worker.sync import Sync, retry_images
from ml_backend.worker.train import train_if_wanted

POLYGON_XML = """<View><Image name="image" value="$image"/>
  <PolygonLabels name="tag" toName="image"><Label value="cell"/><Label value="nucleus"/></PolygonLabels></View>"""
TINY = {"iterations": 1, "batch_size": 2, "input_size": 32, "train_after": 1, "audit_share": 0.0}

pytestmark = [pytest.mark.studio(4), pytest.mark.settings(audit_share=0.0)]


@pytest.fixture(autouse=True)
def _known(known_project: None) -> None:
    """The project waits for its first look."""


@pytest.fixture
def sync(services: Services) -> Callable[..., None]:
    def run(**settings: Any) -> None:
        Sync(look_at(services, settings=settings)).run()

    return run


def task(services: Services, task_id: int = 1) -> Task:
    found = services.store.task(PROJECT, task_id)
    assert found is not None
    return found


def told_everywhere(services: Services, task_id: int, words: str, *, labels: int) -> None:
    """Status, dashboard and doctor count without the task and say why."""
    status = project_status(services.settings, services.store, PROJECT)
    assert status.labels == labels
    assert words in status.errors[f"task {task_id}"]
    with TestClient(create_app(services.settings)) as client:
        page = html.unescape(client.get(f"/projects/{PROJECT}/tasks?reason=failed").text)
        assert f">{task_id}</a>" in page
        assert words in page
    known = project_of(services)
    facts = Facts({"id": PROJECT}, None, None, None, None, known, services.settings, "")
    (finding,) = check_left_out(services.store, facts)
    assert finding.level == "warning"
    assert f"task {task_id}: " in finding.message
    assert words in finding.message


# -- sizes -----------------------------------------------------------------------------------------------------------
def test_pixels_of_another_size_than_the_file_are_left_out(
    services: Services, studio: MemoryStudio, sync: Callable[..., None]
) -> None:
    for each in (1, 2):
        studio.label(each)
    studio.files[studio.items[2]["data"]["image"]] = png(np.zeros((64, 80, 3), np.uint8))
    sync()
    assert [task(services, each).status for each in (1, 2)] == ["labelled", "broken"]
    told_everywhere(services, 2, "40 x 32 pixels, this one is 80 x 64", labels=1)


@pytest.mark.studio(1, xml=POLYGON_XML)
def test_a_polygon_of_the_larger_original_is_used(
    services: Services, studio: MemoryStudio, sync: Callable[..., None]
) -> None:
    (drawn,) = masks.write_result(disc(0)[1], parse_label_config(POLYGON_XML), minimum_area=0, tolerance=0)
    studio.annotate(1, [{**drawn, "original_width": 4000, "original_height": 3200}])
    sync()
    assert (task(services).status, task(services).error) == ("labelled", "")
    assert np.array_equal(masks.mask_from_png(services.files.read(task(services).mask_file)), disc(0)[1])


# -- not understood --------------------------------------------------------------------------------------------------
def test_an_annotation_that_says_nothing_is_left_out(
    services: Services, studio: MemoryStudio, sync: Callable[..., None]
) -> None:
    studio.label(1)
    studio.annotate(2, [{**region(disc(1)[1]), "from_name": "brush", "to_name": "picture"}])
    studio.annotate(3, [])
    sync()
    assert [task(services, each).status for each in (1, 2, 3)] == ["labelled", "broken", "labelled"]
    told_everywhere(services, 2, "the labelling configuration has no image 'picture'", labels=2)


def test_key_points_alone_are_no_mask_of_background(
    services: Services, studio: MemoryStudio, sync: Callable[..., None]
) -> None:
    point = {"x": 50, "y": 50, "width": 1, "keypointlabels": ["cell"]}
    studio.annotate(1, [{**region(disc(1)[1]), "from_name": "kp", "type": "keypointlabels", "value": point}])
    sync()
    told_everywhere(services, 1, "what is drawn is no mask (keypointlabels of 'kp'). Draw the mask with", labels=0)


def test_annotators_of_whom_one_is_not_understood(
    services: Services, studio: MemoryStudio, sync: Callable[..., None]
) -> None:
    studio.label(1, completed_by=1)
    studio.annotate(1, [{**region(disc(0)[1]), "to_name": "picture"}], completed_by=2)
    sync(several_annotations="majority")
    assert task(services).status == "labelled"
    assert "no image 'picture'" in task(services).error
    assert np.array_equal(masks.mask_from_png(services.files.read(task(services).mask_file)), disc(0)[1])


# -- images that cannot be had ---------------------------------------------------------------------------------------
def test_a_label_without_its_image_is_counted_when_the_image_is_back(
    services: Services, studio: MemoryStudio, sync: Callable[..., None], clock: Clock
) -> None:
    reference = studio.items[1]["data"]["image"]
    content = studio.files.pop(reference)
    studio.label(1)
    sync()
    assert (task(services).status, task(services).annotation_id) == ("unavailable", 1)
    told_everywhere(services, 1, f"{reference} cannot be fetched", labels=0)

    retry_images(look_at(services))
    assert task(services).status == "unavailable"
    studio.files[reference] = content
    retry_images(look_at(services))
    assert task(services).status == "unavailable"  # asked a moment ago
    clock.go_on(hours=1)
    retry_images(look_at(services))
    assert (task(services).status, task(services).error) == ("labelled", "")
    assert np.array_equal(masks.mask_from_png(services.files.read(task(services).mask_file)), disc(0)[1])


def test_images_are_not_blamed_while_the_host_is_away(
    services: Services, studio: MemoryStudio, sync: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.files.clear()
    studio.label(1)

    def away() -> None:
        raise LabelStudioUnavailable("away")

    monkeypatch.setattr(studio, "whoami", away)
    with pytest.raises(LabelStudioUnavailable):
        sync()
    assert services.store.tasks(PROJECT) == []  # the next sync reads it, and nothing was told meanwhile
    monkeypatch.undo()
    studio.files = MemoryStudio.with_images(4).files
    sync()
    assert task(services).status == "labelled"


# -- what only a training finds --------------------------------------------------------------------------------------
@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n no mask", None])
def test_a_mask_that_was_damaged_on_disk_is_counted_no_longer_and_then_read_again(
    content: bytes | None, services: Services, studio: MemoryStudio, sync: Callable[..., None], clock: Clock
) -> None:
    for each in (1, 2, 3):
        studio.label(each)
    sync(**TINY)
    file = services.files.local(task(services, 3).mask_file)
    kept = file.read_bytes()
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content.ljust(len(kept), b"\0") if content else content)
    assert train_if_wanted(look_at(services, settings=TINY))
    version = services.checkpoints(PROJECT).latest()
    assert version is not None
    assert version.record.labels.keys() == {"1", "2"}
    assert task(services, 3).status == "unavailable"
    told_everywhere(services, 3, "Training could not use it", labels=2)
    assert not train_if_wanted(look_at(services, settings=TINY))  # nothing else than that changed

    clock.go_on(hours=1)
    retry_images(look_at(services))
    assert (task(services, 3).status, file.read_bytes()) == ("labelled", kept)
    assert not train_if_wanted(look_at(services, settings=TINY))


def test_a_training_that_finds_nothing_usable_leaves_it_out(
    services: Services, studio: MemoryStudio, sync: Callable[..., None]
) -> None:
    studio.label(1)
    sync(**TINY)
    services.files.local(task(services).mask_file).write_bytes(b"no mask")
    with pytest.raises(TrainingError, match="nothing to train on"):
        train_if_wanted(look_at(services, settings=TINY))
    told_everywhere(services, 1, "Training could not use it", labels=0)


def test_a_label_that_was_replaced_meanwhile_is_not_left_out(services: Services) -> None:
    old = Task(PROJECT, 1, "/data/upload/0.png", status="labelled", label_digest="old")
    services.store.put_tasks([Task(PROJECT, 1, "/data/upload/0.png", status="labelled", label_digest="new")])
    services.store.leave_out([old], {1: "damaged"})
    assert task(services).status == "labelled"


# -- labels that earlier releases read -------------------------------------------------------------------------------
def test_labels_of_which_earlier_rules_may_have_left_something_out_are_read_again(
    services: Services, studio: MemoryStudio, sync: Callable[..., None]
) -> None:
    studio.label(1)
    studio.annotate(2, [{**region(disc(1)[1]), "to_name": "picture"}])
    sync()
    background = masks.png_bytes(np.zeros(SHAPE, np.uint8))
    file = services.files.local(task(services, 1).mask_file).with_name("2-background.png")
    file.write_bytes(background)
    services.store.put_tasks(
        [Task(PROJECT, 2, "/data/upload/1.png", updated_at=task(services, 2).updated_at, status="labelled",
              mask_file=str(file), label_digest="background")]
    )  # fmt: skip
    look = look_at(services)
    s = look.settings
    parts = (look.label_map.digest, 0.2, "", s.seed, s.several_annotations, s.cost_measure)  # 0.2: the share of before
    by_first_rules = hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()
    services.store.update_project(PROJECT, labels_digest=by_first_rules)
    before = task(services, 1)
    sync()
    assert (task(services, 1), task(services, 2).status) == (before, "broken")
    assert project_of(services).labels_digest != by_first_rules
