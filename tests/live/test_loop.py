"""The main job against a real Label Studio: rank, serve in that order, submit, train, rank anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import Nextmask

from ml_backend.demo.dataset import Dataset
from ml_backend.label_studio import LabelStudio

pytestmark = pytest.mark.live


def test_tasks_are_served_exactly_in_the_order_of_the_ranking(
    nextmask: Nextmask, label_studio: LabelStudio, make_project: Callable[..., int], dataset: Dataset
) -> None:
    project = make_project(images=30)
    nextmask.connect(project, train_after=5)
    nextmask.wait_settled(project)
    assert len(nextmask.annotate(project, dataset, 5)) == 5
    status = nextmask.wait_for_version(project, 1)
    assert (status.labels, status.trained_labels, status.queue) == (5, 5, 25)

    nextmask.connect(project, train_after=99)  # no training in between
    expected = [task.task_id for task, _ in nextmask.services.store.ranked(project)][:20]
    served = [submission.task for submission in nextmask.annotate(project, dataset, 20)]
    assert served == expected
