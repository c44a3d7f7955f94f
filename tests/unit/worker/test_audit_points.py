"""Audit images of a project that asks for points: points drawn by chance, without a guess, and measured by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from memory_studio import MemoryStudio
from wiring import PROJECT, SHAPE, XML, Json, disc, look_at, nothing, region

from ml_backend.annotations.boxes import Box, boxes_from_text
from ml_backend.annotations.config_edits import with_points_control
from ml_backend.annotations.key_points import has_points, read_points
from ml_backend.annotations.label_map import IGNORE_INDEX, parse_label_config
from ml_backend.annotations.masks import mask_from_png
from ml_backend.learning.training import Item
from ml_backend.projects.audit import audit_set
from ml_backend.projects.audit_points import audit_points
from ml_backend.projects.services import Services
from ml_backend.server.model import NextmaskModel
from ml_backend.store import Task
from ml_backend.worker.reconcile import reconcile
from ml_backend.worker.training_run import TrainingRun

POINTS_XML = with_points_control(XML)
LABELS = parse_label_config(POINTS_XML)
QUICK = {"input_size": 32, "batch_size": 4, "train_after": 99, "encoder_weights": "none", "queue_window": 24}
ASKED, DRAWN = 4, 12

pytestmark = [
    pytest.mark.usefixtures("one_thread", "served_project"),
    pytest.mark.studio(24, connected=True, xml=POINTS_XML),
    pytest.mark.settings(
        strategy="points", strategy_options={"count": ASKED}, audit_points=DRAWN, audit_share=0.125, **QUICK
    ),
]


@pytest.fixture(autouse=True)
def _known(services: Services) -> None:
    services.store.update_project(PROJECT, label_config=POINTS_XML)


def audits(services: Services) -> list[Task]:
    audit = audit_set(services.settings, services.store, PROJECT)
    return [task for task in services.store.tasks(PROJECT) if audit.opens_empty(task)]


def prediction_of(studio: MemoryStudio, task: int) -> Json:
    version = studio.fields["model_version"]
    (row,) = (row for row in studio.predictions if (row["task"], row["model_version"]) == (task, version))
    return row


def labels(points: list[Json]) -> list[Any]:
    return [point["value"].get("keypointlabels") for point in points]


def place(point: Json) -> tuple[int, int]:
    value = point["value"]
    return int(value["y"] / 100 * SHAPE[0]), int(value["x"] / 100 * SHAPE[1])


def answered(studio: MemoryStudio, task: int) -> list[Json]:
    """The points of a task, each answered as the truth has it."""
    truth, result = disc(task - 1)[1], []
    for point in prediction_of(studio, task)["result"]:
        label = "cell" if truth[place(point)] else "background"
        value = {**point["value"], "keypointlabels": [label]}
        result.append({**point, "value": value, "origin": "prediction-changed"})
    return result


def submit(studio: MemoryStudio, task: int, result: list[Json] | None = None) -> None:
    parent = prediction_of(studio, task)["id"]
    studio.annotate(task, answered(studio, task) if result is None else result, parent_prediction=parent)


def label(services: Services, number: int) -> Task:
    task = services.store.task(PROJECT, number)
    assert task is not None
    return task


def items(services: Services) -> dict[str, Item]:
    look = look_at(services, label_map=LABELS)
    run = TrainingRun(look, services.store.tasks(PROJECT, status="labelled"), LABELS, "digest")
    return {item.id: item for item in run.items(services.store.tasks(PROJECT, status="labelled"))[0]}


# -- what is shown ---------------------------------------------------------------------------------------------------
def test_they_ask_for_points_drawn_all_over_the_image_and_show_no_guess(
    services: Services, studio: MemoryStudio
) -> None:
    reconcile(services, PROJECT, nothing)
    measuring = {task.task_id: task for task in audits(services)}
    assert len(measuring) >= 2
    for task_id in studio.items:
        shown = prediction_of(studio, task_id)["result"]
        assert has_points(shown, LABELS)
        if task_id not in measuring:
            assert len(shown) == ASKED
            assert all(labels(shown))
            continue
        assert labels(shown) == [None] * DRAWN
        drawn = audit_points(measuring[task_id].image, SHAPE, count=DRAWN, seed=services.settings.seed)
        assert {Box.point(*place(point)) for point in shown} == set(drawn)
        (query,) = services.store.published_queries(PROJECT, task_id).values()
        assert set(query.boxes) == set(drawn)
    assert not services.store.ranked_queries(PROJECT).keys() & measuring.keys(), "a strategy never asks them"


def test_opened_outside_the_queue_they_show_the_same(services: Services, studio: MemoryStudio) -> None:
    reconcile(services, PROJECT, nothing)
    task = audits(services)[0].task_id
    (answer,) = NextmaskModel(services, PROJECT, POINTS_XML).predict([{**studio.items[task], "project": PROJECT}])
    assert answer["result"] == prediction_of(studio, task)["result"]


@pytest.mark.parametrize("settings", [{"audit_points": 0}, {"strategy": "margin", "strategy_options": {}}])
def test_where_masks_are_wanted_they_ask_for_their_mask(
    services: Services, studio: MemoryStudio, settings: dict[str, Any]
) -> None:
    studio.backends[0]["extra_params"] = settings
    reconcile(services, PROJECT, nothing)
    for task in audits(services):
        assert prediction_of(studio, task.task_id)["result"] == []


# -- what measures ---------------------------------------------------------------------------------------------------
def test_their_answers_measure_and_never_train(services: Services, studio: MemoryStudio) -> None:
    reconcile(services, PROJECT, nothing)
    audit = audits(services)[0].task_id
    other = next(task for task in studio.items if task not in {one.task_id for one in audits(services)})
    submit(studio, audit)
    submit(studio, other)
    reconcile(services, PROJECT, nothing)
    assert (label(services, audit).held_out, label(services, audit).masked) == (True, False)
    assert (label(services, other).held_out, label(services, other).masked) == (False, True)
    made = items(services)
    assert (made[str(audit)].held_out, made[str(audit)].points) == (True, DRAWN)
    assert (made[str(other)].held_out, made[str(other)].points) == (False, 0)
    mask, truth = mask_from_png(made[str(audit)].mask.read_bytes()), disc(audit - 1)[1]
    assert (mask != IGNORE_INDEX).sum() == DRAWN
    assert (mask == truth)[mask != IGNORE_INDEX].all()
    assert not any(
        query.boxes
        for (task, version), query in services.store.published_queries(PROJECT).items()
        if task == audit and version != label(services, audit).shown_version
    ), "nothing more is asked of it"


def test_only_the_points_that_were_drawn_measure(services: Services, studio: MemoryStudio) -> None:
    """One is moved, one deleted, one left without a class, one added, and a mask is drawn over others."""
    reconcile(services, PROJECT, nothing)
    task = audits(services)[0].task_id
    drawn = {place(point) for point in prediction_of(studio, task)["result"]}
    moved, _deleted, unanswered, *kept = answered(studio, task)
    elsewhere = next((row, 1) for row in range(SHAPE[0]) if (row, 1) not in drawn)
    moved["value"] |= {"x": 1.5 / SHAPE[1] * 100, "y": (elsewhere[0] + 0.5) / SHAPE[0] * 100}
    del unanswered["value"]["keypointlabels"]
    added = {**kept[0], "id": "new", "origin": "manual", "value": {**kept[0]["value"], "x": 99.0, "y": 99.0}}
    painted = np.zeros(SHAPE, np.uint8)
    row, column = place(kept[0])
    painted[row, max(0, column - 2) : column + 3] = 1
    submit(studio, task, [moved, unanswered, *kept, added, region(painted, "nucleus")])
    reconcile(services, PROJECT, nothing)
    own = label(services, task)
    assert (own.status, own.held_out) == ("labelled", True)
    assert Box.point(*elsewhere) in boxes_from_text(own.boxes), "what was said is kept"
    item = items(services)[str(task)]
    mask = mask_from_png(item.mask.read_bytes())
    places = set(zip(*(axis.tolist() for axis in np.nonzero(mask != IGNORE_INDEX)), strict=True))
    assert places == {place(point) for point in kept}
    assert mask[place(kept[0])] == 2, "the stroke over a point is its newest answer"
    assert item.points == DRAWN


def test_where_none_of_them_was_answered_the_label_is_told_to_measure_nothing(
    services: Services, studio: MemoryStudio
) -> None:
    reconcile(services, PROJECT, nothing)
    task = audits(services)[0].task_id
    drawn = {place(point) for point in prediction_of(studio, task)["result"]}
    row = next(row for row in range(SHAPE[0]) if (row, 1) not in drawn)
    added = answered(studio, task)[0]
    added["value"] |= {"x": 1.5 / SHAPE[1] * 100, "y": (row + 0.5) / SHAPE[0] * 100}
    submit(studio, task, [added])
    reconcile(services, PROJECT, nothing)
    assert items(services) == {}
    assert "None of the points that were drawn of the image was answered" in label(services, task).error
    assert services.files.read(label(services, task).mask_file)


def test_with_a_lost_state_they_still_measure(services: Services, studio: MemoryStudio) -> None:
    """Neither the prediction nor what was asked is known any more."""
    reconcile(services, PROJECT, nothing)
    task = audits(services)[0].task_id
    submit(studio, task)
    studio.predictions.clear()
    services.store.delete_tasks(PROJECT, list(studio.items))
    services.store.update_project(PROJECT, cursor=None)
    reconcile(services, PROJECT, nothing)
    own = label(services, task)
    assert (own.status, own.held_out, own.masked) == ("labelled", True, False)
    item = items(services)[str(task)]
    assert (item.points, (mask_from_png(item.mask.read_bytes()) != IGNORE_INDEX).sum()) == (DRAWN, DRAWN)


def test_points_that_a_strategy_chose_do_not_measure_even_without_a_guess(
    services: Services, studio: MemoryStudio
) -> None:
    """Another audit set is drawn afterwards: the image of such a label trains."""
    studio.backends[0]["extra_params"] = {"point_guesses": False}
    reconcile(services, PROJECT, nothing)
    measuring = {one.task_id for one in audits(services)}
    other = next(task for task in studio.items if task not in measuring)
    shown = prediction_of(studio, other)["result"]
    assert labels(shown) == [None] * ASKED, "guesses are hidden"
    submit(studio, other)
    reconcile(services, PROJECT, nothing)
    own = label(services, other)
    assert own.masked
    studio.backends[0]["extra_params"] = {"point_guesses": False, "audit_share": 0.9}
    reconcile(services, PROJECT, nothing)
    assert not label(services, other).held_out


# -- guesses that are hidden -----------------------------------------------------------------------------------------
def test_guesses_are_hidden_by_a_setting_and_known_all_the_same(services: Services, studio: MemoryStudio) -> None:
    studio.backends[0]["extra_params"] = {"point_guesses": False}
    reconcile(services, PROJECT, nothing)
    measuring = {one.task_id for one in audits(services)}
    task = next(task for task in studio.items if task not in measuring)
    shown, version = prediction_of(studio, task)["result"], studio.fields["model_version"]
    assert labels(shown) == [None] * ASKED
    assert read_points(shown, LABELS, SHAPE)[0] == (), "what nobody answers is no label, and no background"
    kept = services.store.published_mask(PROJECT, version, task)
    assert kept is not None
    assert (mask_from_png(kept) != IGNORE_INDEX).sum() == ASKED
    studio.backends[0]["extra_params"] = {}
    reconcile(services, PROJECT, nothing)
    assert studio.fields["model_version"] != version, "the queue is made anew"
    assert all(labels(prediction_of(studio, task)["result"]))
