"""Pseudo-labels: which tasks get one, what the training is given, and that nothing of them stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from memory_studio import MemoryStudio
from wiring import (
    LABEL_MAP,
    PROJECT,
    SHAPE,
    XML,
    disc,
    look_at,
    nothing,
    overlap_with_truth,
    png,
    project_of,
    task_of,
)

from ml_backend.annotations.boxes import Box, boxes_to_text
from ml_backend.annotations.label_map import parse_label_config
from ml_backend.annotations.masks import mask_from_png
from ml_backend.errors import LeaseLost, TrainingError
from ml_backend.learning.checkpoints import Version, VersionRecord
from ml_backend.learning.ranking import PoolRanking, Pools, make_strategy, observed, rank_pool
from ml_backend.learning.training import Item, Job, train
from ml_backend.learning.training import process as training_process
from ml_backend.projects.audit import AuditSet
from ml_backend.projects.services import Services
from ml_backend.worker.pseudo_labels import PseudoLabels, eligible, proposal_text, proposed
from ml_backend.worker.reconcile import reconcile
from ml_backend.worker.train import changed_labels, train_if_wanted
from strategies import Batch, Budget

OPTIONS = {"threshold": 1.0, "decay": 0}
SETTINGS = {"strategy": "ceal", "strategy_options": OPTIONS}
QUICK = {"input_size": 32, "iterations": 4, "batch_size": 4, "train_after": 2, "queue_window": 2, "audit_share": 0.0}

pytestmark = [
    pytest.mark.usefixtures("one_thread", "known_project"),
    pytest.mark.studio(8, connected=True),
    pytest.mark.settings(**QUICK, **SETTINGS),
]


def give_tasks(services: Services, *labelled: int, proposal: tuple[int, ...] = ()) -> None:
    """Eight tasks, some labelled; others are proposed."""
    folder = services.project_folder(PROJECT)
    for task in labelled:
        (folder / f"{task}.png").write_bytes(png(disc(task - 1)[1]))
    drawn = {
        task: {"status": "labelled", "label_digest": "drawn", "mask_file": str(folder / f"{task}.png")}
        for task in labelled
    }
    services.store.put_tasks(
        task_of(
            task, image=f"/data/upload/{task - 1}.png", group_key=f"/data/upload/{task - 1}.png", **drawn.get(task, {})
        )
        for task in range(1, 9)
    )
    services.store.update_project(PROJECT, pseudo_labels=proposal_text(services.settings, proposal))


def left_over(services: Services) -> list[Path]:
    return list(services.project_folder(PROJECT).glob("pseudo-labels-*"))


# -- what is kept of a ranking ---------------------------------------------------------------------------------------
def test_a_proposal_is_dropped_with_the_strategy_that_made_it(services: Services) -> None:
    made = proposal_text(services.settings, [3, 1])
    assert proposed(services.settings, made) == [3, 1]
    for other in ({"strategy": "entropy"}, {"strategy_options": {"threshold": 0.0}}, {"strategy_options": {}}):
        assert proposed(services.settings.for_project(other), made) == []


@pytest.mark.parametrize("text", ["", "[1, 2]", "{}", '{"strategy": "ceal"}'])
def test_what_is_no_proposal_proposes_nothing(services: Services, text: str) -> None:
    assert proposed(services.settings, text) == []
    assert proposal_text(services.settings, []) == ""


# -- which tasks -----------------------------------------------------------------------------------------------------
def ids(services: Services, *tasks: Any, share: float = 0.0) -> list[int]:
    return [task.task_id for task in eligible([3, 2, 1], tasks, AuditSet(share, services.settings.seed))]


def test_the_most_certain_come_first_and_tasks_that_are_gone_do_not(services: Services) -> None:
    assert ids(services, task_of(1), task_of(3)) == [3, 1]
    assert ids(services, task_of(3, status="passed")) == [3]


@pytest.mark.parametrize(
    "touched",
    [
        {"status": "labelled"},
        {"status": "labelled", "boxes": boxes_to_text([Box(0, 0, 4, 4)])},
        {"status": "skipped"},
        {"status": "broken"},
        {"annotation_id": 9},
    ],
)
def test_an_image_that_a_person_said_anything_about_is_left_alone(services: Services, touched: dict[str, Any]) -> None:
    assert ids(services, task_of(3, **touched), task_of(1)) == [1]
    # through another task of the same image
    assert ids(services, task_of(3, image="same"), task_of(7, image="same", **touched), task_of(1)) == [1]


def test_an_image_gets_one_pseudo_label(services: Services) -> None:
    assert ids(services, task_of(1, image="same"), task_of(2, image="same"), task_of(3)) == [3, 2]


def test_what_is_kept_for_measuring_never_trains(services: Services) -> None:
    def group(task: int) -> str:
        """A group of which only that of task 2 is held out."""
        return next(name for name in (f"{task}-{n}" for n in range(99)) if AuditSet(0.5, 0).has(name) == (task == 2))

    tasks = [task_of(task, group_key=group(task)) for task in (1, 2, 3)]
    assert ids(services, *tasks, share=0.5) == [3, 1]
    # nor does another task of an image that is kept
    shared = [replace(tasks[0], image="same"), replace(tasks[1], image="same"), tasks[2]]
    assert ids(services, *shared, share=0.5) == [3]


# -- the masks -------------------------------------------------------------------------------------------------------
def make(
    services: Services, *, xml: str = XML, heartbeat: Callable[[], None] = nothing, **settings: Any
) -> PseudoLabels:
    return PseudoLabels(look_at(services, label_map=parse_label_config(xml), settings=settings, check=heartbeat))


def test_the_version_predicts_at_the_original_size_and_the_files_go(
    services: Services, served_project: Version
) -> None:
    give_tasks(services, proposal=(5, 6, 7, 8, 1))
    with make(services, batch_size=2).items(served_project) as items:
        assert [item.id for item in items] == ["5", "6", "7", "8", "1"]
        assert all(item.pseudo and not item.held_out for item in items)
        found = [mask_from_png(item.mask.read_bytes()) for item in items]
        assert {mask.shape for mask in found} == {SHAPE}
        assert overlap_with_truth(found[0], 4) > 0.5  # it is the disc that is there
        (folder,) = left_over(services)
    assert not folder.exists()


def test_an_image_that_cannot_be_had_is_left_out(
    services: Services, studio: MemoryStudio, served_project: Version
) -> None:
    give_tasks(services, proposal=(5, 6))
    del studio.files["/data/upload/4.png"]
    with make(services).items(served_project) as items:
        assert [item.id for item in items] == ["6"]


def test_classes_are_translated_by_name(services: Services, served_project: Version) -> None:
    give_tasks(services, proposal=(5,))
    turned = XML.replace(
        '<Label value="cell"/><Label value="nucleus"/>', '<Label value="nucleus"/><Label value="cell"/>'
    )
    assert turned != XML
    with make(services, xml=turned).items(served_project) as items:
        mask = mask_from_png(items[0].mask.read_bytes())
    assert overlap_with_truth((mask == 2).astype(np.uint8), 4) > 0.5


def test_a_version_that_lacks_a_class_does_not_teach_that_it_is_nowhere(
    services: Services, served_project: Version
) -> None:
    give_tasks(services, proposal=(5,))
    more = XML.replace('<Label value="cell"/>', '<Label value="vessel"/><Label value="cell"/>')
    with make(services, xml=more).items(served_project) as items:
        assert items == []
    fewer = XML.replace('<Label value="nucleus"/>', "")
    with make(services, xml=fewer).items(served_project) as items:
        assert len(items) == 1


def test_what_a_person_labels_meanwhile_is_left_out(services: Services, served_project: Version) -> None:
    give_tasks(services, proposal=(5, 6))

    def label() -> None:
        services.store.put_tasks([task_of(5, image="/data/upload/4.png", status="labelled")])

    with make(services, heartbeat=label).items(served_project) as items:
        assert [item.id for item in items] == ["6"]


def test_without_a_version_or_a_proposal_there_are_none(services: Services, served_project: Version) -> None:
    give_tasks(services, proposal=(5,))
    with make(services).items(None) as items:
        assert items == []
    with make(services, strategy="entropy", strategy_options={}).items(served_project) as items:
        assert items == []


def test_a_damaged_version_leaves_the_training_without(services: Services, served_project: Version) -> None:
    give_tasks(services, proposal=(5,))
    served_project.weights.write_bytes(b"damaged")
    with make(services).items(served_project) as items:
        assert items == []


def test_whatever_ends_the_training_the_files_go(services: Services, served_project: Version) -> None:
    give_tasks(services, proposal=(5,))

    def lost() -> None:
        raise LeaseLost("gone")

    with pytest.raises(LeaseLost), make(services, heartbeat=lost).items(served_project):
        pass
    with pytest.raises(TrainingError), make(services).items(served_project):
        raise TrainingError("failed")
    assert left_over(services) == []


def test_what_a_killed_training_left_is_removed_by_the_next(services: Services, served_project: Version) -> None:
    give_tasks(services)
    folder = services.project_folder(PROJECT) / "pseudo-labels-abc"
    folder.mkdir()
    (folder / "5.png").write_bytes(b"x")
    with make(services).items(served_project):
        assert left_over(services) == []


# -- the training ----------------------------------------------------------------------------------------------------
@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """What the training process is given; it trains in this process."""
    given: list[Job] = []

    def run(job: Job, *, progress: Any, heartbeat: Any) -> int:
        given.append(job)
        return train(job, progress).number

    monkeypatch.setattr(training_process, "run", run)
    return given


def train_project(services: Services) -> bool:
    return train_if_wanted(look_at(services))


@pytest.mark.usefixtures("model")
def test_a_training_uses_them_and_records_them_apart(services: Services, jobs: list[Job]) -> None:
    give_tasks(services, 1, 2, proposal=(5, 6))
    assert train_project(services)
    assert [(item.id, item.pseudo) for item in jobs[0].items] == [("1", False), ("2", False), ("5", True), ("6", True)]
    record = services.checkpoints(PROJECT).get(2).record
    assert record.pseudo_labels == ("5", "6")
    assert (set(record.labels), record.held_out, record.skipped) == ({"1", "2"}, (), {})
    assert record.measures["trained"] == 2
    # nothing says that there are labels: neither a mask, nor an annotation, nor a file
    assert [task.task_id for task in services.store.tasks(PROJECT, status="labelled")] == [1, 2]
    assert not any(task.mask_file for task in services.store.tasks(PROJECT, status="unlabelled"))
    assert left_over(services) == []


@pytest.mark.usefixtures("model")
def test_they_are_no_reason_to_train(services: Services, jobs: list[Job]) -> None:
    give_tasks(services, 1, 2, proposal=(5, 6))
    train_project(services)
    version = services.checkpoints(PROJECT).get(2)
    assert changed_labels(version, services.store.tasks(PROJECT, status="labelled")) == 0
    give_tasks(services, 1, 2, proposal=(3, 4, 5, 6, 7, 8))  # others, and more
    assert not train_project(services)
    give_tasks(services, proposal=(3, 4))  # no label at all, but a wish to train
    services.store.wake(PROJECT, train=True)
    assert not train_project(services)
    assert len(jobs) == 1


@pytest.mark.usefixtures("model")
def test_a_label_takes_the_place_of_its_pseudo_label(services: Services, jobs: list[Job]) -> None:
    give_tasks(services, 1, 2, proposal=(5, 6))
    train_project(services)
    give_tasks(services, 1, 2, 5, 6, proposal=(5, 6, 7))
    assert train_project(services)  # two new labels
    assert [(item.id, item.pseudo) for item in jobs[1].items][2:] == [("5", False), ("6", False), ("7", True)]


@pytest.mark.usefixtures("model")
def test_a_network_is_never_trained_on_its_own_predictions_alone(
    services: Services, studio: MemoryStudio, jobs: list[Job]
) -> None:
    give_tasks(services, 1, 2, proposal=(5, 6))
    for index in (0, 1):
        del studio.files[f"/data/upload/{index}.png"]
    with pytest.raises(TrainingError, match="nothing to train on: 2 labels, 0 of them held out, 2 not usable"):
        train_project(services)
    assert [job.items for job in jobs] == [()]


def job_of(folder: Path, *, pseudo_mask: Any, labels: int = 1) -> Job:
    items = []
    for index in range(3):
        image, mask = folder / f"{index}.png", folder / f"{index}-mask.png"
        pixels, truth = disc(index)
        image.write_bytes(png(pixels))
        mask.write_bytes(png(truth if index < labels else pseudo_mask))
        items.append(Item(str(index), image, mask, False, "d", pseudo=index >= labels))
    quick: dict[str, Any] = {"iterations": 2, "batch_size": 2, "input_size": 32, "device": "cpu"}
    return Job(tuple(items), LABEL_MAP.classes, "map", "data", folder / "model", **quick)


def test_one_that_cannot_be_used_is_not_a_skipped_label(tmp_path: Path) -> None:
    record = train(job_of(tmp_path, pseudo_mask=np.full(SHAPE, 255, np.uint8))).record  # nothing in it to learn from
    assert (record.pseudo_labels, record.skipped, set(record.labels)) == ((), {}, {"0"})


def test_pseudo_labels_alone_are_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to train on: 0 labels"):
        train(job_of(tmp_path, pseudo_mask=np.zeros(SHAPE, np.uint8), labels=0))


def test_a_pseudo_label_that_measures_is_refused(tmp_path: Path) -> None:
    job = job_of(tmp_path, pseudo_mask=np.zeros(SHAPE, np.uint8))
    with pytest.raises(TrainingError, match="cannot be held out"):
        replace(job, items=(*job.items[:2], replace(job.items[2], held_out=True)))


def test_jobs_and_records_survive_json(tmp_path: Path) -> None:
    job = replace(job_of(tmp_path, pseudo_mask=np.zeros(SHAPE, np.uint8)), unavailable={"9": "gone"})
    assert Job.from_json(job.to_json()) == job
    old = {"classes": ["a"], "label_map_digest": "", "data_digest": ""}  # of an earlier release
    assert VersionRecord.from_dict(old).pseudo_labels == ()
    assert VersionRecord.from_dict({**old, "pseudo_labels": ["5"]}).pseudo_labels == ("5",)


# -- the whole way ---------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("model")
def test_a_ranking_proposes_and_the_next_training_uses(
    services: Services, studio: MemoryStudio, jobs: list[Job]
) -> None:
    studio.label(1)
    reconcile(services, PROJECT, nothing)
    kept = proposed(services.settings, project_of(services).pseudo_labels)
    queue = studio.queue()
    assert len(queue) == 2
    assert kept
    assert not set(kept) & {1, *queue}  # what people are asked for is not proposed
    for task in queue:
        studio.label(task)
    reconcile(services, PROJECT, nothing)
    latest = services.checkpoints(PROJECT).latest()
    assert latest is not None
    assert {int(one) for one in latest.record.pseudo_labels} == set(kept)
    assert set(latest.record.labels) == {str(task) for task in (1, *queue)}
    assert sum(len(item["annotations"]) for item in studio.items.values()) == 3  # none was submitted for anybody
    studio.backends[0]["extra_params"] = {"strategy": "entropy", "strategy_options": {}}
    for task in studio.queue():
        studio.label(task)
    reconcile(services, PROJECT, nothing)
    assert not any(item.pseudo for item in jobs[-1].items)
    assert project_of(services).pseudo_labels == ""


# -- the melanoma paper's preset -------------------------------------------------------------------------------------
def opinions(task: int, size: float, doubt: float) -> Batch:
    """One image of 16 x 16: a square object whose inside two members doubt, with chance `doubt` in one of them."""
    maps = torch.zeros(2, 1, 2, 16, 16)
    maps[:, :, 0] = 1.0
    side = round(16 * size**0.5)
    for member, object_here in enumerate((1.0 - doubt, 1.0)):
        maps[member, 0, 1, :side, :side] = object_here
        maps[member, 0, 0, :side, :side] = 1 - object_here
    return Batch(ids=(task,), images=torch.zeros(1, 3, 16, 16), probabilities=maps)


def test_the_melanoma_preset_from_option_to_pseudo_labels() -> None:
    """Thirty images: nothing is detected in ten, in the others members disagree the more the higher the id."""
    nothing_there = range(1, 11)
    batches = [opinions(task, 0.0, 0.0) for task in nothing_there]
    batches += [opinions(task, 0.25, (task - 10) / 50) for task in range(11, 31)]

    def ranked(round_number: int, **options: Any) -> Any:
        nothing = list[Batch]
        strategy = make_strategy("ceal", {"preset": "melanoma", **options})
        answer = rank_pool(
            strategy,
            Pools(observed(lambda: batches), observed(nothing), nothing, nothing),
            budget=Budget(images=14),
            seed=3,
            round_number=round_number,
            progress=lambda _: None,
        )
        return PoolRanking.of(answer)

    for round_number in (4, 5):
        found = ranked(round_number)
        order = sorted(found.priorities, key=lambda task: -found.priorities[task])
        assert set(order[:4]) <= set(nothing_there)  # 10 of 35 parts of 14
        assert order[4:8] == [30, 29, 28, 27]  # as many of the most uncertain
        assert len(set(order[8:14]) - {30, 29, 28, 27}) == 6  # 15 of 35 parts by chance
        assert set(order) == set(range(1, 31))
    assert ranked(4).pseudo_labels == ()
    certain = ranked(5).pseudo_labels
    assert certain == tuple(sorted(certain))  # the most certain first: members agree most on the lowest ids
    assert certain
    assert not set(certain) & {*order[:14], *nothing_there}
    assert len(ranked(5, confident_most=2).pseudo_labels) == 2
