"""Points: the way there and back, and what annotators and other programs make of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wiring import region as brush_region

from ml_backend.annotations.clicks import clicks
from ml_backend.annotations.config_edits import with_points_control, with_query_control
from ml_backend.annotations.key_points import Answer, Guess, has_points, read_points, was_predicted, write_points
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap, parse_label_config
from ml_backend.annotations.masks import Reading, read_result
from ml_backend.annotations.regions import mask_regions

XML = """<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="tag" toName="image"><Label value="cell"/><Label value="nucleus" alias="core"/></BrushLabels>
</View>
"""
LABEL_MAP = parse_label_config(with_points_control(XML))
SIZE = (40, 80)  # height, width


def point(x: Any, y: Any, *labels: str, **fields: Any) -> dict[str, Any]:
    """A point as the editor sends it, in percent."""
    value = {"x": x, "y": y, "width": 0.8, **({"keypointlabels": list(labels)} if labels else {})}
    size = {"original_height": SIZE[0], "original_width": SIZE[1], "image_rotation": 0}
    return {
        "id": "p",
        "from_name": "points",
        "to_name": "image",
        "type": "keypointlabels",
        **size,
        "value": value,
    } | fields


def painted(rows: slice, columns: slice, label: str = "cell") -> dict[str, Any]:
    mask = np.zeros(SIZE, np.uint8)
    mask[rows, columns] = 1
    return brush_region(mask, label) | {"id": f"{label}-{rows}-{columns}"}


def read(*result: object, label_map: LabelMap = LABEL_MAP, **options: Any) -> Reading:
    return read_result(list(result), label_map, size=SIZE, **options)  # type: ignore[arg-type]


def labelled(reading: Reading) -> dict[tuple[int, int], int]:
    """The pixels that have a class."""
    rows, columns = np.nonzero(reading.mask != IGNORE_INDEX)
    return {
        (row, column): int(reading.mask[row, column])
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    }


# -- there and back --------------------------------------------------------------------------------------------------
@given(st.data())
def test_points_come_back_to_the_pixel(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 12_000)), data.draw(st.integers(1, 12_000))
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    written = write_points([Guess(row, column, 1, 0.25)], LABEL_MAP, (height, width))
    written[0]["value"]["x"] *= 1 + 1e-13  # as the editor rounds on its way
    assert read_points(written, LABEL_MAP, (height, width)) == ((Answer(row, column, 1),), ())


def test_they_are_written_as_annotators_shall_see_them() -> None:
    first, second = write_points([Guess(10, 20, 2, 0.75), Guess(0, 79, 0)], LABEL_MAP, SIZE)
    assert first["value"] == {"x": pytest.approx(25.625), "y": 26.25, "width": 0.8, "keypointlabels": ["core"]}
    assert (first["from_name"], first["to_name"], first["type"]) == ("points", "image", "keypointlabels")
    assert (first["original_width"], first["original_height"], first["score"]) == (80, 40, 0.75)
    assert second["value"]["keypointlabels"] == ["background"]
    assert first["id"] != second["id"]
    assert "score" not in second


def test_a_guess_that_is_hidden_or_that_no_label_says_is_written_without_one() -> None:
    label_map = parse_label_config(
        XML.replace(
            "<Brush", '<KeyPointLabels name="points" toName="image"><Label value="cell"/></KeyPointLabels><Brush'
        )
    )
    for guess in (Guess(1, 2), Guess(1, 2, None, 0.5), Guess(1, 2, 2, 0.5)):  # no label for "core"
        (region,) = write_points([guess], label_map, SIZE)
        assert "keypointlabels" not in region["value"]
        assert "score" not in region
        assert read_points([region], label_map, SIZE)[0] == ()
    assert write_points([Guess(1, 2, 1)], parse_label_config(XML), SIZE) == []


# -- what comes back -------------------------------------------------------------------------------------------------
def test_points_label_their_pixels_and_nothing_else() -> None:
    for unpainted in ("background", "ignore"):
        label_map = parse_label_config(with_points_control(XML), unpainted=unpainted)  # type: ignore[arg-type]
        reading = read(point(0.1, 0.1, "cell"), point(50, 50, "core"), label_map=label_map)
        indices = label_map.index_of("cell"), label_map.index_of("core")
        assert labelled(reading) == {(0, 0): indices[0], (20, 40): indices[1]}
        assert (reading.regions, reading.problems, len(reading.answers)) == (0, (), 2)


def test_moved_relabelled_deleted_and_added_points() -> None:
    shown = write_points([Guess(5, 5, 1), Guess(6, 6, 1), Guess(7, 7, 1), Guess(8, 8, 1)], LABEL_MAP, SIZE)
    kept, relabelled, moved, _deleted = ({**region, "origin": "prediction"} for region in shown)
    relabelled = relabelled | {"origin": "prediction-changed"}
    relabelled["value"] = relabelled["value"] | {"keypointlabels": ["background"]}
    moved = moved | {"origin": "prediction-changed", "value": moved["value"] | {"x": 99.0, "y": 1.0}}
    added = point(10, 90, "core", id="new", origin="manual")
    reading = read(kept, relabelled, moved, added)
    assert labelled(reading) == {(5, 5): 1, (6, 6): 0, (0, 79): 1, (36, 8): 2}
    assert set(reading.answers) == {Answer(*at, index) for at, index in labelled(reading).items()}


def test_the_border_belongs_to_the_image() -> None:
    reading = read(*(point(x, y, "cell") for x in (0, 100, -1e-9, 100 + 1e-9) for y in (0, 100)))
    assert set(labelled(reading)) == {(0, 0), (0, 79), (39, 0), (39, 79)}
    assert reading.problems == ()


BAD = [
    (point(100.5, 5, "cell"), "it lies outside of the image, at 100.5 % of its width and 5 % of its height"),
    (point(5, -3, "cell"), "it lies outside of the image"),
    (point(math.nan, 5, "cell"), "its x is nan"),
    (point(5, math.inf, "cell"), "its y is inf"),
    (point("left", 5, "cell"), "its x is 'left'"),
    (point(5, None, "cell"), "its y is None"),
    (point(5, True, "cell"), "its y is True"),
    (point(5, 5, "nose"), "its label 'nose' is no class of BrushLabels 'tag': choose another label, or add that one"),
    (point(5, 5, "cell", "core"), "it has several classes, 'cell', 'core': choose one of them in Label Studio"),
    (point(5, 5), "it was not answered: select it in Label Studio and choose a label, or delete it"),
    (point(5, 5, type="keypoint"), "it was not answered"),
    (point(5, 5, "cell", value=None), "it was not answered"),
    (point(5, 5, "cell", to_name="second"), "it is on 'second', while masks are read of 'image'"),
    (point(5, 5, "cell", original_width=40, original_height=80), "lies on its side"),
]


@pytest.mark.parametrize(("bad", "words"), BAD)
def test_one_that_cannot_be_used_is_told_and_the_others_count(bad: dict[str, Any], words: str) -> None:
    reading = read(bad, point(50, 50, "cell"))
    assert labelled(reading) == {(20, 40): 1}
    (said,) = reading.problems
    assert said.startswith("point 'p' of 'points': ")
    assert words in said
    assert read_points([bad, point(50, 50, "cell")], LABEL_MAP, SIZE) == ((Answer(20, 40, 1),), (said,))
    alone = read(bad)
    assert labelled(alone) == {}, "nothing becomes background"
    assert (alone.answers, alone.regions, len(alone.problems)) == ((), 0, 1)


@pytest.mark.parametrize("bad", [bad for bad, _ in BAD])
def test_one_that_cannot_be_used_takes_nothing_from_a_mask_beside_it(bad: dict[str, Any]) -> None:
    reading = read(painted(slice(20, 30), slice(10, 20)), bad)
    assert (reading.mask == 1).sum() == 100
    assert (reading.mask == IGNORE_INDEX).sum() == (bad["value"] is not None and "nose" in str(bad["value"]))
    assert len(reading.problems) == 1


def test_the_newer_of_two_answers_at_one_pixel_counts() -> None:
    first, second = point(50, 50, "cell", origin="manual"), point(50.3, 50.3, "core", origin="manual")
    assert read(first, second).answers == (Answer(20, 40, 2),)
    assert read(second, first).answers == (Answer(20, 40, 1),)
    (said,) = read(first, second | {"id": "q"}).problems
    assert said.startswith("point 'q' of 'points': another point says another class of its pixel")
    assert read_points([first, second | {"id": "q"}], LABEL_MAP, SIZE)[1] == (said,)
    assert read(first, first | {"id": "q"}).problems == (), "they agree"
    guess = second | {"origin": "prediction"}
    for order in ((first, guess), (guess, first)):
        assert read(*order).answers == read_points(order, LABEL_MAP, SIZE)[0] == (Answer(20, 40, 1),)
        assert labelled(read(*order)) == {(20, 40): 1}
        assert read(*order).problems == (), "a guess contradicts nobody"


def test_a_turned_view_and_an_original_of_another_size_are_the_same_pixels() -> None:
    assert labelled(read(point(50, 50, "cell", image_rotation=90))) == {(20, 40): 1}
    larger = point(50, 50, "cell", original_height=400, original_width=800)
    unsaid = point(50, 50, "cell", original_height=None, original_width=0)
    assert labelled(read(larger)) == labelled(read(unsaid)) == {(20, 40): 1}


def test_key_points_of_other_controls_are_still_no_labels() -> None:
    other = point(50, 50, "cell", from_name="landmarks")
    reading = read(other)
    assert (reading.answers, reading.others) == ((), ("keypointlabels of 'landmarks'",))
    assert not has_points([other, None, "text", {}], LABEL_MAP)
    assert has_points([other, point(1, 1)], LABEL_MAP)
    plain = parse_label_config(XML)
    assert not has_points([point(1, 1, "cell")], plain)
    assert read(point(1, 1, "cell"), label_map=plain).answers == ()


def test_what_annotators_were_shown_is_known_by_its_origin() -> None:
    for origin, shown in (("prediction", True), ("prediction-changed", True), ("manual", False), (None, False)):
        assert was_predicted(["text", point(1, 1, "cell", origin=origin)], LABEL_MAP) is shown


# -- beside masks ----------------------------------------------------------------------------------------------------
def test_beside_a_mask_the_rest_is_what_it_always_is() -> None:
    reading = read(painted(slice(0, 10), slice(0, 10)), point(50, 50, "core"))
    assert (reading.mask == 1).sum() == 100
    assert reading.mask[20, 40] == 2
    assert (reading.mask == 0).sum() == SIZE[0] * SIZE[1] - 101
    in_part = read(painted(slice(0, 10), slice(0, 10)), point(50, 50, "core"), unpainted=IGNORE_INDEX)
    assert (in_part.mask == IGNORE_INDEX).sum() == SIZE[0] * SIZE[1] - 101


def test_where_mask_and_point_both_speak_the_newer_counts() -> None:
    mask, dot = painted(slice(15, 25), slice(35, 45)), point(50, 50, "core")
    over = read(mask, dot)
    assert (over.mask[20, 40], over.answers) == (2, (Answer(20, 40, 2),))
    under = read(dot, mask)
    assert (under.mask[20, 40], under.answers) == (1, ())


def test_a_mask_that_cannot_be_read_makes_no_background_around_points() -> None:
    broken = {**painted(slice(0, 5), slice(0, 5)), "value": {"brushlabels": ["cell"], "format": "rle", "rle": [1, 2]}}
    unknown = painted(slice(0, 5), slice(0, 5), "nose")
    for bad in (broken, unknown):
        reading = read(bad, point(50, 50, "core"))
        assert labelled(reading) == {(20, 40): 2}
        assert len(reading.problems) == 1


def test_points_are_no_masks_for_those_who_compare_masks() -> None:
    mask = painted(slice(0, 5), slice(0, 5))
    assert [region["id"] for region in mask_regions([point(1, 1, "cell"), mask], LABEL_MAP)] == [mask["id"]]
    with_regions = parse_label_config(with_query_control(with_points_control(XML)))
    both = [point(1, 1, "cell"), mask]
    assert mask_regions(both, with_regions) == mask_regions(both, LABEL_MAP)


# -- effort ----------------------------------------------------------------------------------------------------------
def test_an_answer_is_a_click_at_its_place() -> None:
    before = np.zeros(SIZE, np.uint8)
    result = [point(50, 50, "cell", origin="prediction"), point(0, 0, "core"), point(3, 3)]
    assert clicks(result, LABEL_MAP, before).tolist() == [[40.5, 20.5, 1.0], [0.5, 0.5, 1.0]]
