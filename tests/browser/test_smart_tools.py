"""Smart tools in the editor: a click, a suggestion that is seen, a label that trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from steps import label_map_of, predictions, true_mask
from studio_client import StudioClient
from studio_page import StudioPage
from support import Nextmask

from ml_backend.annotations.label_map import LabelMap
from ml_backend.annotations.masks import read_result, write_result
from ml_backend.datasets import Dataset
from ml_backend.projects.tabs import TAB_TITLE

pytestmark = [pytest.mark.live, pytest.mark.browser]

CONTROLS = pytest.mark.parametrize("control", ["BrushLabels", "BitmaskLabels", "PolygonLabels"])
KEY = "3"
"""Of the first label of the clicks: the mask control's two labels have 1 and 2."""


@pytest.fixture
def connected(serving: Nextmask, make_project: Callable[..., int]) -> Callable[..., int]:
    """Make a project with smart tools."""

    def make(control: str, **settings: Any) -> int:
        project = make_project(images=4, control=control)
        serving.connection(project).connect({**serving.project_settings, **settings}, add_smart_tools=True)
        serving.wait_settled(project)
        return project

    return make


def regions_of(client: StudioClient, task: int) -> list[dict[str, Any]]:
    (annotation,) = client.task(task)["annotations"]
    result: list[dict[str, Any]] = client.annotation(annotation["id"])["result"]
    return result


def place(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return a pixel well inside of a mask, as x and y in fractions of its sides."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return (float(column) + 0.5) / mask.shape[1], (float(row) + 0.5) / mask.shape[0]


def pixel(mask: NDArray[np.bool_], at: tuple[float, float]) -> bool:
    return bool(mask[int(at[1] * mask.shape[0]), int(at[0] * mask.shape[1])])


def suggested(answer: dict[str, Any], label_map: LabelMap, size: tuple[int, int]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = read_result(answer["data"]["result"], label_map, size=size).mask == 1
    return found


@CONTROLS
def test_a_click_is_answered_alt_shrinks_it_and_what_is_accepted_trains(
    control: str,
    connected: Callable[..., int],
    serving: Nextmask,
    studio_page: StudioPage,
    label_studio: StudioClient,
    dataset: Dataset,
) -> None:
    """In an image that opens empty, before the first training: the encoder alone answers."""
    project = connected(control, train_after=1)
    label_map, task = label_map_of(label_studio, project), label_studio.task_ids(project)[0]
    truth = true_mask(label_studio, project, task, dataset, label_map)
    inside = place(truth == 1)

    studio_page.open_tab(project, TAB_TITLE)
    studio_page.open_row(task, regions=False)
    studio_page.take_smart_tool()
    bare = studio_page.picture()
    studio_page.press(KEY)
    first = suggested(studio_page.ask_by_click(*inside), label_map, truth.shape)
    assert pixel(first, inside)
    assert studio_page.suggestions() == 1
    shown = studio_page.picture()
    changed = np.abs(shown.astype(int) - bare).max(axis=-1) > 12
    assert changed.mean() > 0.5 * first.mean(), "it is not seen"

    wrong = place(first & (truth != 1)) if (first & (truth != 1)).sum() > 20 else place(first & ~_near(first, inside))
    studio_page.press(KEY)
    second = suggested(studio_page.ask_by_click(*wrong, "Alt"), label_map, truth.shape)
    assert pixel(second, inside)
    assert not pixel(second, wrong)
    assert studio_page.suggestions() >= 1
    assert not np.array_equal(studio_page.picture(), shown)

    studio_page.accept_suggestions()
    studio_page.submit()
    result = regions_of(label_studio, task)
    assert {one["type"] for one in result} == {control.lower()}, "prompts are gone"
    reading = read_result(result, label_map)
    assert np.array_equal(reading.mask == 1, second)
    assert (reading.problems, reading.others) == ((), ())
    status = serving.wait_for_version(project, 1)
    assert (status.labels, status.errors) == (1, {})
    assert studio_page.problems() == []


def _near(mask: NDArray[np.bool_], at: tuple[float, float]) -> NDArray[np.bool_]:
    rows, columns = np.indices(mask.shape)
    height, width = mask.shape
    return (rows - at[1] * height) ** 2 + (columns - at[0] * width) ** 2 < (0.15 * min(mask.shape)) ** 2


def test_clicks_mend_the_mask_that_is_shown_in_its_own_region(
    connected: Callable[..., int],
    studio_page: StudioPage,
    label_studio: StudioClient,
    dataset: Dataset,
) -> None:
    """With auto-accept: each click changes the region that was predicted, and no click is undone by the next one."""
    project = connected("BrushLabels", train_after=100)
    label_map, task = label_map_of(label_studio, project), label_studio.task_ids(project)[0]
    truth = true_mask(label_studio, project, task, dataset, label_map)
    prefilled = np.where(truth == 1, 1, 0).astype(np.uint8)
    top, left = truth.shape[0] // 8, truth.shape[1] // 2
    prefilled[top - 20 : top + 20, left - 20 : left + 20] = 1  # on the dark ground, and wrong
    shown = write_result(prefilled, label_map, minimum_area=16)
    (row,) = [one for one in predictions(label_studio, project) if one["task"] == task]
    label_studio.transport.json("PATCH", f"/api/predictions/{row['id']}/", json={"result": shown})

    studio_page.open_tab(project, TAB_TITLE)
    studio_page.open_row(task)
    studio_page.take_smart_tool(auto_accept=True)
    wrong = (left / truth.shape[1], top / truth.shape[0])
    missing = place(truth == 2)
    studio_page.press(KEY)
    studio_page.ask_by_click(wrong[0] + 0.03, wrong[1], "Control", "Alt")
    studio_page.press(KEY)
    studio_page.ask_by_click(*missing, "Control")
    studio_page.submit()
    result = regions_of(label_studio, task)
    reading = read_result(result, label_map)
    assert reading.problems == ()
    after = reading.mask == 1
    assert not pixel(after, (wrong[0] + 0.03, wrong[1]))
    assert pixel(after, missing)
    assert {one["id"] for one in shown} >= {one["id"] for one in result if not one["id"].startswith("smart-")}
    assert studio_page.problems() == []
