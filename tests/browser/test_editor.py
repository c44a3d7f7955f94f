"""What annotators see and do in the editor, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from processes import wait_for
from steps import label, label_map_of, predictions, true_mask
from studio_client import StudioClient
from studio_page import Picture, StudioPage, seen_mask
from support import Nextmask

from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap
from ml_backend.annotations.masks import agreement, as_written, read_result, write_result
from ml_backend.annotations.reading import is_unchanged
from ml_backend.datasets import Dataset
from ml_backend.projects.tabs import TAB_TITLE, queue_tab

pytestmark = [pytest.mark.live, pytest.mark.browser]


def colours(client: StudioClient, project: int, label_map: LabelMap) -> dict[int, tuple[int, int, int]]:
    xml = ElementTree.fromstring(str(client.project(project)["label_config"]))
    colours = {label_map.index_of(str(label.get("value"))): str(label.get("background")) for label in xml.iter("Label")}
    return {index: tuple(bytes.fromhex(colour[1:])) for index, colour in colours.items() if index is not None}


def assert_drawn(page: StudioPage, mask: Picture, label_map: LabelMap, palette: dict[int, Any]) -> None:
    """The editor shows the mask in the labels' colours, where it belongs.

    Not looked at are the edges of classes: their pixels are blended there, and polygons have strokes.
    """
    shown, bare = page.picture(), page.picture_without_regions()
    seen = seen_mask(shown, bare, palette)
    expected = cv2.resize(mask, seen.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    expected[cv2.morphologyEx(expected, cv2.MORPH_GRADIENT, np.ones((7, 7))) > 0] = IGNORE_INDEX
    assert set(np.unique(expected)) & set(palette), "nothing is left to look at"
    overlap = agreement(seen, expected, len(label_map.classes))
    assert overlap is not None
    assert overlap > 0.95


def annotation_of(client: StudioClient, task: int) -> dict[str, Any]:
    (annotation,) = client.task(task)["annotations"]
    return client.annotation(annotation["id"])


def prediction_of(client: StudioClient, project: int, task: int) -> dict[str, Any]:
    """The prediction that is shown in an editor that opens the task now."""
    version = client.project(project)["model_version"]
    (prediction,) = [row for row in predictions(client, project, version) if row["task"] == task]
    return prediction


def test_the_queue_opens_in_the_editor_with_its_masks_and_is_submitted(
    serving: Nextmask,
    studio_page: StudioPage,
    label_studio: StudioClient,
    make_learning_project: Callable[[int], int],
    dataset: Dataset,
) -> None:
    project = make_learning_project(10)
    labelled = label_studio.task_ids(project)[::3]
    label(label_studio, project, dataset, labelled)
    serving.wait_for_version(project, 1)
    label_map = label_map_of(label_studio, project)

    studio_page.open_tab(project, TAB_TITLE)
    rows = studio_page.rows()
    assert [task for task, _ in rows] == [task.task_id for task, _ in serving.services.store.ranked(project)]
    assert [score for _, score in rows] == sorted(score for _, score in rows)
    assert {task for task, _ in rows}.isdisjoint(labelled)

    task = rows[0][0]
    prediction = prediction_of(label_studio, project, task)
    mask = read_result(prediction["result"], label_map).mask
    studio_page.open_row(task)
    assert studio_page.outliner() == [row["value"]["brushlabels"][0] for row in prediction["result"]]
    assert_drawn(studio_page, mask, label_map, colours(label_studio, project, label_map))

    studio_page.submit()
    annotation = annotation_of(label_studio, task)
    assert annotation["parent_prediction"] == prediction["id"]
    assert not annotation["was_cancelled"]
    assert {row["origin"] for row in annotation["result"]} == {"prediction"}
    assert np.array_equal(read_result(annotation["result"], label_map).mask, mask)
    wait_for(lambda: serving.status(project).labels == len(labelled) + 1, name="the label's arrival")
    assert studio_page.problems() == []


def test_submit_and_skip_succeed_when_the_model_was_replaced_meanwhile(
    serving: Nextmask,
    studio_page: StudioPage,
    label_studio: StudioClient,
    make_learning_project: Callable[[int], int],
    dataset: Dataset,
) -> None:
    project = make_learning_project(16)
    fresh = iter(label_studio.task_ids(project))

    def retrain(version: int, *taken: int) -> None:
        """Label four tasks that nobody has open, and wait for the version that they bring about."""
        free = (task for task in fresh if task not in taken)
        label(label_studio, project, dataset, islice(free, 4))
        serving.wait_for_version(project, version)

    def opened() -> dict[str, Any]:
        assert studio_page.outliner()
        return prediction_of(label_studio, project, studio_page.task())

    def is_retired(prediction: dict[str, Any]) -> bool:
        return prediction["model_version"] != label_studio.project(project)["model_version"]

    retrain(1)
    studio_page.open_tab(project, TAB_TITLE)
    studio_page.label_all_tasks()

    first = opened()
    retrain(2, first["task"])
    assert is_retired(first)
    studio_page.submit()
    assert studio_page.problems() == []
    annotation = annotation_of(label_studio, first["task"])
    assert annotation["parent_prediction"] == first["id"]
    assert not annotation["was_cancelled"]

    studio_page.wait_for_other_task(first["task"])
    second = opened()
    assert second["model_version"].startswith("nextmask-2.")
    retrain(3, first["task"], second["task"])
    assert is_retired(second)
    studio_page.skip()
    studio_page.wait_for_other_task(second["task"])
    assert studio_page.problems() == []
    skipped = annotation_of(label_studio, second["task"])
    assert skipped["was_cancelled"]
    assert skipped["parent_prediction"] == second["id"]
    wait_for(lambda: serving.status(project).skipped == 1, name="the skip's arrival")


@pytest.mark.parametrize("control", ["BrushLabels", "BitmaskLabels", "PolygonLabels"])
def test_predicted_masks_are_visible_with_every_control(
    control: str,
    studio_page: StudioPage,
    label_studio: StudioClient,
    make_project: Callable[..., int],
    dataset: Dataset,
) -> None:
    project = make_project(images=1, control=control)
    (task,) = label_studio.task_ids(project)
    label_map = label_map_of(label_studio, project)
    mask = true_mask(label_studio, project, task, dataset, label_map)
    result = write_result(mask, label_map, minimum_area=16)
    row = {"task": task, "result": result, "score": 0.5, "model_version": "nextmask-1.1"}
    assert label_studio.import_predictions(project, [row]) == 1
    label_studio.update_project(project, model_version="nextmask-1.1", show_collab_predictions=True)
    label_studio.add_view(project, queue_tab())

    studio_page.open_tab(project, TAB_TITLE)
    studio_page.open_row(task)
    assert set(studio_page.outliner()) == set(label_map.classes[1:])
    assert_drawn(studio_page, mask, label_map, colours(label_studio, project, label_map))

    studio_page.submit()
    annotation = annotation_of(label_studio, task)
    assert is_unchanged(annotation["result"], result, label_map)
    returned, written = read_result(annotation["result"], label_map), as_written(mask, label_map, minimum_area=16)
    assert np.array_equal(returned.mask, written)
    assert studio_page.problems() == []
