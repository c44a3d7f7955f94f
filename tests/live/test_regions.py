"""CEREALS in a real Label Studio: regions are asked for, labelled, added, deleted, and asked for again elsewhere.

The tests follow one project through its life, in this order.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from steps import label_map_of, predictions, true_mask
from support import Nextmask

from ml_backend.annotations.boxes import Box, boxes_from_text, covered_pixels
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.annotations.masks import mask_from_png, read_result, write_result
from ml_backend.annotations.query_regions import is_query, overlap, read_rectangles, write_rectangles
from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.parts import merged_mask, parts_of
from ml_backend.store import Task

pytestmark = pytest.mark.live

IMAGES, STEP = 12, 4
SIZE = (400, 320)
OPTIONS = {"window": 128, "stride": 64, "cost_width": 4, "iterations": 40}
ADDED = Box(240, 300, 60, 80)


@pytest.fixture(scope="module")
def project(serving: Nextmask, make_module_project: Callable[..., int], dataset: Dataset) -> int:
    """Twelve images, four of them labelled as a whole, one model, and regions of the others that are asked for."""
    made = make_module_project(images=IMAGES)
    settings = {**serving.project_settings, "strategy": "cereals", "strategy_options": OPTIONS, "train_after": STEP}
    changes = serving.connection(made).connect(settings, add_query_control=True)
    assert any("added the control 'query'" in change for change in changes)
    serving.wait_settled(made)
    assert len(serving.annotate(made, dataset, STEP)) == STEP
    serving.wait_for_version(made, 1)
    return made


def boxes_of(row: dict[str, Any], client: LabelStudio, project: int) -> tuple[Box, ...]:
    return read_rectangles(row["result"], label_map_of(client, project), SIZE).boxes


def task_of(serving: Nextmask, project: int, task_id: int) -> Task:
    (found,) = [task for task in serving.services.store.tasks(project) if task.task_id == task_id]
    return found


def labelled_pixels(serving: Nextmask, task: Task) -> Any:
    return mask_from_png(serving.services.files.read(task.mask_file)) != IGNORE_INDEX


def test_tasks_carry_read_only_rectangles_beside_their_masks(
    project: int, serving: Nextmask, label_studio: LabelStudio
) -> None:
    label_map, status = label_map_of(label_studio, project), serving.status(project)
    rows = predictions(label_studio, project, status.version)
    assert rows
    for row in rows:
        rectangles = [region for region in row["result"] if is_query(region, label_map)]
        assert rectangles
        assert all(region["readonly"] for region in rectangles)
        assert any(region["type"] == "brushlabels" for region in row["result"])
        boxes = boxes_of(row, label_studio, project)
        assert len(boxes) == len(rectangles)
        assert all(box.left + box.width <= SIZE[1] and box.top + box.height <= SIZE[0] for box in boxes)
        assert not any(overlap([one], [other]) for one, other in combinations(boxes, 2))
    asked = sum(box.area for row in rows for box in boxes_of(row, label_studio, project))
    assert asked <= STEP * SIZE[0] * SIZE[1], "more is asked for than is labelled before the next training"
    assert status.errors == {}


def test_only_what_is_inside_the_returned_rectangles_is_a_label(
    project: int, serving: Nextmask, label_studio: LabelStudio, dataset: Dataset
) -> None:
    """One annotator deletes a rectangle and draws another; a second deletes all; the others label what is asked."""
    serving.connect(project, train_after=99)  # no training in between
    serving.wait_settled(project)
    label_map = label_map_of(label_studio, project)
    version = serving.status(project).version
    rows = {row["task"]: row for row in predictions(label_studio, project, version)}
    first, second = [task.task_id for task, _ in serving.services.store.ranked(project) if task.task_id in rows][:2]

    kept = boxes_of(rows[first], label_studio, project)[1:]
    truth = write_result(true_mask(label_studio, project, first, dataset, label_map), label_map, minimum_area=0)
    drawn = write_rectangles([*kept, ADDED], label_map, SIZE)
    label_studio.submit_annotation(first, [*truth, *drawn], 9.0, parent_prediction=rows[first]["id"])

    shown = [region for region in rows[second]["result"] if not is_query(region, label_map)]
    label_studio.submit_annotation(second, shown, 5.0, parent_prediction=rows[second]["id"])
    submitted = serving.annotate(project, dataset, STEP - 1)
    assert [one.error for one in submitted] == [""] * (STEP - 1)
    status = serving.wait_settled(project)

    task = task_of(serving, project, first)
    assert set(boxes_from_text(task.boxes)) == {*kept, ADDED}
    assert (labelled_pixels(serving, task) == covered_pixels([*kept, ADDED], SIZE)).all()
    emptied = task_of(serving, project, second)
    assert (emptied.status, emptied.mask_file) == ("broken", "")
    assert f"task {second}" in status.errors
    for one in submitted:
        asked = boxes_of(rows[one.task], label_studio, project)
        label = task_of(serving, project, one.task)
        assert (labelled_pixels(serving, label) == covered_pixels(asked, SIZE)).all()
        true = true_mask(label_studio, project, one.task, dataset, label_map)
        mine = mask_from_png(serving.services.files.read(label.mask_file))
        assert (mine[covered_pixels(asked, SIZE)] == true[covered_pixels(asked, SIZE)]).all()


def test_further_regions_of_an_image_become_follow_up_tasks(
    project: int, serving: Nextmask, label_studio: LabelStudio
) -> None:
    serving.connect(project, train_after=STEP)
    status = serving.wait_for_version(project, 2)
    record = serving.services.checkpoints(project).get(2).record
    trained = {task for labels in record.labels for task in labels.split("+")}
    emptied = [task.task_id for task in serving.services.store.tasks(project, status="broken")]
    assert len(trained) == 2 * STEP
    assert not trained & set(map(str, emptied)), "an answer without rectangles was trained on"

    label_map = label_map_of(label_studio, project)
    tasks = serving.services.store.tasks(project)
    parts = {task.image: parts_of(other for other in tasks if other.image == task.image) for task in tasks}
    rows = {row["task"]: row for row in predictions(label_studio, project, status.version)}
    follow_ups = [task for task in tasks if task.status == "unlabelled" and parts[task.image]]
    assert follow_ups, "nothing more of the images that are labelled in part was asked for"
    assert len({task.image for task in follow_ups}) == len(follow_ups)
    for task in follow_ups:
        (found,) = label_studio.tasks(project, [task.task_id])
        assert found["data"]["nextmask_follow_up"] == min(part.task_id for part in parts[task.image])
        known = merged_mask(serving.services.files, parts[task.image])
        asked = boxes_of(rows[task.task_id], label_studio, project)
        assert not overlap(asked, [box for part in parts[task.image] for box in boxes_from_text(part.boxes)])
        shown = read_result(rows[task.task_id]["result"], label_map, size=SIZE).mask
        done = known != IGNORE_INDEX
        assert (shown[done] == known[done]).mean() > 0.98, "what is known is not what the task shows"


def test_predicted_and_actual_effort_are_compared(
    project: int, serving: Nextmask, label_studio: LabelStudio, dataset: Dataset
) -> None:
    before = {task.task_id for task in serving.services.store.tasks(project)}
    submitted = serving.annotate(project, dataset, STEP)
    assert [one.error for one in submitted] == [""] * STEP
    serving.wait_for_version(project, 3)
    effort = serving.status(project).effort
    assert effort is not None
    assert effort.measure == "clicks"
    assert effort.tasks >= 1
    assert effort.predicted_mean > 0
    assert effort.actual_mean >= 0
    labelled = serving.services.store.tasks(project, status="labelled")
    assert all(task.effort is not None and np.isfinite(task.effort) for task in labelled)
    # however often the worker looks, no image gets a second follow-up that waits
    serving.wait_settled(project)
    waiting = [task.image for task in serving.services.store.tasks(project, status="unlabelled")]
    assert len(waiting) == len(set(waiting))
    assert before <= {task.task_id for task in serving.services.store.tasks(project)}


def test_disconnect_takes_the_control_back_only_where_no_label_needs_it(
    project: int, serving: Nextmask, label_studio: LabelStudio
) -> None:
    serving.connection(project).disconnect()
    assert label_map_of(label_studio, project).query_control == "query"
    assert label_studio.project(project)["sampling"] != "Uncertainty sampling"
