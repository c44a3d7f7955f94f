"""auto in a real Label Studio: points and one mask at first, then what teaches more; masks follow points.

The tests follow one project through its life, in this order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from processes import wait_for
from steps import predictions
from support import Nextmask

from ml_backend.annotations.boxes import WHOLE_IMAGE
from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio
from ml_backend.store import Task

pytestmark = pytest.mark.live

IMAGES, STEP, POINTS = 6, 3, 6


@pytest.fixture(scope="module")
def project(serving: Nextmask, make_module_project: Callable[..., int]) -> int:
    made = make_module_project(images=IMAGES)
    settings = {**serving.project_settings, "strategy": "auto", "strategy_options": {"points": POINTS}}
    serving.connection(made).connect({**settings, "train_after": STEP}, add_query_control=True)
    serving.wait_settled(made)
    return made


def kinds(client: LabelStudio, project: int, version: str) -> dict[int, set[str]]:
    """What each task of a version shows."""
    rows = predictions(client, project, version)
    return {row["task"]: {region["type"] for region in row["result"]} for row in rows}


def labelled(serving: Nextmask, project: int) -> list[Task]:
    return serving.services.store.tasks(project, status="labelled")


def test_one_mask_is_asked_for_among_the_first_points(
    project: int, serving: Nextmask, label_studio: LabelStudio, dataset: Dataset
) -> None:
    status = serving.status(project)
    shown = kinds(label_studio, project, status.version)
    assert sorted(map(sorted, shown.values())) == [[], *[["keypointlabels"]] * (IMAGES - 1)]
    assert "what a mask takes here is not known yet" in status.question
    assert not any("points" in hint for hint in status.hints)
    assert [one.error for one in serving.annotate(project, dataset, STEP)] == [""] * STEP
    status = serving.wait_for_version(project, 1)
    assert sorted(task.boxes == WHOLE_IMAGE for task in labelled(serving, project)) == [False, False, True]
    assert status.question.startswith(f"Points: {POINTS} of an image teach about 10 % of what its mask does"), (
        "a mask of the sample data takes hundreds of clicks"
    )


def test_masks_follow_in_tasks_of_their_own(
    project: int, serving: Nextmask, label_studio: LabelStudio, dataset: Dataset
) -> None:
    """What the team asks for is masks: a point teaches next to nothing, as they set it."""
    by_points = {task.image for task in labelled(serving, project) if task.boxes != WHOLE_IMAGE}
    options: dict[str, Any] = {"strategy_options": {"points": POINTS, "worth": 1e6}}
    serving.connection(project).connect(options)
    wait_for(lambda: serving.status(project).question.startswith("Masks: "), name="a ranking of masks")
    status = serving.wait_settled(project)
    tasks = {task.task_id: task for task in serving.services.store.tasks(project)}
    shown = kinds(label_studio, project, status.version)
    masks = [task for task, types in shown.items() if types == {"brushlabels"}]
    again = [task for task in masks if tasks[task].image in by_points]
    assert len(again) >= 1
    assert len(masks) >= len(shown) - 1, "at most one in ten is asked for points"
    for task_id in again:
        (found,) = label_studio.tasks(project, [task_id])
        assert "nextmask_follow_up" in found["data"]
    assert [one.error for one in serving.annotate(project, dataset, len(shown))] == [""] * len(shown)
    wait_for(lambda: len(labelled(serving, project)) == STEP + len(shown), name="the arrival of all masks")
    whole = {task.image for task in labelled(serving, project) if task.boxes == WHOLE_IMAGE}
    assert {tasks[task].image for task in masks} <= whole
    assert serving.status(project).errors == {}
