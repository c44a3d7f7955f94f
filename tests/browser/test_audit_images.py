"""Audit images in a real Label Studio, from the first task on: where they are served, how they open, what they measure.

The tests follow one project through its life, in this order.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from steps import data_manager_action, predictions
from studio_client import StudioClient
from studio_page import StudioPage
from support import Nextmask

from ml_backend.datasets import Dataset
from ml_backend.projects.audit import AuditSet
from ml_backend.projects.tabs import TAB_TITLE

pytestmark = [pytest.mark.live, pytest.mark.browser]

SETTINGS: dict[str, Any] = {
    "audit_share": 0.125,
    "audit_group": "scan",
    "train_after": 10,
    "queue_window": 12,
    "iterations": 24,
}
IMAGES, AUDITS = 30, 5


@pytest.fixture(scope="module")
def project(serving: Nextmask, label_studio: StudioClient, make_module_project: Callable[..., int]) -> int:
    """A project whose data name scans, five of which the hash draws, whatever names Label Studio gives the files."""
    made = make_module_project(images=IMAGES)
    uploaded = label_studio.task_ids(made)
    data = [dict(task["data"]) for task in label_studio.tasks(made, uploaded)]
    label_studio.import_tasks(made, [{"data": {**one, "scan": scan}} for one, scan in zip(data, scans(), strict=True)])
    data_manager_action(label_studio, made, "delete_tasks", uploaded)
    serving.connect(made, **SETTINGS)
    serving.wait_settled(made)
    return made


def scans() -> list[str]:
    by_hash = AuditSet(SETTINGS["audit_share"], 0)
    names = [f"scan {number}" for number in range(400)]
    audits = list(islice(filter(by_hash.has, names), AUDITS))
    others = list(islice((name for name in names if not by_hash.has(name)), IMAGES - AUDITS))
    return [*others[:7], *audits, *others[7:]]


def drawn(serving: Nextmask, project: int) -> set[int]:
    audit = AuditSet(SETTINGS["audit_share"], 0)
    return {task.task_id for task in serving.services.store.tasks(project) if audit.has(task.group_key)}


def test_two_of_the_first_ten_that_are_served_measure_and_the_first_version_has_a_measure(
    project: int, serving: Nextmask, dataset: Dataset
) -> None:
    audit = drawn(serving, project)
    assert len(audit) == AUDITS
    served = [one.task for one in serving.annotate(project, dataset, 10)]
    assert [place for place, task in enumerate(served, start=1) if task in audit] == [4, 8]
    status = serving.wait_for_version(project, 1)
    record = serving.services.checkpoints(project).get(1).record
    assert {int(task) for task in record.held_out} == audit & set(served)
    assert {int(task) for task in record.labels} == set(served)
    assert status.held_out_miou is not None
    assert status.audit is not None
    assert (status.audit.labels, status.audit.training, status.audit.waiting) == (2, 8, AUDITS - 2)


def test_it_opens_empty_in_the_editor_between_tasks_that_open_with_masks(
    project: int, serving: Nextmask, label_studio: StudioClient, studio_page: StudioPage
) -> None:
    audit = drawn(serving, project)
    serving.wait_settled(project)
    studio_page.open_tab(project, TAB_TITLE)
    rows = studio_page.listed()[: SETTINGS["queue_window"]]  # those that are not published come after them
    ranked = [task.task_id for task, _ in serving.services.store.ranked(project)]
    assert rows == ranked[: len(rows)]
    assert [place for place, task in enumerate(rows, start=1) if task in audit] == [6]  # 8 after the newest

    one = rows[5]
    studio_page.open_row(one, regions=False)
    studio_page.picture()
    assert studio_page.outliner() == []
    studio_page.submit()
    studio_page.open_tab(project, TAB_TITLE)
    other = rows[0]
    studio_page.open_row(other)
    assert studio_page.outliner()
    studio_page.submit()
    assert studio_page.problems() == []

    serving.wait_settled(project)
    tasks = serving.services.store.tasks_by_id(project, [one, other])
    assert [(tasks[task].status, tasks[task].held_out) for task in (one, other)] == [
        ("labelled", True),
        ("labelled", False),
    ]
    (annotation,) = label_studio.task(one)["annotations"]
    assert label_studio.annotation(annotation["id"])["parent_prediction"] is not None


def test_one_that_is_opened_outside_the_queue_stays_empty(
    project: int, serving: Nextmask, label_studio: StudioClient
) -> None:
    status = serving.wait_settled(project)
    # Label Studio asks for no prediction of a task that has one, be it of the queue before.
    published = {row["task"] for row in predictions(label_studio, project)}
    outside = [task.task_id for task, _ in serving.services.store.ranked(project) if task.task_id not in published]
    audit = [task for task in outside if task in drawn(serving, project)]
    other = [task for task in outside if task not in audit]
    assert audit
    assert other
    for task in (audit[0], other[0]):
        label_studio.task(task)  # Label Studio asks nextmask for a prediction, as when the task is opened
        (row,) = [row for row in predictions(label_studio, project, status.version) if row["task"] == task]
        assert bool(row["result"]) == (task == other[0])
        priorities = serving.services.store.priorities(project, [task])
        assert row["score"] == pytest.approx(1 - priorities[task])
