"""The simulated annotator against an in-memory Label Studio; the real one is in tests/live/test_demo.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ml_backend.annotations.boxes import Box
from ml_backend.annotations.config_edits import with_query_control
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap, parse_label_config
from ml_backend.annotations.masks import agreement, read_result, write_result
from ml_backend.annotations.query_regions import read_rectangles, write_rectangles
from ml_backend.datasets import Truth
from ml_backend.demo.annotator import LOOK_SECONDS, SECONDS_PER_EDGE, SimulatedAnnotator, Submission, drawing_seconds
from ml_backend.errors import (
    ConfigurationError,
    LabelStudioError,
    LabelStudioNotFound,
    LabelStudioUnavailable,
    NextmaskError,
)

XML = """<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">
<Label value="cell"/></BrushLabels></View>"""
LABEL_MAP = parse_label_config(XML)
TRUE = np.zeros((8, 10), dtype=np.uint8)
TRUE[2:6, 3:9] = 1


class FakeLabelStudio:
    """Serves its first open task until it is submitted or skipped, as Label Studio's lock does."""

    def __init__(self, tasks: list[dict[str, Any]], failures: dict[int, NextmaskError] | None = None) -> None:
        self.open = tasks
        self.failures = failures or {}
        self.annotations: dict[int, dict[str, Any]] = {}
        self.skipped: list[int] = []

    def next_task(self, project_id: int) -> dict[str, Any] | None:
        assert project_id == 7
        return self.open[0] if self.open else None

    def submit_annotation(self, task_id: int, result: list[dict[str, Any]], lead_time: float, **extra: Any) -> None:
        if task_id in self.failures:
            raise self.failures[task_id]
        self.annotations[task_id] = {"result": result, "lead_time": lead_time, **extra}
        del self.open[0]

    def skip_task(self, task_id: int) -> None:
        if isinstance(self.failures.get(task_id), LabelStudioNotFound):
            raise self.failures[task_id]
        self.skipped.append(task_id)
        del self.open[0]


def tasks(*numbers: int, image: str = "0a1b2c3d-cell") -> list[dict[str, Any]]:
    return [{"id": number, "data": {"image": f"/data/upload/7/{image}_{number}.png"}} for number in numbers]


@pytest.fixture
def truth(tmp_path: Path) -> Truth:
    masks = {}
    for number in range(1, 7):
        masks[f"cell_{number}.jpg"] = tmp_path / f"cell_{number}.png"
        Image.fromarray(TRUE).save(masks[f"cell_{number}.jpg"])
    return Truth(masks, ("background", "cell"))


Annotator = Callable[..., SimulatedAnnotator]


@pytest.fixture
def annotator(truth: Truth) -> Annotator:
    def make(client: FakeLabelStudio, label_map: LabelMap = LABEL_MAP) -> SimulatedAnnotator:
        return SimulatedAnnotator(client, 7, truth, label_map)  # type: ignore[arg-type]

    return make


def test_the_true_mask_is_submitted_until_no_task_is_left(annotator: Annotator) -> None:
    client = FakeLabelStudio(tasks(1, 2, 3))
    told: list[Submission] = []
    submissions = annotator(client).annotate(10, told.append)
    assert [s.task for s in submissions] == [1, 2, 3]
    assert told == submissions
    for submission in submissions:
        annotation = client.annotations[submission.task]
        assert np.array_equal(read_result(annotation["result"], LABEL_MAP).mask, TRUE)
        assert {region["origin"] for region in annotation["result"]} == {"manual"}
        assert annotation["parent_prediction"] is None
        assert annotation["lead_time"] == submission.lead_time == drawing_seconds(np.zeros_like(TRUE), TRUE)
        assert submission.agreement is None
        assert not submission.error


def test_only_as_many_as_asked_for(annotator: Annotator) -> None:
    client = FakeLabelStudio(tasks(1, 2, 3))
    assert len(annotator(client).annotate(2)) == 2
    assert [task["id"] for task in client.open] == [3]


def test_a_pre_annotation_is_compared_and_named_as_parent(annotator: Annotator) -> None:
    predicted = np.zeros_like(TRUE)
    predicted[2:6, 3:6] = 1  # half of the 24 pixels
    task = tasks(1)[0] | {
        "predictions": [
            {"id": 55, "result": write_result(predicted, LABEL_MAP, minimum_area=0)},
            {"id": 56, "result": 0},
        ]
    }
    client = FakeLabelStudio([task])
    (submission,) = annotator(client).annotate(1)
    assert submission.agreement == pytest.approx((56 / 68 + 12 / 24) / 2)  # background, cell
    assert submission.lead_time == drawing_seconds(predicted, TRUE)
    assert client.annotations[1]["parent_prediction"] == 55


