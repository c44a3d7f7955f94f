"""The survey's methods in a real Label Studio: one project each, all at once, through two rounds of labels.

A project's settings choose the method; nothing else is different. Each starts with a first batch that is diverse,
trains on what the simulated annotator submits, ranks with its method, and does so once more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from steps import predictions
from studio_client import StudioClient
from support import Nextmask

from ml_backend.annotations.label_map import parse_label_config
from ml_backend.datasets import Dataset
from ml_backend.label_studio.predictions import model_number
from ml_backend.worker.look import Look
from ml_backend.worker.score_pool import PoolRanker

pytestmark = pytest.mark.live

IMAGES = 24
STEP = 4
METHODS: dict[str, dict[str, Any]] = {
    "suggestive_annotation": {"strategy_options": {"candidates": 8, "picks": 4}},
    "ceal": {"strategy_options": {"threshold": 1.0, "decay": 0.0, "confident_most": 5}},
    "vaal": {"strategy_options": {"epochs": 2, "image_size": 32, "width": 8, "latent": 8}},
    "density": {"strategy_options": {"measure": "bald"}, "members": 5, "dropout": 0.3},
    "coreset": {},
}
CONTROLS = ["BrushLabels", "BitmaskLabels", "PolygonLabels", "BrushLabels", "BitmaskLabels"]


@pytest.fixture(scope="module")
def projects(serving: Nextmask, make_module_project: Callable[..., int], dataset: Dataset) -> dict[str, int]:
    """One project per method, two rounds of labels later; all are worked on by one worker at the same time."""
    made = {
        method: make_module_project(images=IMAGES, control=control)
        for method, control in zip(METHODS, CONTROLS, strict=True)
    }
    for method, project in made.items():
        serving.connect(project, strategy=method, train_after=STEP, **METHODS[method])
    for number in (0, 1):
        for project in made.values():
            status = serving.wait_settled(project) if number == 0 else serving.wait_for_version(project, number)
            assert status.errors == {}
        for project in made.values():
            assert len([one for one in serving.annotate(project, dataset, STEP) if not one.error]) == STEP
    for project in made.values():
        serving.wait_for_version(project, 2)
    return made


@pytest.mark.parametrize("method", METHODS)
def test_two_rounds_end_with_a_queue_in_the_methods_order(
    method: str, projects: dict[str, int], serving: Nextmask, label_studio: StudioClient
) -> None:
    project = projects[method]
    status = serving.status(project)
    assert (status.strategy, status.labels, status.trained_labels) == (method, 2 * STEP, 2 * STEP)
    assert status.errors == {}
    assert status.queue == status.pool == IMAGES - 2 * STEP
    rows = predictions(label_studio, project, status.version)
    by_score = [row["task"] for row in sorted(rows, key=lambda row: row["score"])]
    assert by_score == [task.task_id for task, _ in serving.services.store.ranked(project)]
    served = label_studio.next_task(project)
    assert served is not None
    assert served["id"] == by_score[0]
    assert by_score == again(serving, project), "the same inputs gave another order"


def again(serving: Nextmask, project: int) -> list[int]:
    """Rank a project once more, here, from what the store and the checkpoints hold."""
    known = serving.services.store.project(project)
    assert known is not None
    settings = serving.services.settings.for_project(known.extra_params)
    services = serving.services.__class__(**{**vars(serving.services), "settings": settings})
    model = services.checkpoints(project).get(model_number(known.published_version))
    label_map = parse_label_config(known.label_config)
    scorer = PoolRanker(Look(services, project, label_map), model)
    ranking = scorer.rank(services.store.tasks(project), round_number=model.number - 1)
    return sorted(ranking.priorities, key=lambda task: -ranking.priorities[task])


def test_the_first_batch_was_diverse(projects: dict[str, int], serving: Nextmask, label_studio: StudioClient) -> None:
    """Before the first labels no false masks are shown, and the order is that of k-centre, not of the ids."""
    project = projects["coreset"]
    rows = predictions(label_studio, project, "nextmask-0.1")
    assert len(rows) == IMAGES
    assert not any(row["result"] for row in rows)
    order = [row["task"] for row in sorted(rows, key=lambda row: row["score"])]
    assert order != sorted(order)


def test_suggestive_annotation_has_four_members_that_differ(projects: dict[str, int], serving: Nextmask) -> None:
    states = serving.services.checkpoints(projects["suggestive_annotation"]).committees.load(2)
    assert states is not None
    assert len(states) == 4
    heads = [next(value for name, value in state.items() if "segmentation_head" in name) for state in states]
    assert all(not torch.equal(heads[0], other) for other in heads[1:])


def test_ceal_trains_with_its_own_predictions_and_stores_none(
    projects: dict[str, int], serving: Nextmask, label_studio: StudioClient
) -> None:
    project = projects["ceal"]
    record = serving.services.checkpoints(project).get(2).record
    assert 1 <= len(record.pseudo_labels) <= 5
    assert not set(record.pseudo_labels) & set(record.labels)
    for task_id in record.pseudo_labels:
        assert label_studio.task(int(task_id))["annotations"] == []
    known = serving.services.store.project(project)
    assert known is not None
    assert json.loads(known.pseudo_labels)


def test_vaal_keeps_what_it_learned(projects: dict[str, int], serving: Nextmask) -> None:
    folder = serving.services.project_folder(projects["vaal"]) / "strategy"
    (file,) = folder.glob("vaal-*.pt")
    assert torch.load(file, weights_only=True)


def test_a_switched_strategy_reorders_the_queue_without_a_training(
    projects: dict[str, int], serving: Nextmask, label_studio: StudioClient
) -> None:
    project = projects["coreset"]
    before = serving.status(project).version
    serving.connect(project, strategy="random", strategy_options={})
    status = serving.wait_settled(project)
    assert status.strategy == "random"
    assert status.version.split(".")[0] == before.split(".")[0]
    assert status.version != before
    rows = predictions(label_studio, project, status.version)
    by_score = [row["task"] for row in sorted(rows, key=lambda row: row["score"])]
    assert by_score == [task.task_id for task, _ in serving.services.store.ranked(project)]
    assert np.unique([row["score"] for row in rows]).size == len(rows)
