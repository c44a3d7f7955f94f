"""Points in the editor: answered by keyboard alone, and which of two controls a hotkey means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from steps import label_map_of, true_mask
from studio_client import StudioClient
from studio_page import StudioPage

from ml_backend.annotations.config_edits import colour_of, with_points_control
from ml_backend.annotations.key_points import Answer, Guess, is_audit_point, write_points
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.annotations.masks import read_result, write_result
from ml_backend.datasets import Dataset, label_config
from ml_backend.projects.tabs import TAB_TITLE, queue_tab

pytestmark = [pytest.mark.live, pytest.mark.browser]

VERSION = "nextmask-1.1"
PLACES = [(90, 60), (210, 100), (170, 160), (30, 30), (250, 150)]
"""(row, column) of the points, in images of 400 x 320 pixels."""


@pytest.fixture
def open_task(
    studio_page: StudioPage, label_studio: StudioClient, make_project: Callable[..., int], dataset: Dataset
) -> Callable[..., int]:
    """Open a task whose prediction has these regions; returns its id."""

    def opened(regions: Callable[[Any, Any], list[dict[str, Any]]]) -> int:
        project = make_project(images=1, xml=with_points_control(label_config(dataset, "BrushLabels")))
        (task,) = label_studio.task_ids(project)
        label_map = label_map_of(label_studio, project)
        mask = true_mask(label_studio, project, task, dataset, label_map)
        row = {"task": task, "result": regions(label_map, mask), "score": 0.5, "model_version": VERSION}
        assert label_studio.import_predictions(project, [row]) == 1
        label_studio.update_project(project, model_version=VERSION, show_collab_predictions=True)
        label_studio.add_view(project, queue_tab())
        studio_page.open_tab(project, TAB_TITLE)
        studio_page.open_row(task)
        return task

    return opened


def submitted(client: StudioClient, task: int) -> list[dict[str, Any]]:
    (annotation,) = client.task(task)["annotations"]
    result: list[dict[str, Any]] = client.annotation(annotation["id"])["result"]
    return result


def origins(result: list[dict[str, Any]]) -> list[str]:
    return [str(region["origin"]) for region in result]


def test_a_task_of_points_is_answered_by_keyboard_alone(
    open_task: Callable[..., int], studio_page: StudioPage, label_studio: StudioClient
) -> None:
    """Grey matter is 1, white matter 2. The first guess is said again, the third and the last are passed over."""
    guesses = [Guess(*place, index, 0.4) for place, index in zip(PLACES, (1, 1, 2, 0, 2), strict=True)]
    task = open_task(lambda label_map, mask: write_points(guesses, label_map, mask.shape))
    names = {1: "grey matter", 2: "white matter", 0: "background"}
    assert studio_page.outliner() == [names[guess.index or 0] for guess in guesses]

    for keys in (["1"], ["2"], [], ["1"], []):
        studio_page.next_region()
        for key in keys:
            studio_page.press(key)
    answers = (1, 2, 2, 1, 2)
    assert studio_page.outliner() == [names[index] for index in answers]
    studio_page.submit_by_keyboard()

    result, project = submitted(label_studio, task), label_studio.task(task)["project"]
    label_map = label_map_of(label_studio, project)
    reading = read_result(result, label_map)
    assert reading.answers == tuple(Answer(*place, index) for place, index in zip(PLACES, answers, strict=True))
    assert (reading.mask != IGNORE_INDEX).sum() == len(PLACES)
    assert (reading.problems, reading.regions) == ((), 0)
    assert origins(result)[1:] == ["prediction-changed", "prediction", "prediction-changed", "prediction"]
    assert studio_page.problems() == []


def test_points_are_seen_in_the_colours_of_their_classes(
    open_task: Callable[..., int], studio_page: StudioPage, label_studio: StudioClient
) -> None:
    guesses = [Guess(*place, index) for place, index in zip(PLACES, (1, 1, 2, 0, 2), strict=True)]
    task = open_task(lambda label_map, mask: write_points(guesses, label_map, mask.shape))
    xml = str(label_studio.project(label_studio.task(task)["project"])["label_config"])
    background = xml.partition('value="background" background="')[2][:7]
    colours = {1: colour_of("#e66101"), 2: colour_of("#4091ff"), 0: colour_of(background)}
    picture = studio_page.picture()
    for guess in guesses:
        row, column = (guess.row + 0.5) / 400 * picture.shape[0], (guess.column + 0.5) / 320 * picture.shape[1]
        shown = picture[int(row), int(column)].astype(int)
        assert np.abs(shown - np.array(colours[guess.index or 0])).max() < 40


def test_points_whose_guess_is_hidden_are_answered_the_same_way(
    open_task: Callable[..., int], studio_page: StudioPage, label_studio: StudioClient
) -> None:
    task = open_task(lambda label_map, mask: write_points([Guess(*place) for place in PLACES], label_map, mask.shape))
    assert studio_page.outliner() == [""] * len(PLACES)
    for key in "132":
        studio_page.next_region()
        studio_page.press(key)
    studio_page.submit_by_keyboard()
    result = submitted(label_studio, task)
    reading = read_result(result, label_map_of(label_studio, label_studio.task(task)["project"]))
    assert {(answer.row, answer.column): answer.index for answer in reading.answers} == dict(
        zip(PLACES[:3], (1, 0, 2), strict=True)
    )
    assert len(reading.problems) == 2
    assert all("it was not answered" in problem for problem in reading.problems)
    assert studio_page.problems() == []


def test_points_that_were_drawn_to_measure_with_are_known_when_they_come_back(
    open_task: Callable[..., int], studio_page: StudioPage, label_studio: StudioClient
) -> None:
    """By their ids, which the editor keeps: also where nobody knows any more what was shown."""

    def regions(label_map: Any, mask: Any) -> list[dict[str, Any]]:
        return write_points([Guess(*place) for place in PLACES], label_map, mask.shape, for_audit=True)

    task = open_task(regions)
    for key in "1231":
        studio_page.next_region()
        studio_page.press(key)
    studio_page.submit_by_keyboard()
    result = submitted(label_studio, task)
    assert len(result) == len(PLACES)
    assert all(is_audit_point(region) for region in result)
    reading = read_result(result, label_map_of(label_studio, label_studio.task(task)["project"]))
    assert len(reading.answers) == 4
    assert (reading.mask != IGNORE_INDEX).sum() == 4, "what was left unanswered is no background"
    assert studio_page.problems() == []


def test_a_hotkey_means_the_control_of_what_is_selected_and_the_brush_where_nothing_is(
    open_task: Callable[..., int], studio_page: StudioPage, label_studio: StudioClient
) -> None:
    def regions(label_map: Any, mask: Any) -> list[dict[str, Any]]:
        mask[mask == 2] = 1
        points = write_points([Guess(*PLACES[0], 1)], label_map, mask.shape)
        return [*points, *write_result(mask, label_map, minimum_area=0)]

    task = open_task(regions)
    studio_page.next_region()
    studio_page.press("2")
    assert studio_page.outliner() == ["white matter", "grey matter"], "a point is selected: the mask stays"
    studio_page.next_region()
    studio_page.press("2")
    assert studio_page.outliner() == ["white matter", "white matter"], "the mask is selected"
    studio_page.press("Escape")
    studio_page.press("1")
    studio_page.stroke((0.2, 0.1), (0.5, 0.1))
    assert studio_page.outliner() == ["white matter", "white matter", "grey matter"]
    studio_page.submit()
    point, mask, stroke = submitted(label_studio, task)
    assert (point["from_name"], point["value"]["keypointlabels"]) == ("points", ["white matter"])
    assert (mask["from_name"], mask["value"]["brushlabels"]) == ("mask", ["white matter"])
    assert (stroke["from_name"], stroke["type"], stroke["value"]["brushlabels"]) == (
        "mask",
        "brushlabels",
        ["grey matter"],
    )
    assert studio_page.problems() == []


def test_points_that_are_moved_added_and_deleted_come_back(
    open_task: Callable[..., int], studio_page: StudioPage, label_studio: StudioClient
) -> None:
    """A drag to far outside ends inside, at the border; which pixel that is, the editor decides."""
    guesses = [Guess(*place, 1) for place in PLACES[:3]]
    task = open_task(lambda label_map, mask: write_points(guesses, label_map, mask.shape))
    (row, column), width, height = PLACES[0], 320, 400
    start = (column + 0.5) / width, (row + 0.5) / height
    studio_page.stroke(start, (1.2, start[1]))
    studio_page.press("Escape")
    studio_page.next_region()
    studio_page.next_region()
    studio_page.press("Backspace")
    assert studio_page.outliner() == ["grey matter"] * 2
    studio_page.submit()
    result = submitted(label_studio, task)
    reading = read_result(result, label_map_of(label_studio, label_studio.task(task)["project"]))
    assert reading.problems == ()
    (moved,) = [answer for answer in reading.answers if (answer.row, answer.column) not in PLACES]
    assert moved.row == row
    assert moved.column > width * 0.95
    assert len(reading.answers) == 2
    assert studio_page.problems() == []
