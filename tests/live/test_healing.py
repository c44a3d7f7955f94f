"""Webhooks get lost: the timer, and the next start, find out all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from processes import wait_for
from steps import label
from studio_client import StudioClient
from support import Nextmask

from ml_backend.datasets import Dataset

pytestmark = pytest.mark.live


def test_lost_webhooks_lose_no_label(
    make_nextmask: Callable[..., Nextmask],
    label_studio: StudioClient,
    make_project: Callable[..., int],
    shapes: Dataset,
) -> None:
    nextmask = make_nextmask(reconcile_seconds=2.0)
    project = make_project(images=9, dataset=shapes)
    tasks = label_studio.task_ids(project)
    nextmask.connect(project)
    nextmask.wait_settled(project)

    # Nobody tells of the labels: the webhook is gone.
    (webhook,) = label_studio.webhooks(project)
    label_studio.delete_webhook(webhook["id"])
    label(label_studio, project, shapes, tasks[:4])
    assert nextmask.wait_for_version(project, 1).labels == 4

    # It goes to where nobody listens.
    assert nextmask.connect(project) == ["registered the webhook"]
    (webhook,) = label_studio.webhooks(project)
    label_studio.update_webhook(webhook["id"], url="http://127.0.0.1:9/webhook", actions=webhook["actions"])
    label(label_studio, project, shapes, tasks[4:5])
    wait_for(lambda: nextmask.status(project).labels == 5, name="the fifth label")

    # nextmask itself is down meanwhile.
    nextmask.stop()
    label(label_studio, project, shapes, tasks[5:6])
    annotation = next(iter(label_studio.task(tasks[0])["annotations"]))["id"]
    label_studio.delete_annotation(annotation)
    nextmask.start()
    known = {task.task_id: task.status for task in nextmask.services.store.tasks(project)}
    assert known[tasks[5]] == "unlabelled", "it cannot know yet"
    wanted = {*tasks[1:6]}
    wait_for(lambda: labelled(nextmask, project) == wanted, name="what happened while it was down")
    status = nextmask.status(project)
    assert (status.labels, status.pool, status.errors) == (5, 4, {})


def labelled(nextmask: Nextmask, project: int) -> set[int]:
    return {task.task_id for task in nextmask.services.store.tasks(project, status="labelled")}
