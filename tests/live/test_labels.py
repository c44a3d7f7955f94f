"""Labels change after they were read: the configuration, annotations, skips. nextmask follows.

The tests follow one project through its life, in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from processes import wait_for
from steps import label, label_map_of, predictions, true_mask
from studio_client import StudioClient
from support import Nextmask

from ml_backend.annotations.label_map import LabelMap, parse_label_config
from ml_backend.annotations.masks import Mask, mask_from_png, read_result, write_result
from ml_backend.datasets import Dataset, label_config
from ml_backend.store import Task

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def project(
    serving: Nextmask, label_studio: StudioClient, make_module_project: Callable[..., int], shapes: Dataset
) -> int:
    """Twelve images, four of them labelled, one model."""
    made = make_module_project(images=12, dataset=shapes)
    serving.connect(made)
    serving.wait_settled(made)
    label(label_studio, made, shapes, label_studio.task_ids(made)[:4])
    serving.wait_for_version(made, 1)
    return made


@pytest.fixture
def label_map(project: int, label_studio: StudioClient) -> LabelMap:
    return label_map_of(label_studio, project)


def task_of(serving: Nextmask, project: int, task: int) -> Task:
    found = serving.services.store.task(project, task)
    assert found
    return found


def stored_mask(serving: Nextmask, task: Task) -> Mask:
    return mask_from_png(serving.services.files.read(task.mask_file))


def by_name(mask: Mask, classes: Iterable[str]) -> dict[str, bytes]:
    """The pixels of each class that occurs."""
    found = {name: mask == index for index, name in enumerate(classes)}
    return {name: np.packbits(pixels).tobytes() for name, pixels in found.items() if pixels.any()}


def test_a_label_more_trains_anew_and_the_old_model_serves_meanwhile(
    project: int, serving: Nextmask, label_studio: StudioClient, shapes: Dataset
) -> None:
    old = label_map_of(label_studio, project)
    old_version = serving.status(project).version
    shown = predictions(label_studio, project, old_version)[0]
    task = label_studio.task(shown["task"])
    # In front, so that the numbers of all classes move.
    xml = label_config(shapes).replace("<Label ", '<Label value="ring" background="#ff00ff"/><Label ', 1)
    new = parse_label_config(xml)
    assert new.classes == ("background", "ring", "disc", "square")
    label_studio.update_project(project, label_config=xml)

    body = {"project": f"{project}.1", "label_config": xml, "tasks": [{"id": task["id"], "data": task["data"]}]}
    asked = 0

    def trained() -> bool:
        nonlocal asked
        answer = serving.post("/predict", body)
        assert answer.status_code == 200
        (predicted,) = answer.json()["results"]
        if predicted["model_version"] == old_version:
            asked += 1
            before, after = (
                read_result(result, labels, size=shapes_size()).mask
                for result, labels in ((shown["result"], old), (predicted["result"], new))
            )
            assert by_name(before, old.classes) == by_name(after, new.classes)
        return serving.status(project).version.startswith("nextmask-2.")

    wait_for(trained, seconds=240, name="the model of four classes")
    assert asked > 0
    status = serving.wait_for_version(project, 2)
    version = serving.services.checkpoints(project).get(2)
    assert version.record.classes == new.classes
    assert version.record.parent == 1
    assert (status.state, status.errors, status.queue, status.trained_labels) == ("waiting", {}, 8, 4)
    ring = new.classes.index("ring")
    labelled = serving.services.store.tasks(project, status="labelled")
    assert all(set(np.unique(stored_mask(serving, one))) <= {0, ring + 1, ring + 2} for one in labelled)
    rows = predictions(label_studio, project, status.version)
    assert len(rows) == 8
    for row in rows:
        assert read_result(row["result"], new, size=shapes_size()).problems == ()


def shapes_size() -> tuple[int, int]:
    return 48, 64


def test_an_annotation_is_updated_then_deleted(
    project: int, serving: Nextmask, label_studio: StudioClient, shapes: Dataset, label_map: LabelMap
) -> None:
    serving.connect(project, train_after=99)
    first = label_studio.task_ids(project)[0]
    before = task_of(serving, project, first)
    assert np.array_equal(stored_mask(serving, before), true_mask(label_studio, project, first, shapes, label_map))

    changed = np.zeros(shapes_size(), np.uint8)
    changed[5:30, 5:30] = label_map.classes.index("ring")
    assert before.annotation_id
    label_studio.update_annotation(before.annotation_id, result=write_result(changed, label_map, minimum_area=0))
    wait_for(
        lambda: task_of(serving, project, first).label_digest != before.label_digest, name="the updated annotation"
    )
    assert np.array_equal(stored_mask(serving, task_of(serving, project, first)), changed)

    pool = serving.status(project).pool
    label_studio.delete_annotation(before.annotation_id)
    wait_for(lambda: task_of(serving, project, first).status == "unlabelled", name="the deletion")
    status = serving.wait_settled(project)
    assert (status.labels, status.pool, status.queue) == (3, pool + 1, pool + 1)
    assert first in [task.task_id for task, _ in serving.services.store.ranked(project)]
    assert first in [row["task"] for row in predictions(label_studio, project, status.version)]
    masks = serving.services.project_folder(project) / "masks"
    kept = sorted(file.suffix for file in masks.iterdir())
    assert kept == [".npy"] * 3 + [".png"] * 3, "masks or effort of replaced annotations stay behind"


def test_a_skipped_task_leaves_the_pool_until_the_skip_is_withdrawn(
    project: int, serving: Nextmask, label_studio: StudioClient
) -> None:
    before = serving.status(project)
    following = label_studio.next_task(project)
    assert following
    skip = label_studio.skip_task(following["id"])
    wait_for(lambda: serving.status(project).skipped == 1, name="the skip")
    status = serving.wait_settled(project)
    assert (status.pool, status.queue, status.labels) == (before.pool - 1, before.queue - 1, before.labels)
    assert following["id"] not in [task.task_id for task, _ in serving.services.store.ranked(project)]

    label_studio.delete_annotation(skip["id"])
    wait_for(lambda: serving.status(project).skipped == 0, name="the withdrawal")
    status = serving.wait_settled(project)
    assert (status.pool, status.queue) == (before.pool, before.queue)
    served = label_studio.next_task(project)
    assert served
    assert served["id"] == serving.services.store.ranked(project)[0][0].task_id


def test_ground_truth_comes_first_then_the_newest(
    project: int, serving: Nextmask, label_studio: StudioClient, label_map: LabelMap
) -> None:
    task = serving.services.store.ranked(project)[-1][0].task_id
    made = []
    for size in (10, 20, 30):
        mask = np.zeros(shapes_size(), np.uint8)
        mask[:size, :size] = label_map.classes.index("disc")
        regions = write_result(mask, label_map, minimum_area=0)
        made.append(label_studio.submit_annotation(task, regions, 1.0)["id"])
    wait_for(lambda: task_of(serving, project, task).annotation_id == made[2], name="the newest annotation")
    label_studio.update_annotation(made[0], ground_truth=True)
    wait_for(lambda: task_of(serving, project, task).annotation_id == made[0], name="the ground truth")
    assert int((stored_mask(serving, task_of(serving, project, task)) > 0).sum()) == 100
    label_studio.delete_annotation(made[0])
    wait_for(lambda: task_of(serving, project, task).annotation_id == made[2], name="the newest that is left")


def test_tasks_come_and_go(project: int, serving: Nextmask, label_studio: StudioClient, shapes: Dataset) -> None:
    before = serving.wait_settled(project)
    gone = serving.services.store.ranked(project)[0][0].task_id
    label_studio.transport.json("DELETE", f"/api/tasks/{gone}/")
    wait_for(lambda: serving.services.store.task(project, gone) is None, name="the deletion of a task")
    (new,) = label_studio.upload_images(project, [shapes.splits["train"][20].image])
    wait_for(lambda: serving.services.store.task(project, new), name="the new task")
    status = serving.wait_settled(project)
    assert (status.pool, status.queue) == (before.pool, before.queue)
    assert {row["task"] for row in predictions(label_studio, project, status.version)} >= {new}