def test_inside_of_rectangles_only(annotator: Annotator) -> None:
    label_map = parse_label_config(with_query_control(XML))
    predicted = np.zeros_like(TRUE)
    predicted[:, 4:] = 1
    box = Box(2, 0, 4, 8)
    shown = [*write_result(predicted, label_map, minimum_area=0), *write_rectangles([box], label_map, TRUE.shape)]
    client = FakeLabelStudio([tasks(1)[0] | {"predictions": [{"id": 5, "result": shown}]}])
    (submission,) = annotator(client, label_map).annotate(1)
    result = client.annotations[1]["result"]
    assert read_rectangles(result, label_map, TRUE.shape).boxes == (box,)
    expected = predicted.copy()
    expected[box.slices] = TRUE[box.slices]
    assert np.array_equal(read_result(result, label_map).mask, expected)
    assert {region["type"]: region["origin"] for region in result} == {
        "brushlabels": "prediction-changed",
        "rectanglelabels": "prediction",
    }
    inside = np.full_like(TRUE, IGNORE_INDEX)
    inside[box.slices] = TRUE[box.slices]
    assert submission.lead_time == drawing_seconds(predicted, inside) < drawing_seconds(predicted, TRUE)
    assert submission.agreement == agreement(predicted, inside, 2)


def test_what_needs_no_change_is_submitted_as_it_was_predicted(annotator: Annotator) -> None:
    shown = write_result(TRUE, LABEL_MAP, minimum_area=0)
    client = FakeLabelStudio([tasks(1)[0] | {"predictions": [{"id": 5, "result": shown}]}])
    annotator(client).annotate(1)
    assert [region["origin"] for region in client.annotations[1]["result"]] == ["prediction"]


def test_a_prediction_without_regions_is_no_mask_to_agree_with(annotator: Annotator) -> None:
    client = FakeLabelStudio([tasks(1)[0] | {"predictions": [{"id": 5, "result": []}]}])
    (submission,) = annotator(client).annotate(1)
    assert submission.agreement is None  # an audit image opens so
    assert client.annotations[1]["parent_prediction"] == 5


def test_unlabelled_pixels_stay_unpainted(annotator: Annotator, truth: Truth) -> None:
    mask = TRUE.copy()
    mask[0] = IGNORE_INDEX
    Image.fromarray(mask).save(truth.masks["cell_1.jpg"])
    xml = XML.replace('<Label value="cell"/>', '<Label value="background"/><Label value="cell"/>')
    label_map = parse_label_config(xml, unpainted="ignore")
    client = FakeLabelStudio(tasks(1))
    annotator(client, label_map).annotate(1)
    assert np.array_equal(read_result(client.annotations[1]["result"], label_map).mask, mask)


def test_one_failing_task_is_reported_skipped_and_does_not_stop_the_rest(annotator: Annotator) -> None:
    stranger = tasks(9, image="0a1b2c3d-unknown")
    refused = LabelStudioError("invalid result", status=400)
    client = FakeLabelStudio([*tasks(1), *stranger, *tasks(2, 3)], {2: refused})
    submissions = annotator(client).annotate(10)
    assert [s.task for s in submissions] == [1, 9, 2, 3]
    assert "no true mask belongs to image '/data/upload/7/0a1b2c3d-unknown_9.png'" in submissions[1].error
    assert submissions[2].error == "invalid result"
    assert [s.lead_time is None for s in submissions] == [False, True, True, False]
    assert client.skipped == [9, 2]


def test_three_failures_in_a_row_for_one_reason_stop_the_run(annotator: Annotator) -> None:
    client = FakeLabelStudio([*tasks(1), *tasks(11, 12, 13, 14)])
    told: list[Submission] = []
    with pytest.raises(ConfigurationError, match=r"cell_13\.png"):
        annotator(client).annotate(10, told.append)
    assert [s.task for s in told] == [1, 11, 12, 13]


def test_failures_for_different_reasons_do_not(annotator: Annotator) -> None:
    other = LabelStudioError("invalid", status=400)
    client = FakeLabelStudio([*tasks(11, 1, 12, 2, 3)], {1: other, 2: other})
    assert [s.task for s in annotator(client).annotate(10) if not s.error] == [3]


def test_a_task_is_not_skipped_when_label_studio_is_at_fault(annotator: Annotator) -> None:
    client = FakeLabelStudio(tasks(1, 2), {1: LabelStudioUnavailable("no answer")})
    with pytest.raises(LabelStudioUnavailable):
        annotator(client).annotate(10)
    assert client.skipped == []
    assert [task["id"] for task in client.open] == [1, 2]


def test_a_task_that_cannot_be_skipped_either_stops_the_run(annotator: Annotator) -> None:
    client = FakeLabelStudio(tasks(1, 2), {1: LabelStudioNotFound("task 1 is gone", status=404)})
    told: list[Submission] = []
    with pytest.raises(LabelStudioNotFound):
        annotator(client).annotate(10, told.append)
    assert [s.task for s in told] == [1, 1, 1]


def test_drawing_takes_the_outline_of_what_was_wrong() -> None:
    after = np.zeros((6, 6), dtype=np.uint8)
    after[2:4, 2:5] = 1  # 2 x 3 pixels: an outline of 10 edges
    assert drawing_seconds(after, after) == LOOK_SECONDS
    assert drawing_seconds(np.zeros_like(after), after) == pytest.approx(LOOK_SECONDS + 10 * SECONDS_PER_EDGE)
    unknown = np.full_like(after, IGNORE_INDEX)
    assert drawing_seconds(after, unknown) == LOOK_SECONDS
