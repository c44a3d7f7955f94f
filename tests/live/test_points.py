"""Points in a real Label Studio: asked for before there is a network, answered, learned from, and asked for elsewhere.

The tests follow one project through its life, in this order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from processes import wait_for
from steps import label_map_of, predictions, true_mask
from support import Nextmask

from ml_backend.annotations.boxes import boxes_from_text
from ml_backend.annotations.key_points import has_points, read_points
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.annotations.masks import mask_from_png
from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.parts import merged_mask, parts_of
from ml_backend.store import Task

pytestmark = pytest.mark.live

IMAGES, STEP, POINTS = 8, 4, 6
SIZE = (400, 320)


@pytest.fixture(scope="module")
def project(serving: Nextmask, make_module_project: Callable[..., int]) -> int:
    """Eight images, of which six points each are asked for, and nothing labelled yet."""
    made = make_module_project(images=IMAGES)
    settings = {**serving.project_settings, "strategy": "points", "strategy_options": {"count": POINTS}}
    changes = serving.connection(made).connect({**settings, "train_after": STEP}, add_query_control=True)
    assert any("added the control 'points'" in change for change in changes)
    serving.wait_settled(made)
    return made


def shown(client: LabelStudio, project: int, version: str) -> dict[int, list[dict[str, Any]]]:
    return {row["task"]: row["result"] for row in predictions(client, project, version)}


def answered(task: Task) -> set[tuple[int, int]]:
    return {(box.top, box.left) for box in boxes_from_text(task.boxes)}


def labelled(serving: Nextmask, project: int) -> list[Task]:
    return serving.services.store.tasks(project, status="labelled")


def test_the_first_points_come_without_a_guess(project: int, serving: Nextmask, label_studio: LabelStudio) -> None:
    status, label_map = serving.status(project), label_map_of(label_studio, project)
    rows = shown(label_studio, project, status.version)
    assert len(rows) == IMAGES
    for result in rows.values():
        assert len(result) == POINTS
        assert has_points(result, label_map)
        assert not any(region["value"].get("keypointlabels") for region in result)
    assert not any("points" in hint for hint in status.hints)
    assert status.errors == {}


def test_answers_are_learned_from_and_label_nothing_else(
    project: int, serving: Nextmask, label_studio: LabelStudio, dataset: Dataset
) -> None:
    assert [one.error for one in serving.annotate(project, dataset, STEP)] == [""] * STEP
    status = serving.wait_for_version(project, 1)
    label_map, tasks = label_map_of(label_studio, project), labelled(serving, project)
    assert (status.errors, len(tasks), status.trained_labels) == ({}, STEP, STEP)
    for task in tasks:
        mask = mask_from_png(serving.services.files.read(task.mask_file))
        truth = true_mask(label_studio, project, task.task_id, dataset, label_map)
        assert (mask != IGNORE_INDEX).sum() == POINTS == len(answered(task))
        assert all(mask[at] == truth[at] for at in answered(task))
        assert task.effort == POINTS


def test_then_they_come_with_the_networks_guess_and_never_at_the_same_pixel(
    project: int, serving: Nextmask, label_studio: LabelStudio, dataset: Dataset
) -> None:
    """Of all images: those that were answered are asked for more in follow-up tasks."""
    status, label_map = serving.status(project), label_map_of(label_studio, project)
    tasks = {task.task_id: task for task in serving.services.store.tasks(project)}
    known: dict[str, set[tuple[int, int]]] = {task.image: answered(task) for task in labelled(serving, project)}
    rows = shown(label_studio, project, status.version)
    again = [task_id for task_id in rows if tasks[task_id].image in known]
    assert again, "nothing more was asked of the images that have answers"
    for task_id, result in rows.items():
        answers, problems = read_points(result, label_map, SIZE)
        assert (len(answers), problems) == (POINTS, ())
        assert {(one.row, one.column) for one in answers}.isdisjoint(known.get(tasks[task_id].image, ()))
    for task_id in again:
        (found,) = label_studio.tasks(project, [task_id])
        assert "nextmask_follow_up" in found["data"]
    assert [one.error for one in serving.annotate(project, dataset, len(rows))] == [""] * len(rows)
    wait_for(lambda: len(labelled(serving, project)) == STEP + len(rows), name="the arrival of all answers")
    # Some of the answers may have come in time for the second version already.
    wait_for(lambda: (serving.status(project).trained_labels or 0) > STEP, name="a version that learned from them")
    assert serving.status(project).errors == {}
    for image in {tasks[task_id].image for task_id in again}:
        parts = parts_of(task for task in labelled(serving, project) if task.image == image)
        known = merged_mask(serving.services.files, parts) != IGNORE_INDEX
        assert known.sum() == len(parts) * POINTS
        assert len(parts) == 2


def test_audit_images_ask_for_points_drawn_evenly_and_their_answers_measure(
    serving: Nextmask, make_module_project: Callable[..., int], label_studio: LabelStudio, dataset: Dataset
) -> None:
    project, drawn = make_module_project(images=IMAGES), 12
    settings = {**serving.project_settings, "strategy": "points", "strategy_options": {"count": POINTS}}
    # Nothing trains before all answers are there: a second version might measure worse, and would be kept back.
    settings |= {"train_after": IMAGES, "queue_window": 2 * STEP, "audit_share": 0.3, "audit_points": drawn}
    serving.connection(project).connect(settings, add_query_control=True)
    serving.wait_settled(project)
    label_map, rows = label_map_of(label_studio, project), shown(label_studio, project, serving.status(project).version)
    audits = {task for task, result in rows.items() if len(result) == drawn}
    assert audits
    assert all(len(result) == POINTS for task, result in rows.items() if task not in audits)
    assert [one.error for one in serving.annotate(project, dataset, len(rows))] == [""] * len(rows)
    wait_for(lambda: len(labelled(serving, project)) == len(rows), name="the arrival of all answers")
    assert {task.task_id for task in labelled(serving, project) if task.held_out} == audits
    serving.services.store.wake(project, train=True)
    wait_for(lambda: getattr(serving.status(project).held_out, "images", 0) == len(audits), name="a version's measure")
    status, record = serving.status(project), serving.services.checkpoints(project).history()[-1]
    assert status.errors == {}
    assert record.measures["pixels"] == pytest.approx(len(audits) * SIZE[0] * SIZE[1], rel=0.01)
    assert status.points is not None
    assert status.points.answers == len(audits) * drawn + (len(rows) - len(audits)) * POINTS
    for task in audits:
        assert {"keypointlabels" in region["value"] for region in rows[task]} == {False}
        assert len(read_points(rows[task], label_map, SIZE)[1]) > 0, "a ring is no answer"
