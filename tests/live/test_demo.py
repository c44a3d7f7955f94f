"""The demo's host and annotator with a real Label Studio process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from studio_client import StudioClient

from ml_backend.annotations.label_map import parse_label_config
from ml_backend.annotations.masks import read_result, write_result
from ml_backend.datasets import label_config, sample_dataset
from ml_backend.demo.annotator import SimulatedAnnotator
from ml_backend.demo.label_studio import LabelStudioHost, free_port

pytestmark = pytest.mark.live

TOKEN = "0123456789abcdef0123456789abcdef01234567"


def test_state_survives_and_the_annotator_labels_what_is_served(label_studio_command: Path, tmp_path: Path) -> None:
    def host() -> LabelStudioHost:
        return LabelStudioHost(
            label_studio_command,
            tmp_path / "data",
            free_port(),
            tmp_path,
            username="demo@example.org",
            password="demo-password",
            token=TOKEN,
        )

    dataset = sample_dataset()
    xml = label_config(dataset)
    label_map = parse_label_config(xml)
    truth = dataset.truth("test")
    with host().running() as label_studio:
        client = StudioClient(label_studio.url, TOKEN)
        project = client.create_project(title=dataset.name, label_config=xml)["id"]
        client.upload_images(project, [sample.image for sample in dataset.splits["test"][:3]])
        first, *_ = client.task_ids(project)
        perfect = truth.read(truth.find(client.task(first)["data"]["image"]), label_map)
        row = {"task": first, "result": write_result(perfect, label_map, minimum_area=0), "score": 0.0}
        assert client.import_predictions(project, [row | {"model_version": "perfect"}]) == 1
        client.update_project(project, model_version="perfect", sampling="Uncertainty sampling")
        (submission,) = SimulatedAnnotator(client, project, truth, label_map).annotate(1)
        assert (submission.task, submission.agreement, submission.error) == (first, 1.0, "")

    with host().running() as label_studio:
        client = StudioClient(label_studio.url, TOKEN)
        assert client.whoami()["email"] == "demo@example.org"
        annotator = SimulatedAnnotator(client, project, truth, label_map)
        rest = annotator.annotate(5)
        assert {s.task for s in rest} == set(client.task_ids(project)) - {first}
        assert [s.agreement for s in rest] == [None, None]
        assert annotator.annotate(1) == []
        for task in client.changed_tasks(project, None):
            (annotation,) = task["annotations"]
            true_mask = truth.read(truth.find(task["data"]["image"]), label_map)
            assert np.array_equal(read_result(annotation["result"], label_map).mask, true_mask)
            assert (annotation["parent_prediction"] is not None) == (task["id"] == first)
            assert annotation["lead_time"] >= 4
