"""Predictions that others imported: hidden while nextmask shows its own, said everywhere, and never touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from steps import label, label_map_of, predictions, true_mask
from studio_client import StudioClient
from support import Nextmask

from ml_backend.annotations.masks import write_result
from ml_backend.datasets import Dataset
from ml_backend.doctor import examine
from ml_backend.projects.hidden_predictions import hidden_predictions

pytestmark = pytest.mark.live


@pytest.mark.parametrize("chosen", ["sam-1", None])
def test_they_are_told_left_alone_and_shown_again_after_disconnect(
    chosen: str | None,
    serving: Nextmask,
    label_studio: StudioClient,
    make_project: Callable[..., int],
    shapes: Dataset,
) -> None:
    project = make_project(images=10, dataset=shapes)
    tasks = label_studio.task_ids(project)
    label_map = label_map_of(label_studio, project)
    masks = {task: true_mask(label_studio, project, task, shapes, label_map) for task in tasks}
    regions = {task: write_result(mask, label_map, minimum_area=0) for task, mask in masks.items()}
    rows = [{"task": task, "result": regions[task], "score": 0.5, "model_version": "sam-1"} for task in tasks[:5]]
    rows += [{"task": task, "result": regions[task], "score": 0.5, "model_version": "yolo, 8"} for task in tasks[5:7]]
    assert label_studio.import_predictions(project, rows) == 7
    unnamed = {"task": tasks[7], "result": regions[tasks[7]], "score": 0.5}
    label_studio.transport.json("POST", "/api/predictions/", json=unnamed)
    if chosen:
        label_studio.update_project(project, model_version=chosen)
    before = _others(label_studio, project)
    assert len(before) == 8

    changes = serving.connect(project)
    (told,) = [change for change in changes if "others imported" in change]
    assert "5 of 'sam-1', 2 of 'yolo, 8', 1 without a version" in told
    assert told.endswith(f"to see them again: nextmask disconnect {project}")
    assert serving.connect(project) == []
    assert told in serving.status(project).hints
    label(label_studio, project, shapes, tasks[:4])
    status = serving.wait_for_version(project, 1)
    assert told in status.hints
    assert status.errors == {}
    events = [event.text for event in serving.services.store.events(project)]
    assert sum(told in text for text in events) == 1

    more = {"task": tasks[8], "result": regions[tasks[8]], "score": 0.5, "model_version": "sam-2"}
    label_studio.import_predictions(project, [more])
    report = examine(serving.settings, [], project, seconds=120)
    (finding,) = [one for section in report.sections for one in section.findings if one.check == "other predictions"]
    assert (finding.level, "1 of 'sam-2'" in finding.message) == ("note", True)

    changes = serving.connection(project).disconnect()
    assert label_studio.project(project)["model_version"] == (chosen or "")
    assert not chosen or f"model_version is {chosen!r} again" in changes
    after = _others(label_studio, project)
    assert {row["id"]: row for row in after if row["model_version"] != "sam-2"} == {row["id"]: row for row in before}
    assert hidden_predictions(serving.services.store, project) == {}


def _others(client: StudioClient, project: int) -> list[dict[str, Any]]:
    rows = [row for row in predictions(client, project) if not str(row["model_version"]).startswith("nextmask-")]
    return [{name: value for name, value in row.items() if name != "created_ago"} for row in rows]
