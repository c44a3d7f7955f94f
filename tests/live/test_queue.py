"""The published window: filled up before it runs dry, and cleared of old versions without harm.

The tests follow one project through its life, in this order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
from steps import label
from support import Nextmask

from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio

pytestmark = pytest.mark.live

WINDOW = 6


@pytest.fixture(scope="module")
def project(
    serving: Nextmask, label_studio: LabelStudio, make_module_project: Callable[..., int], shapes: Dataset
) -> int:
    made = make_module_project(images=20, dataset=shapes)
    serving.connect(made, queue_window=WINDOW)
    serving.wait_settled(made)
    label(label_studio, made, shapes, label_studio.task_ids(made)[:4])
    serving.wait_for_version(made, 1)
    serving.connect(made, queue_window=WINDOW, train_after=99)
    serving.wait_settled(made)
    return made


def test_the_window_is_filled_up_before_it_runs_dry(
    project: int, serving: Nextmask, label_studio: LabelStudio, shapes: Dataset
) -> None:
    version = serving.status(project).version
    assert label_studio.tasks_with_prediction(project, version) == {
        task.task_id for task, _ in serving.services.store.ranked(project)[:WINDOW]
    }
    ranked = [task.task_id for task, _ in serving.services.store.ranked(project)]
    served = []
    for _ in range(6):
        done = serving.annotate(project, shapes, 2)
        assert all(one.agreement is not None for one in done), "a task without a prediction was served"
        served += [one.task for one in done]
        status = serving.wait_settled(project)
        assert status.queue >= min(WINDOW // 2, status.pool), status
        assert status.queue <= WINDOW
    assert served == ranked[:12], "the order of the ranking, across refills"
    assert serving.status(project).version == version
    assert label_studio.model_versions(project)[version] == len(ranked), "what was predicted once, once"


def test_old_predictions_go_when_nobody_can_have_them_open(
    project: int, serving: Nextmask, label_studio: LabelStudio
) -> None:
    old = serving.status(project).version
    serving.services.store.wake(project, ranking_key="")  # as `nextmask rank` does
    status = serving.wait_settled(project)
    assert status.version != old
    held = label_studio.model_versions(project)
    # Not equal: a task that is opened before the first queue gets an empty prediction of nextmask-0.0 from the host.
    assert set(held) >= {"nextmask-0.1", old, status.version}, "a version that may be open in an editor was deleted"

    retire(serving, project, "nextmask-0.1", hours=25.9)
    retire(serving, project, old, hours=26.1)
    serving.services.store.wake(project)
    assert serving.wait_settled(project).version == status.version
    held.pop(old)
    assert label_studio.model_versions(project) == held
    assert label_studio.project(project)["model_version"] == status.version
    served = label_studio.next_task(project)
    assert served
    assert served["id"] == serving.services.store.ranked(project)[0][0].task_id
    assert [row["model_version"] for row in served["predictions"]] == [status.version]


def retire(serving: Nextmask, project: int, version: str, *, hours: float) -> None:
    """Let a version have been retired that long ago."""
    with closing(sqlite3.connect(serving.settings.model_dir / "nextmask.sqlite3")) as database, database:
        changed = database.execute(
            "UPDATE published_versions SET retired_at = strftime('%s', 'now') - ? WHERE project_id = ? AND version = ?",
            (hours * 3600, project, version),
        )
        assert changed.rowcount == 1
