"""A project with real images, labels, two trained versions and a ranking, for tests of pages: no Label Studio."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wiring import PROJECT, renderer_of

from ml_backend.annotations.boxes import Box, Query
from ml_backend.annotations.config_edits import with_query_control
from ml_backend.annotations.label_map import parse_label_config
from ml_backend.datasets import Dataset, Sample, label_config
from ml_backend.learning.training import Item, Job, train
from ml_backend.projects.services import Services
from ml_backend.store import Task
from ml_backend.worker.look import Look
from ml_backend.worker.score_pool import PoolRanker

VERSION = "nextmask-2.3"


def fill(
    services: Services,
    dataset: Dataset,
    *,
    trained: int = 6,
    held_out: int = 3,
    published: int = 4,
    steps: Sequence[int] = (2, 10),
    input_size: int = 64,
    regions: bool = False,
) -> None:
    """Label some images, train a version for each of `steps`, rank the others and publish the first.

    Task ids are 1, 2, … in the order of the data set: those that train, those that are held out, the unlabelled.
    """
    samples = dataset.all_samples()
    xml = label_config(dataset)
    xml = with_query_control(xml) if regions else xml
    store = services.store
    store.wake(PROJECT, title=dataset.name, label_config=xml)
    tasks = [_task(number, sample) for number, sample in enumerate(samples, start=1)]
    labelled = [_labelled(task, sample) for task, sample in zip(tasks, samples, strict=False)][: trained + held_out]
    labelled = [replace(task, held_out=task.task_id > trained) for task in labelled]
    store.put_tasks([*labelled, *tasks[len(labelled) :]])
    _train(services, samples, labelled, steps, input_size)
    rank(services, published, regions=regions)


def _task(number: int, sample: Sample) -> Task:
    content = base64.b64encode(sample.image.read_bytes()).decode()
    return Task(PROJECT, number, f"data:image/png;base64,{content}")


def _labelled(task: Task, sample: Sample) -> Task:
    digest = hashlib.sha256(sample.mask.read_bytes()).hexdigest()[:12]
    return replace(task, status="labelled", mask_file=str(sample.mask), label_digest=digest, annotation_id=task.task_id)


def _train(
    services: Services, samples: Sequence[Sample], labelled: Sequence[Task], steps: Sequence[int], input_size: int
) -> None:
    project = services.store.project(PROJECT)
    assert project
    label_map, parent = parse_label_config(project.label_config), None
    items = [
        Item(str(task.task_id), sample.image, sample.mask, task.held_out, task.label_digest)
        for task, sample in zip(labelled, samples, strict=False)
    ]
    for number, iterations in enumerate(steps, start=1):
        job = Job(
            items=tuple(
                items if number > 1 else items[1:-1]
            ),  # the second has another label that trains, one that measures
            classes=label_map.classes,
            label_map_digest=label_map.training_digest,
            data_digest=f"data-{number}",
            folder=services.checkpoints(PROJECT).folder,
            parent=parent,
            **{"iterations": iterations, "batch_size": 4, "input_size": input_size, "device": "cpu"},
        )
        parent = train(job, None).number
        services.checkpoints(PROJECT).publish(parent)


def rank(services: Services, published: int, *, regions: bool = False) -> None:
    """Rank the unlabelled images with the strategy of the settings, and publish the first."""
    store, model = services.store, services.checkpoints(PROJECT).current()
    project = store.project(PROJECT)
    assert project
    assert model
    label_map = parse_label_config(project.label_config)
    scorer = PoolRanker(Look(services, PROJECT, label_map), model)
    ranking = scorer.rank(store.tasks(PROJECT), round_number=1)
    best = sorted(ranking.priorities, key=lambda task: -ranking.priorities[task])
    asked = {best[0]: Query((Box(20, 30, 60, 50), Box(120, 100, 48, 64)), 37.4)} if regions else {}
    version = f"nextmask-{model.number}.3"
    names = model.record.classes
    store.put_ranking(
        PROJECT,
        ranking.priorities,
        asked,
        ranking.information,
        turns={task: names[pick.turn] for task, pick in ranking.picks.items() if pick.turn is not None},
        outlines={task: pick.outlines for task, pick in ranking.picks.items() if pick.outlines is not None},
        ranking_version=version,
        decided_model=model.number,
        state="waiting",
    )
    scorer = renderer_of(services, model, label_map)
    tasks = {task.task_id: task for task in store.tasks(PROJECT)}
    rendered = scorer.render([tasks[task] for task in best[:published]])
    scores = {task: 1 - value for task, value in ranking.priorities.items()}
    store.put_published(
        PROJECT, version, [(shown.task.task_id, scores[shown.task.task_id], shown.png) for shown in rendered]
    )
    store.mark_published(PROJECT, version)
    store.update_project(PROJECT, reconciled_at=1_795_000_000.0)


def mask_of(services: Services, task: int) -> Path:
    """The true mask of a labelled task."""
    labelled = services.store.task(PROJECT, task)
    assert labelled
    return Path(labelled.mask_file)
