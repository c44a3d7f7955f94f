"""Effort: what is counted where, and how it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wiring import region

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Box, Query
from ml_backend.annotations.clicks import annotation_effort, boundary, clicks
from ml_backend.annotations.effort import as_points, effort_map, read_points, spread, write_points
from ml_backend.annotations.label_map import parse_label_config
from ml_backend.projects.effort_report import effort_pairs, effort_report
from ml_backend.store import Task
from ml_backend.system.files import Folder

BRUSH = parse_label_config(
    '<View><Image name="image" value="$image"/><BrushLabels name="tag" toName="image">'
    '<Label value="cell"/><Label value="nucleus"/></BrushLabels></View>'
)
POLYGON = parse_label_config(
    '<View><Image name="image" value="$image"/><PolygonLabels name="tag" toName="image"><Label value="cell"/>'
    '</PolygonLabels><EllipseLabels name="e" toName="image"><Label value="cell"/></EllipseLabels>'
    '<RectangleLabels name="r" toName="image"><Label value="cell"/></RectangleLabels>'
    '<VectorLabels name="v" toName="image"><Label value="cell"/></VectorLabels></View>'
)
SIZE = (40, 50)  # height, width
NOTHING = np.zeros(SIZE, np.uint8)


def square(top: int, left: int, side: int = 10, index: int = 1) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + side, left : left + side] = index
    return mask


def shown(mask: np.ndarray, label_map: Any = BRUSH, **options: Any) -> list[dict[str, Any]]:
    """The regions of a prediction, as the editor returns them untouched."""
    written = masks.write_result(mask, label_map, **{"minimum_area": 0, **options})
    return [{**one, "origin": "prediction"} for one in written]


def brush(mask: np.ndarray, label: str = "cell", **fields: Any) -> dict[str, Any]:
    return {**region(mask, label), "origin": "manual", **fields}


def polygon(points: list[list[float]], **fields: Any) -> dict[str, Any]:
    common = {"id": "p", "from_name": "tag", "to_name": "image", "type": "polygonlabels", "origin": "manual"}
    return {**common, "value": {"points": points, "closed": True, "polygonlabels": ["cell"]}, **fields}


def total(points: Any) -> float:
    return float(points[:, 2].sum())


# -- what is counted -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("label_map", [BRUSH, POLYGON])
def test_what_stays_as_it_was_predicted_costs_nothing(label_map: Any) -> None:
    mask = square(5, 5)
    assert clicks(shown(mask, label_map), label_map, mask).shape == (0, 3)


def test_a_drawn_polygon_costs_its_vertices_and_one_for_being_new() -> None:
    points = [[10.0, 10.0], [30.0, 10.0], [30.0, 60.0]]
    found = clicks([polygon(points)], POLYGON, NOTHING)
    assert found.tolist() == [[5, 4, 1], [15, 4, 1], [15, 24, 1], [5, 4, 1]]


def test_a_changed_polygon_costs_the_vertices_that_were_not_there() -> None:
    mask = square(10, 10)
    (region_,) = shown(mask, POLYGON)
    region_["value"]["points"][0] = [1.0, 1.0]
    region_["origin"] = "prediction-changed"
    assert clicks([region_], POLYGON, mask).tolist() == [[0.5, np.float32(0.4), 1]]


def test_vectors_ellipses_and_rectangles() -> None:
    common = {"id": "x", "to_name": "image", "origin": "manual"}
    vertices = [{"id": str(at), "x": 10.0 * at, "y": at * at} for at in range(1, 4)]
    vector = {"from_name": "v", "type": "vectorlabels", "value": {"vertices": vertices, "vectorlabels": ["cell"]}}
    ellipse = {"x": 50, "y": 50, "radiusX": 5, "radiusY": 5, "ellipselabels": ["cell"]}
    rectangle = {"x": 40, "y": 40, "width": 20, "height": 20, "rectanglelabels": ["cell"]}
    assert total(clicks([common | vector], POLYGON, NOTHING)) == 4
    for kind, name, value in (("ellipselabels", "e", ellipse), ("rectanglelabels", "r", rectangle)):
        found = clicks([common | {"from_name": name, "type": kind, "value": value}], POLYGON, NOTHING)
        assert found.tolist() == [[25, 20, 1], [25, 20, 1]]


def test_a_drawn_brush_costs_its_boundary_and_one_for_being_new() -> None:
    found = clicks([brush(square(5, 5))], BRUSH, NOTHING)
    assert total(found) == pytest.approx(36 / 10 + 1)
    spread_over = effort_map(found, SIZE)
    assert np.array_equal(spread_over > 0, boundary(square(5, 5) > 0) | (spread_over >= 1))
    assert np.count_nonzero(spread_over >= 1) == 1  # the click that began it


def test_a_changed_brush_costs_the_boundary_of_what_was_changed() -> None:
    before = square(5, 5, 20)
    after = before.copy()
    after[5:8, 5:8] = 0  # 3 x 3 are wiped off: 8 boundary pixels
    changed = brush(after, id="class-1-0", origin="prediction-changed")
    found = clicks([changed], BRUSH, before)
    assert total(found) == pytest.approx(0.8)
    assert found[:, :2].min() >= 5
    assert found[:, :2].max() < 8


def test_only_the_class_that_was_worked_on_costs() -> None:
    before = np.maximum(square(5, 5), square(25, 25, index=2))
    first, second = shown(before)
    assert total(clicks([first, second, brush(square(20, 5, 3))], BRUSH, before)) == pytest.approx(0.8 + 1)


def test_a_deleted_region_costs_a_click() -> None:
    before = np.maximum(square(5, 5), square(25, 25, index=2))
    first, _ = shown(before)
    (deleted,) = clicks([first], BRUSH, before).tolist()
    assert deleted[2] == 1
    assert before[int(deleted[1]), int(deleted[0])] == 2
    assert total(clicks([], POLYGON, square(5, 5))) == 1


def test_a_region_that_replaces_a_predicted_one_costs_the_difference() -> None:
    before, after = square(5, 5), square(5, 8)
    found = clicks([brush(after)], BRUSH, before)
    assert total(found) == pytest.approx(2 * 22 / 10 + 1)  # two strips of 10 x 3


def test_specks_that_were_not_shown_are_no_change() -> None:
    before = square(5, 5)
    before[30, 30] = 1
    (region_,) = shown(before, minimum_area=4)
    region_["origin"] = "prediction-changed"
    assert clicks([region_], BRUSH, before, minimum_area=4).shape == (0, 3)
    assert total(clicks([region_], BRUSH, before)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "bad",
    [
        polygon([[1, 2], [3, "x"]]),
        polygon([[1, 2]], value=None),
        polygon([[1, 2], [3, 4], [5, 6]], from_name="tag", type="choices"),
        {**polygon([]), "value": {"points": [[1, 2], [5, 6], [3, 9]], "polygonlabels": ["vessel"]}},
        brush(square(1, 1), value={"format": "rle", "rle": [1, 2, 3], "brushlabels": ["cell"]}),
        {**polygon([]), "type": "ellipselabels", "value": {"x": "a", "radiusX": 3, "ellipselabels": ["cell"]}},
        "nonsense",
    ],
)
def test_regions_that_are_no_part_of_the_label_cost_nothing(bad: Any) -> None:
    for label_map in (BRUSH, POLYGON):
        assert total(clicks([bad], label_map, NOTHING)) == 0


@pytest.mark.parametrize("name", [["a", "list"], {"an": "object"}, None, 7])
def test_a_region_may_have_any_id(name: Any) -> None:
    assert total(clicks([brush(square(5, 5), id=name)], BRUSH, NOTHING)) == pytest.approx(3.6 + 1)


def test_a_boundary_includes_the_border_of_the_image() -> None:
    assert boundary(np.ones((4, 5), bool)).sum() == 14
    assert boundary(np.zeros((4, 5), bool)).sum() == 0


# -- an annotation ---------------------------------------------------------------------------------------------------
def effort(annotation: dict[str, Any], boxes: tuple[Box, ...] = (), measure: Any = "clicks") -> Any:
    return annotation_effort(annotation, BRUSH, NOTHING, boxes, measure=measure, minimum_area=0, tolerance=1.0)


def test_effort_outside_of_the_boxes_is_left_out() -> None:
    result = [brush(square(5, 5)), brush(square(25, 30), id="r2")]
    found = effort({"result": result}, (Box(0, 0, 20, 20),))
    assert total(found) == pytest.approx(4.6)
    assert total(effort({"result": result})) == pytest.approx(2 * 3.6 + 2)


def test_seconds_are_the_lead_time_where_the_clicks_were() -> None:
    annotation = {"result": [brush(square(5, 5))], "lead_time": 23.0}
    found = effort(annotation, measure="seconds")
    assert total(found) == pytest.approx(23)
    assert np.array_equal(found[:, :2], effort(annotation)[:, :2])


def test_seconds_of_looking_are_spread_over_what_was_looked_at() -> None:
    boxes = (Box(0, 0, 8, 8), Box(20, 20, 16, 8))
    found = effort({"result": [], "lead_time": 12.0}, boxes, "seconds")
    assert total(found) == pytest.approx(12)
    spread_over = effort_map(found, SIZE)
    assert spread_over[boxes[0].slices].sum() == pytest.approx(4)  # a third of the area
    assert spread_over[boxes[1].slices].sum() == pytest.approx(8)
    assert total(effort({"result": [], "lead_time": 12.0}, (), "seconds")) == pytest.approx(12)


@pytest.mark.parametrize("lead_time", [None, 0, -3.0, "12", True, float("nan"), float("inf"), 1e40, 10**400])
def test_without_a_lead_time_there_are_no_seconds(lead_time: Any) -> None:
    assert effort({"result": [brush(square(5, 5))], "lead_time": lead_time}, measure="seconds") is None
    assert effort({"result": None, "lead_time": lead_time}).shape == (0, 3)


# -- how it is kept --------------------------------------------------------------------------------------------------
def test_points_are_kept_under_their_digest(tmp_path: Path) -> None:
    points = as_points([(1.5, 2.5, 3.0)])
    files = Folder(tmp_path)
    file = tmp_path / write_points(files, "masks", 7, points)
    assert file.name.startswith("7-")
    assert file.suffix == ".npy"
    assert np.array_equal(read_points(file.read_bytes()), points)
    assert tmp_path / write_points(files, "masks", 7, points) == file
    assert tmp_path / write_points(files, "masks", 7, as_points([])) != file
    assert len(list(file.parent.iterdir())) == 2
    assert effort_map(read_points(file.read_bytes()), (3, 2)).sum() == 3
    assert effort_map(as_points([]), (3, 2)).sum() == 0


def test_spreading_keeps_the_places() -> None:
    points = as_points([(1, 1, 1), (5, 5, 3)])
    assert spread(points, 8, []).tolist() == [[1, 1, 2], [5, 5, 6]]
    assert points[0, 2] == 1


# -- predicted against actual ----------------------------------------------------------------------------------------
def answered(task_id: int, effort: float | None, version: str = "nextmask-1.1") -> Task:
    return Task(1, task_id, "i", status="labelled", boxes="[[0,0,1,1]]", effort=effort, shown_version=version)


def test_predicted_and_actual_effort_of_answered_queries() -> None:
    box = (Box(0, 0, 1, 1),)
    queries = {(at, "nextmask-1.1"): Query(box, float(at)) for at in range(1, 7)}
    queries[1, "nextmask-1.2"] = Query(box, 100.0)  # this one it was not answered from
    queries[6, "nextmask-1.1"] = Query(box)  # nothing predicted it
    tasks = [answered(at, 2.0 * at) for at in range(1, 7)]
    tasks += [answered(9, 5.0), answered(8, None), Task(1, 2, "i", status="unlabelled")]
    report = effort_report(effort_pairs(tasks, queries), "clicks")
    assert report is not None
    assert (report.tasks, report.predicted_total, report.predicted_mean, report.actual_mean) == (5, 15, 3, 6)
    assert report.rank_correlation == pytest.approx(1)
    assert report.sentence == (
        "Effort per task with regions: 3.0 clicks predicted, 6.0 actual (5 tasks, rank correlation 1.00)."
    )
    few = effort_report(effort_pairs(tasks[:4], queries), "clicks")
    assert few is not None
    assert few.rank_correlation is None
    flat = effort_report(effort_pairs([answered(at, 1.0) for at in range(1, 6)], queries), "clicks")
    assert flat is not None
    assert flat.rank_correlation is None
    assert effort_report(effort_pairs([answered(6, 3.0)], queries), "clicks") is None
    # what was shown is not known: the last query
    last = effort_report(effort_pairs([answered(1, 3.0, version="")], queries), "seconds")
    assert last is not None
    assert last.predicted_mean == 100
