"""Stream mode in a real Label Studio: what arrives is decided about within seconds, visibly, and can be taken back.

The tests follow one project through its life, in this order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from processes import wait_for
from steps import data_manager_action, label, predictions
from studio_client import StudioClient
from studio_page import StudioPage
from support import Nextmask

from ml_backend.datasets import Dataset
from ml_backend.label_studio.predictions import MARKER, RETURNED
from ml_backend.projects.passed_over import return_to_pool, stream_counts
from ml_backend.projects.tabs import PASSED_TAB_TITLE, TAB_TITLE

pytestmark = pytest.mark.live

RATE = 0.4
FIRST, ARRIVING = 16, 10
SECONDS = 20.0
"""In which a decision must be there; on a quiet machine it takes about two."""


@pytest.fixture(scope="module")
def project(
    serving: Nextmask, label_studio: StudioClient, make_module_project: Callable[..., int], dataset: Dataset
) -> int:
    """Sixteen images, four of them labelled, one model."""
    made = make_module_project(images=FIRST)
    changes = serving.connect(made, stream_rate=RATE)
    assert f"added the tab {PASSED_TAB_TITLE!r}" in changes
    serving.wait_settled(made)
    label(label_studio, made, dataset, label_studio.task_ids(made)[:4])
    serving.wait_for_version(made, 1)
    return made


def arrive(label_studio: StudioClient, project: int, dataset: Dataset, start: int) -> list[int]:
    samples = dataset.splits["train"][start : start + ARRIVING]
    return label_studio.upload_images(project, [one.image for one in samples])


def passed(serving: Nextmask, project: int) -> list[int]:
    return [task.task_id for task in serving.services.store.tasks(project, status="passed")]


def in_tab(label_studio: StudioClient, project: int, title: str) -> list[int]:
    """The tasks that Label Studio lists in a tab."""
    (view,) = [view for view in label_studio.views(project) if view["data"]["title"] == title]
    params = {"project": project, "view": view["id"], "page_size": 100}
    return [int(task["id"]) for task in label_studio.transport.json("GET", "/api/tasks/", params=params)["tasks"]]


def look(serving: Nextmask, project: int) -> None:
    """What the timer does every minute; it is off here."""
    serving.services.store.wake(project)
    serving.wait_settled(project)


def decided(serving: Nextmask, project: int, tasks: list[int]) -> Any:
    decisions = serving.services.store.decisions(project)
    return all(task in decisions for task in tasks) and [decisions[task] for task in tasks]


def assert_shown(serving: Nextmask, label_studio: StudioClient, project: int) -> None:
    """Store, markers and both tabs agree."""
    here = passed(serving, project)
    assert in_tab(label_studio, project, PASSED_TAB_TITLE) == here
    waiting = {task.task_id for task in serving.services.store.tasks(project, status="unlabelled")}
    assert set(in_tab(label_studio, project, TAB_TITLE)) == waiting
    assert not label_studio.tasks_with_prediction(project, MARKER) & waiting


def test_what_was_there_belongs_to_the_pool(project: int, serving: Nextmask, label_studio: StudioClient) -> None:
    status = serving.status(project)
    assert (status.pool, status.queue) == (FIRST - 4, FIRST - 4)
    assert serving.services.store.decisions(project) == {}
    assert in_tab(label_studio, project, PASSED_TAB_TITLE) == []


def test_arrivals_are_decided_about_within_seconds(
    project: int, serving: Nextmask, label_studio: StudioClient, dataset: Dataset
) -> None:
    new = arrive(label_studio, project, dataset, FIRST)
    start = time.monotonic()
    made = wait_for(lambda: decided(serving, project, new), seconds=SECONDS, name="the decisions")
    print(f"decided {ARRIVING} arrivals after {time.monotonic() - start:.1f} s")
    serving.wait_settled(project)
    kept = [one.task_id for one in made if one.keep]
    assert 1 <= len(kept) <= RATE * ARRIVING
    assert passed(serving, project) == [task for task in new if task not in kept]
    assert_shown(serving, label_studio, project)

    status = serving.status(project)
    assert status.stream == stream_counts(serving.services.store, project)
    assert (status.pool, status.queue) == (FIRST - 4 + len(kept), FIRST - 4 + len(kept))
    assert label_studio.project(project)["model_version"] == status.version, "the marker's version must not be served"
    ranked = {task.task_id for task, _ in serving.services.store.ranked(project)}
    assert label_studio.tasks_with_prediction(project, status.version) >= ranked
    assert ranked >= set(kept)


def test_a_passed_over_task_opens_empty_until_predictions_are_asked_for(
    project: int, serving: Nextmask, label_studio: StudioClient
) -> None:
    task = passed(serving, project)[0]
    rows = label_studio.task(task)["predictions"]
    assert [row["model_version"] for row in rows] == [MARKER], "where there is one, no other is asked for"
    data_manager_action(label_studio, project, "retrieve_tasks_predictions", [task])
    (row,) = [row for row in label_studio.task(task)["predictions"] if row["model_version"] != MARKER]
    assert row["result"]
    assert (row["model_version"], row["score"]) == (serving.status(project).version, 1.0)
    look(serving, project)
    assert task in passed(serving, project)
    assert_shown(serving, label_studio, project)


def test_deleting_predictions_in_the_tab_returns_tasks_to_the_pool(
    project: int, serving: Nextmask, label_studio: StudioClient
) -> None:
    back, *rest = passed(serving, project)
    data_manager_action(label_studio, project, "delete_tasks_predictions", [back])
    assert in_tab(label_studio, project, PASSED_TAB_TITLE) == rest
    look(serving, project)
    assert passed(serving, project) == rest
    assert serving.services.store.decisions(project)[back].returned
    assert back in {task.task_id for task, _ in serving.services.store.ranked(project)}
    assert_shown(serving, label_studio, project)


def test_keep_returns_a_task_and_disturbs_nothing(project: int, serving: Nextmask, label_studio: StudioClient) -> None:
    back, *rest = passed(serving, project)
    before = {row["id"] for row in predictions(label_studio, project)}
    return_to_pool(serving.services.store, label_studio, project, [back])
    assert {row["id"] for row in predictions(label_studio, project)} == before
    assert label_studio.tasks_with_prediction(project, RETURNED) == {back}
    look(serving, project)
    assert passed(serving, project) == rest
    assert_shown(serving, label_studio, project)


@pytest.mark.browser
def test_the_tab_shows_them_and_keep_spares_an_open_editor(
    project: int, serving: Nextmask, label_studio: StudioClient, studio_page: StudioPage
) -> None:
    expected = passed(serving, project)
    studio_page.open_tab(project, PASSED_TAB_TITLE)
    assert studio_page.listed() == expected
    studio_page.open_row(expected[0], regions=False)
    assert studio_page.outliner() == []
    return_to_pool(serving.services.store, label_studio, project, [expected[0]])
    studio_page.submit()
    assert studio_page.problems() == []
    look(serving, project)
    found = label_studio.task(expected[0])
    (marker,) = [row["id"] for row in found["predictions"] if row["model_version"] == RETURNED]
    (annotation,) = found["annotations"]
    assert annotation["parent_prediction"] == marker, "the editor had started from the marker"
    assert passed(serving, project) == expected[1:]


def test_a_second_round_decides_with_the_next_model(
    project: int, serving: Nextmask, label_studio: StudioClient, dataset: Dataset
) -> None:
    before = serving.services.store.decisions(project)
    model = len(serving.services.checkpoints(project).versions())
    label(label_studio, project, dataset, [passed(serving, project)[0]])  # a person's label wins
    served = serving.annotate(project, dataset, 4)
    assert not {one.task for one in served} & set(passed(serving, project))
    wait_for(lambda: len(serving.services.checkpoints(project).versions()) > model, name="another model", seconds=240)
    serving.wait_settled(project)
    serving.connect(project, stream_rate=RATE, train_after=99)
    serving.wait_settled(project)
    assert_shown(serving, label_studio, project)

    new = arrive(label_studio, project, dataset, FIRST + ARRIVING)
    wait_for(lambda: decided(serving, project, new), seconds=SECONDS, name="the decisions")
    serving.wait_settled(project)
    after = serving.services.store.decisions(project)
    assert {task: after[task] for task in before} == before, "decided once"
    counts = stream_counts(serving.services.store, project)
    assert counts
    assert counts.kept <= RATE * 2 * ARRIVING
    assert_shown(serving, label_studio, project)


def test_passed_over_tasks_are_served_after_all_others_only(
    project: int, serving: Nextmask, label_studio: StudioClient, dataset: Dataset
) -> None:
    left = {task.task_id for task in serving.services.store.tasks(project, status="unlabelled")}
    served = [one.task for one in serving.annotate(project, dataset, len(left))]
    assert set(served) == left
    serving.wait_settled(project)
    extra = label_studio.next_task(project)  # what the host does when the queue is used up: see how-it-works.md
    assert extra is not None
    assert extra["id"] in passed(serving, project)
    assert extra["predictions"] == [], "and without a mask"


def test_switching_off_and_disconnecting_put_things_back(
    project: int, serving: Nextmask, label_studio: StudioClient
) -> None:
    before = passed(serving, project)
    serving.connect(project, stream_rate=None, train_after=99)
    serving.wait_settled(project)
    assert passed(serving, project) == []
    assert MARKER not in label_studio.model_versions(project)
    assert {task.task_id for task in serving.services.store.tasks(project, status="unlabelled")} == set(before)
    assert serving.status(project).queue == len(before)
    serving.connection(project).disconnect()
    assert [view["data"]["title"] for view in label_studio.views(project)] == []
