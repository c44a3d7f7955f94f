"""The loop with the other region controls than brushes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from steps import label, predictions
from support import Nextmask

from ml_backend.annotations.label_map import parse_label_config
from ml_backend.annotations.masks import read_result
from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio

pytestmark = pytest.mark.live


@pytest.mark.parametrize("control", ["BitmaskLabels", "PolygonLabels"])
def test_masks_are_read_learned_and_published(
    control: str, serving: Nextmask, label_studio: LabelStudio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    project = make_project(images=8, control=control, dataset=shapes)
    # Enough steps to tell shapes from the background: predictions without any region would show nothing.
    serving.connect(project, iterations=25)
    label(label_studio, project, shapes, label_studio.task_ids(project)[:4])
    status = serving.wait_for_version(project, 1)
    assert (status.labels, status.trained_labels, status.queue, status.errors) == (4, 4, 4, {})

    label_map = parse_label_config(str(label_studio.project(project)["label_config"]))
    rows = predictions(label_studio, project, status.version)
    assert {region["type"] for row in rows for region in row["result"]} == {control.lower()}
    for row in rows:
        reading = read_result(row["result"], label_map, size=(48, 64))
        assert reading.problems == ()
        assert (reading.mask > 0).any()
    # What the annotator makes of it comes back and is compared with it.
    (submission,) = serving.annotate(project, shapes, 1)
    serving.wait_settled(project)
    task = serving.services.store.task(project, submission.task)
    assert task
    assert task.agreement == pytest.approx(submission.agreement, abs=0.05)
    assert task.shown_version == status.version
