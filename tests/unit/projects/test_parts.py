"""Labels of parts of images: how they are asked for, shown, read, and learned from, with a host in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_studio import MemoryStudio
from wiring import (
    LABEL_MAP,
    PROJECT,
    SHAPE,
    XML,
    disc,
    give_project,
    mask_of,
    nothing,
    png,
    region,
    renderer_of,
    stored,
    synced,
)

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Box, Query, boxes_from_text
from ml_backend.annotations.config_edits import with_query_control
from ml_backend.annotations.effort import read_points
from ml_backend.annotations.label_map import IGNORE_INDEX, parse_label_config
from ml_backend.annotations.query_regions import read_rectangles, write_rectangles
from ml_backend.projects.audit import AuditSet
from ml_backend.projects.parts import MergedLabel, merged_mask, supervising
from ml_backend.projects.services import Services
from ml_backend.projects.shown_masks import MaskRenderer
from ml_backend.server.model import NextmaskModel
from ml_backend.store import Store, Task
from ml_backend.system.files import Folder
from ml_backend.worker.look import Look
from ml_backend.worker.publish import PriorityQueue
from ml_backend.worker.train import changed_labels, train_if_wanted
from ml_backend.worker.training_run import TrainingRun

PARTS_XML = with_query_control(XML)
PARTS = parse_label_config(PARTS_XML)
BOX, OTHER = Box(0, 0, 16, 16), Box(20, 8, 16, 16)
VERSION = "nextmask-1.1"

pytestmark = [
    pytest.mark.studio(4, xml=PARTS_XML),
    pytest.mark.settings(audit_share=0.0, input_size=32),
]


@pytest.fixture(autouse=True)
def _served(services: Services) -> None:
    give_project(services)
    services.store.update_project(PROJECT, label_config=PARTS_XML)


def rectangles(*boxes: Box) -> list[dict[str, Any]]:
    return write_rectangles(boxes, PARTS, SHAPE)


def asked(services: Services, *boxes: Box, version: str = VERSION, task_id: int = 1) -> None:
    """The task was published with rectangles."""
    services.store.put_queries(PROJECT, version, {task_id: Query(boxes or (BOX,), 3.0)})


def predicted(studio: MemoryStudio, services: Services, version: str = VERSION, task_id: int = 1) -> int:
    """The task has a prediction of an empty mask; returns its id."""
    row = {"task": task_id, "result": [], "score": 0.5, "model_version": version}
    studio.import_predictions(PROJECT, [row])
    services.store.put_published(PROJECT, version, [(task_id, 0.5, masks.png_bytes(np.zeros(SHAPE, np.uint8)))])
    return int(studio.predictions[-1]["id"])


# -- reading ---------------------------------------------------------------------------------------------------------
def test_only_pixels_inside_the_returned_rectangles_are_labelled(services: Services, studio: MemoryStudio) -> None:
    truth = disc(0)[1]
    studio.annotate(1, [region(truth), *rectangles(BOX, OTHER)])
    synced(services)
    found = stored(services)
    assert (found.status, found.error, boxes_from_text(found.boxes)) == ("labelled", "", (BOX, OTHER))
    expected = np.full(SHAPE, IGNORE_INDEX, np.uint8)
    for box in (BOX, OTHER):
        expected[box.slices] = truth[box.slices]
    assert np.array_equal(mask_of(services, found), expected)


def test_rectangles_that_the_annotator_added_count_and_deleted_ones_do_not(
    services: Services, studio: MemoryStudio
) -> None:
    asked(services, BOX)
    (drawn,) = rectangles(OTHER)
    drawn |= {"readonly": False, "id": "by-hand", "origin": "manual"}
    studio.annotate(1, [region(disc(0)[1]), drawn], parent_prediction=predicted(studio, services))
    synced(services)
    assert boxes_from_text(stored(services).boxes) == (OTHER,)


def test_rectangles_alone_say_that_all_in_them_is_background(services: Services, studio: MemoryStudio) -> None:
    studio.annotate(1, rectangles(BOX))
    synced(services)
    found = stored(services)
    assert (found.status, found.regions) == ("labelled", 0)
    assert (mask_of(services, found)[BOX.slices] == 0).all()
    assert (mask_of(services, found) == IGNORE_INDEX).sum() == SHAPE[0] * SHAPE[1] - BOX.area


def test_where_unpainted_pixels_are_ignored_something_must_be_painted_inside(
    services: Services, studio: MemoryStudio
) -> None:
    truth = np.zeros(SHAPE, np.uint8)
    truth[20:30, 20:30] = 1
    studio.annotate(1, [region(truth), *rectangles(BOX)])
    synced(services, unpainted="ignore")
    assert stored(services).status == "broken"
    assert "labels nothing inside its rectangles" in stored(services).error


def test_the_hosts_prediction_tells_that_rectangles_were_shown_when_the_state_is_lost(
    services: Services, studio: MemoryStudio
) -> None:
    """No row of what was published is left here: the prediction that the label started from is all there is."""
    row = {"task": 1, "result": rectangles(BOX), "score": 0.5, "model_version": VERSION}
    studio.import_predictions(PROJECT, [row])
    studio.annotate(1, [region(disc(0)[1])], parent_prediction=int(studio.predictions[-1]["id"]))
    studio.annotate(2, [region(disc(1)[1])], parent_prediction=predicted(studio, services, task_id=2))
    synced(services)
    assert (stored(services).status, stored(services).mask_file) == ("broken", "")
    assert (stored(services, 2).status, stored(services, 2).boxes) == ("labelled", "")


def test_published_with_rectangles_but_returned_with_none_supervises_nothing(
    services: Services, studio: MemoryStudio
) -> None:
    asked(services)
    studio.annotate(1, [region(disc(0)[1])], parent_prediction=predicted(studio, services))
    synced(services)
    found = stored(services)
    assert (found.status, found.mask_file) == ("broken", "")
    assert "returns none" in found.error
    assert "Draw a rectangle with 'query'" in found.error
    studio.annotate(1, [region(disc(0)[1]), *rectangles(BOX)])  # and that mends it
    synced(services)
    assert stored(services).status == "labelled"


def test_without_rectangles_asked_and_returned_the_whole_image_is_labelled(
    services: Services, studio: MemoryStudio
) -> None:
    asked(services, task_id=2)
    studio.annotate(1, [region(disc(0)[1])])
    synced(services)
    assert (stored(services).status, stored(services).boxes) == ("labelled", "")
    assert np.array_equal(mask_of(services, stored(services)), disc(0)[1])


def test_what_counts_is_what_this_annotator_was_shown(services: Services, studio: MemoryStudio) -> None:
    """The editor was open with the whole image while the task was published anew with rectangles, and the other way."""
    before = predicted(studio, services, "nextmask-0.1")
    asked(services, version="nextmask-1.2")
    studio.annotate(1, [region(disc(0)[1])], parent_prediction=before)
    asked(services, version="nextmask-1.2", task_id=2)
    predicted(studio, services, "nextmask-1.3", task_id=2)
    studio.annotate(2, [region(disc(1)[1])], parent_prediction=predicted(studio, services, "nextmask-1.2", task_id=2))
    synced(services)
    assert [stored(services, number).status for number in (1, 2)] == ["labelled", "broken"]
    # the predictions are pruned, and all is read again
    studio.predictions.clear()
    for version in ("nextmask-0.1", "nextmask-1.2"):
        services.store.forget_version(PROJECT, version)
    synced(services, audit_share=0.1)
    assert [stored(services, number).status for number in (1, 2)] == ["labelled", "broken"]
    # the annotator of whom it is not known what was shown may have been shown rectangles
    studio.annotate(1, [region(disc(0)[1])])
    synced(services, audit_share=0.1)
    assert stored(services).status == "broken"


@pytest.mark.parametrize("count", [1, 400])
def test_useless_rectangles_are_reported_and_supervise_nothing(
    services: Services, studio: MemoryStudio, count: int
) -> None:
    (outside,) = rectangles(BOX)
    outside["value"] |= {"x": 150.0}
    empty = {**outside, "value": {**outside["value"], "x": 1.0, "width": 0}}
    studio.annotate(1, [region(disc(0)[1]), *[outside, empty] * count])
    studio.annotate(2, [region(disc(1)[1]), *[outside, empty] * count, *rectangles(BOX)])
    synced(services)
    broken, usable = stored(services, 1), stored(services, 2)
    assert (broken.status, usable.status) == ("broken", "labelled")
    assert "none of its rectangles can be used" in broken.error
    assert "covers no pixel" in usable.error
    assert max(len(broken.error), len(usable.error)) < 1000
    assert boxes_from_text(usable.boxes) == (BOX,)


def test_hundreds_of_rectangles(services: Services, studio: MemoryStudio) -> None:
    boxes = [Box(left, top, 3, 3) for left in range(30) for top in range(20)]
    studio.annotate(1, [region(disc(0)[1]), *rectangles(*boxes)])
    synced(services)
    assert len(boxes_from_text(stored(services).boxes)) == 600


def test_parts_of_one_image_are_held_out_together(services: Services, studio: MemoryStudio) -> None:
    for index in range(4, 24):
        studio.add_task(index)
    for number in list(studio.items):
        data = studio.items[number]["data"]
        (copy,) = studio.import_tasks(PROJECT, [{"data": {**data, "nextmask_follow_up": number}}])
        for one in (number, copy):
            studio.annotate(one, [region(disc(0)[1]), *rectangles(BOX)])
    synced(services, audit_share=0.5)
    tasks = services.store.tasks(PROJECT)
    assert {one.held_out for one in tasks} == {True, False}
    trained = {stored(services, number).image for number in range(1, 5)}  # by the version that serves
    assert [one.held_out for one in tasks] == [
        AuditSet(0.5, 0).has(one.image) and one.image not in trained for one in tasks
    ]


# -- effort ----------------------------------------------------------------------------------------------------------
def test_effort_is_what_was_changed_inside_of_the_rectangles(services: Services, studio: MemoryStudio) -> None:
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[2:12, 2:12] = 1
    drawn[20:30, 20:30] = 1  # not asked for
    started = predicted(studio, services)
    studio.annotate(1, [region(drawn), *rectangles(BOX)], parent_prediction=started, lead_time=7.0)
    synced(services)
    found = stored(services)
    points = read_points(services.files.read(found.effort_file))
    assert found.effort == pytest.approx(3.6, abs=1.01)  # and one click for the region, on one of its two parts
    assert points[:, :2].max() < 16
    synced(services, cost_measure="seconds")
    assert stored(services).effort == pytest.approx(7)
    # the version is pruned: what was shown stays known
    services.store.forget_version(PROJECT, VERSION)
    studio.predictions.clear()
    synced(services, cost_measure="clicks")
    assert stored(services).effort == found.effort


def test_effort_that_cannot_be_told_is_none(services: Services, studio: MemoryStudio) -> None:
    changed = region(disc(0)[1]) | {"origin": "prediction-changed"}
    studio.annotate(1, [changed], parent_prediction=77)  # nobody knows what was shown
    studio.annotate(2, [region(disc(1)[1])], lead_time=0)
    studio.annotate(3, [region(disc(2)[1])], parent_prediction=predicted(studio, services, "nextmask-0.1", 3))
    synced(services)
    assert (stored(services, 1).effort, stored(services, 1).effort_file) == (None, "")
    assert (stored(services, 2).effort or 0) > 1
    assert (stored(services, 3).effort or 0) > 1  # of a version that shows no masks
    synced(services, cost_measure="seconds")
    assert (stored(services, 2).effort, stored(services, 2).effort_file) == (None, "")


# -- showing ---------------------------------------------------------------------------------------------------------
def ranked(services: Services, queries: dict[int, Query], version: str = VERSION) -> None:
    tasks = services.store.tasks(PROJECT)
    entries = {one.task_id: 1 - one.task_id / 100 for one in tasks}
    services.store.put_ranking(PROJECT, entries, queries, ranking_version=version, ranking_key="key")


def scorer(services: Services, label_map: Any = PARTS) -> MaskRenderer:
    return renderer_of(services, services.checkpoints(PROJECT).get(1), label_map)


def test_rectangles_are_published_beside_the_masks_and_noted_before(
    services: Services, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced(services)
    ranked(services, {1: Query((BOX, OTHER), 4.0)})
    before = []
    imported = studio.import_predictions

    def noting(project: int, rows: Any) -> int:
        before.append(services.store.published_queries(PROJECT))
        return imported(project, rows)

    monkeypatch.setattr(studio, "import_predictions", noting)
    queue = PriorityQueue(services.client, services.store, PROJECT, check=nothing)
    options = {"window": 10, "refill": 0.5, "progress": nothing}
    queue.publish(VERSION, lambda _: services.store.ranked(PROJECT), scorer(services).render, **options)
    rows = {row["task"]: row["result"] for row in studio.predictions}
    assert read_rectangles(rows[1], PARTS, SHAPE).boxes == (BOX, OTHER)
    assert {one["type"] for one in rows[1]} == {"brushlabels", "rectanglelabels"}
    assert not read_rectangles(rows[2], PARTS, SHAPE)
    assert before == [{(1, VERSION): Query((BOX, OTHER), 4.0)}]
    assert services.store.published_queries(PROJECT) == {(1, VERSION): Query((BOX, OTHER), 4.0)}


def test_a_task_whose_regions_the_host_refuses_was_not_asked_for_parts(
    services: Services, studio: MemoryStudio
) -> None:
    synced(services)
    ranked(services, {1: Query((BOX,)), 2: Query((BOX,))})
    studio.refuses = lambda row: row["task"] == 1 and bool(row["result"])
    queue = PriorityQueue(services.client, services.store, PROJECT, check=nothing)
    options = {"window": 10, "refill": 0.5, "progress": nothing}
    queue.publish(VERSION, lambda _: services.store.ranked(PROJECT), scorer(services).render, **options)
    assert {task for task, _ in services.store.published_queries(PROJECT)} == {2}


def test_without_a_control_nothing_is_shown_of_it(services: Services) -> None:
    synced(services)
    ranked(services, {1: Query((BOX,))})
    assert scorer(services, LABEL_MAP).queries == {}


def test_a_prediction_on_demand_shows_the_same_rectangles(
    services: Services, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced(services)
    ranked(services, {1: Query((BOX,), 2.0), 3: Query((OTHER,))})
    studio.annotate(3, [region(disc(2)[1]), *rectangles(BOX)])
    synced(services)
    items = [{**studio.items[number], "project": PROJECT} for number in (1, 2, 3)]
    model = NextmaskModel(services, str(PROJECT), PARTS_XML)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("all tasks were read")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "tasks", refuse)  # there may be 50,000 of them: a person waits
        found = [read_rectangles(one["result"], PARTS, SHAPE).boxes for one in model.predict(items)]
    assert found == [(BOX,), (), ()]  # the third one is labelled: what is asked of it takes a follow-up task
    assert services.store.published_queries(PROJECT) == {(1, VERSION): Query((BOX,), 2.0)}
    (rendered,) = scorer(services).render([stored(services)])
    assert model.predict(items[:1])[0]["result"] == list(rendered.regions)


def test_known_parts_are_laid_over_the_prediction(services: Services, studio: MemoryStudio) -> None:
    nuclei = np.full(SHAPE, 1, np.uint8)
    studio.annotate(1, [region(nuclei, "nucleus"), *rectangles(BOX)])
    data = studio.items[1]["data"]
    (follow_up,) = studio.import_tasks(PROJECT, [{"data": {**data, "nextmask_follow_up": 1}}])
    synced(services)
    (rendered,) = scorer(services).render([stored(services, follow_up)])
    assert rendered.png is not None
    shown = masks.mask_from_png(rendered.png)
    assert (shown[BOX.slices] == 2).all()
    assert (shown == 2).sum() < BOX.area + 50  # the model hardly knows nuclei
    assert (masks.read_result(rendered.regions, PARTS).mask[BOX.slices] == 2).all()
    services.files.local(stored(services).mask_file).write_bytes(b"damaged")
    (rendered,) = scorer(services).render([stored(services, follow_up)])
    assert rendered.png is not None
    assert not (masks.mask_from_png(rendered.png)[BOX.slices] == 2).all()


# -- training --------------------------------------------------------------------------------------------------------
def train(services: Services) -> bool:
    return train_if_wanted(Look(services, PROJECT, PARTS))


def labelled(services: Services, studio: MemoryStudio) -> list[Task]:
    """Two parts of the first image, in two tasks, and the second image as a whole."""
    (copy,) = studio.import_tasks(PROJECT, [{"data": studio.items[1]["data"]}])
    studio.annotate(1, [region(disc(0)[1]), *rectangles(BOX)])
    studio.label(2)
    studio.annotate(copy, [region(disc(0)[1]), *rectangles(OTHER)])
    synced(services)
    return services.store.tasks(PROJECT, status="labelled")


def test_parts_of_an_image_are_one_item_to_learn_from(services: Services, studio: MemoryStudio) -> None:
    tasks = labelled(services, studio)
    items, unavailable = TrainingRun(Look(services, PROJECT, PARTS), tasks, PARTS, "digest").items(tasks)
    assert unavailable == {}
    whole, parts = sorted(items, key=lambda item: "+" in item.id)
    assert (whole.id, parts.id) == ("2", "1+5")
    assert parts.labels == {str(one.task_id): one.label_digest for one in tasks if one.boxes}
    mask = masks.mask_from_png(parts.mask.read_bytes())
    assert np.array_equal(mask, merged_mask(services.files, [tasks[0], tasks[2]]))
    assert (mask != IGNORE_INDEX).sum() == BOX.area + OTHER.area
    assert parts.mask.name.startswith("merged-")


def test_the_newest_part_lies_on_top(tmp_path: Path) -> None:
    files = []
    for index, box in enumerate((BOX, Box(8, 8, 16, 16))):
        mask = np.full(SHAPE, IGNORE_INDEX, np.uint8)
        mask[box.slices] = index
        files.append(tmp_path / f"{index}.png")
        files[-1].write_bytes(png(mask))
    parts = [Task(PROJECT, at, "i", mask_file=str(file), label_digest=str(at)) for at, file in enumerate(files)]
    label = MergedLabel.of_parts(Folder(tmp_path), parts, tmp_path)
    assert (label.key, label.digest, label.held_out) == ("0+1", "0+1", False)
    assert isinstance(label.mask, Path)
    found = masks.mask_from_png(label.mask.read_bytes())
    assert (found[8:24, 8:24] == 1).all()
    assert (found[:8, :16] == 0).all()
    assert MergedLabel.of_parts(Folder(tmp_path), [parts[0], replace(parts[1], held_out=True)], tmp_path).held_out


def test_parts_that_do_not_merge_are_left_out_and_said(services: Services, studio: MemoryStudio) -> None:
    tasks = labelled(services, studio)
    services.files.local(tasks[0].mask_file).write_bytes(b"damaged")
    items, unavailable = TrainingRun(Look(services, PROJECT, PARTS), tasks, PARTS, "digest").items(tasks)
    assert [item.id for item in items] == ["2"]
    assert set(unavailable) == {"1", "5"}
    assert "parts of one image, do not merge" in stored(services, 5).error


def test_a_label_of_the_whole_image_stands_alone(services: Services, studio: MemoryStudio) -> None:
    tasks = labelled(services, studio)
    whole = replace(tasks[1], image=tasks[0].image)
    assert supervising([tasks[0], whole, tasks[2]]) == [whole]
    assert supervising(tasks) == tasks


def test_a_new_part_is_one_changed_label(services: Services, studio: MemoryStudio) -> None:
    known = services.checkpoints(PROJECT).get(1)
    tasks = labelled(services, studio)
    items, _ = TrainingRun(Look(services, PROJECT, PARTS), tasks, PARTS, "digest").items(tasks)
    labels = {key: digest for item in items for key, digest in item.labels.items()}
    version = replace(known, record=replace(known.record, labels=labels, skipped={}))
    assert changed_labels(version, tasks) == 0
    new = replace(tasks[0], task_id=9, label_digest="new")
    assert changed_labels(version, [*tasks, new]) == 1
    assert changed_labels(version, tasks[1:]) == 1
    skipped = replace(version, record=replace(version.record, labels={}, skipped=dict.fromkeys(labels, "why")))
    assert changed_labels(skipped, tasks) == 0


def test_a_real_training_records_the_parts(services: Services, studio: MemoryStudio) -> None:
    labelled(services, studio)
    services.store.wake(PROJECT, train=True)
    quick = services.settings.for_project({"iterations": 2, "batch_size": 2, "input_size": 32})
    assert train_if_wanted(Look(replace(services, settings=quick), PROJECT, PARTS))
    latest = services.checkpoints(PROJECT).latest()
    assert latest is not None
    assert latest.record.labels.keys() == {"1", "2", "5"}
    assert changed_labels(latest, services.store.tasks(PROJECT, status="labelled")) == 0
