"""Query rectangles: the way there and back, and what annotators and other programs make of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.annotations.boxes import Box
from ml_backend.annotations.config_edits import with_query_control
from ml_backend.annotations.label_map import parse_label_config
from ml_backend.annotations.query_regions import (
    labelled_boxes,
    overlap,
    read_rectangles,
    write_rectangles,
)
from ml_backend.errors import LabelConfigError, MaskError

XML = """<View>
  <!-- kept -->
  <Image name="image" value="$image"/>
  <BrushLabels name="tag" toName="image"><Label value="cell" background='#ffe119'/></BrushLabels>
</View>
"""
LABEL_MAP = parse_label_config(with_query_control(XML))
SIZE = (40, 80)  # height, width


def rectangle(x: Any, y: Any, width: Any, height: Any, **fields: Any) -> dict[str, Any]:
    """A rectangle as the editor sends it, in percent."""
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": fields.pop("rotation", 0)}
    size = {"original_height": SIZE[0], "original_width": SIZE[1]}
    value["rectanglelabels"] = ["Please label"]
    common = {"id": "r", "from_name": "query", "to_name": "image", "type": "rectanglelabels"}
    return {**common, **size, "value": value, **fields}


def read(*regions: object) -> tuple[Box, ...]:
    found = read_rectangles(regions, LABEL_MAP, SIZE)
    assert found.problems == ()
    return found.boxes


# -- there and back --------------------------------------------------------------------------------------------------
@given(st.data())
def test_boxes_come_back_to_the_pixel(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 12_000)), data.draw(st.integers(1, 12_000))
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = Box(left, top, data.draw(st.integers(1, width - left)), data.draw(st.integers(1, height - top)))
    regions = write_rectangles([box], LABEL_MAP, (height, width))
    assert read_rectangles(regions, LABEL_MAP, (height, width)).boxes == (box,)
    # as the editor rounds on its way
    for key in ("x", "y", "width", "height"):
        regions[0]["value"][key] *= 1 + 1e-13
    assert read_rectangles(regions, LABEL_MAP, (height, width)).boxes == (box,)


def test_they_are_written_as_annotators_shall_see_them() -> None:
    (region,) = write_rectangles([Box(8, 4, 16, 8)], LABEL_MAP, SIZE)
    assert region["readonly"] is True
    assert (region["from_name"], region["to_name"], region["type"]) == ("query", "image", "rectanglelabels")
    assert (region["original_width"], region["original_height"]) == (80, 40)
    wanted = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["Please label"]}
    assert region["value"] == wanted


def test_bare_rectangles_carry_no_label() -> None:
    label_map = parse_label_config(XML.replace("</View>", '<Rectangle name="query" toName="image"/></View>'))
    (region,) = regions = write_rectangles([Box(1, 2, 3, 4)], label_map, SIZE)
    assert region["type"] == "rectangle"
    assert not any("labels" in key for key in region["value"])
    assert read_rectangles(regions, label_map, SIZE).boxes == (Box(1, 2, 3, 4),)


# -- what comes back -------------------------------------------------------------------------------------------------
def test_a_pixel_belongs_to_a_rectangle_when_its_centre_does() -> None:
    pixel = 100 / 80, 100 / 40
    assert read(rectangle(0.4 * pixel[0], 0.6 * pixel[1], 2 * pixel[0], 2 * pixel[1])) == (Box(0, 1, 2, 2),)


def test_it_is_clipped_to_the_image() -> None:
    assert read(rectangle(-10, -10, 20, 20), rectangle(90, 90, 1000, 1000)) == (Box(0, 0, 8, 4), Box(72, 36, 8, 4))


def test_the_same_box_counts_once_and_the_order_stays() -> None:
    one, other = rectangle(50, 50, 10, 10), rectangle(0, 0, 10, 10)
    assert read(one, other, one) == (Box(40, 20, 8, 4), Box(0, 0, 8, 4))


def test_what_is_no_query_rectangle_is_passed_over() -> None:
    fine = rectangle(0, 0, 10, 10)
    strangers = [
        *({**fine, "from_name": "tag"}, {**fine, "type": "brushlabels"}, {**fine, "type": "choices"}),
        *("nonsense", None, 3, {}),
    ]
    assert read(*strangers) == ()
    without = parse_label_config(XML)
    assert not read_rectangles([fine], without, SIZE)


@pytest.mark.parametrize("rotation", [360, -360, None, 0.0])
def test_no_turn_at_all(rotation: float | None) -> None:
    assert read(rectangle(10, 10, 20, 20, rotation=rotation)) == (Box(8, 4, 16, 8),)


@pytest.mark.parametrize("degrees", [-200.0, -33.0, 0.4, 17.0, 45.0, 89.0, 90.0, 135.0, 180.0, 271.0])
def test_a_turned_one_counts_no_pixel_that_is_outside_of_it(degrees: float) -> None:
    width, height = 30.0, 14.0  # pixels
    (box,) = read(rectangle(40 / 80 * 100, 20 / 40 * 100, width / 80 * 100, height / 40 * 100, rotation=degrees))
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    for x in (box.left + 0.5, box.left + box.width - 0.5):
        for y in (box.top + 0.5, box.top + box.height - 0.5):
            along = (x - 40) * cosine + (y - 20) * sine
            across = -(x - 40) * sine + (y - 20) * cosine
            assert -1e-6 <= along <= width + 1e-6
            assert -1e-6 <= across <= height + 1e-6


BAD = [
    (rectangle(120, 0, 10, 10), "covers no pixel"),
    (rectangle(0, -50, 10, 10), "covers no pixel"),
    (rectangle(0, 0, 0, 10), "covers no pixel"),
    (rectangle(0, 0, 10, 0.001), "covers no pixel"),
    (rectangle(0, 0, -10, 10), "its width is -10"),
    (rectangle("left", 0, 10, 10), "its x is 'left'"),
    (rectangle(0, None, 10, 10), "its y is None"),
    (rectangle(0, 0, math.nan, 10), "its width is nan"),
    (rectangle(0, 0, 10, math.inf), "its height is inf"),
    (rectangle(0, 0, 10, True), "its height is True"),
    (rectangle(0, 0, 10, 10, rotation="steep"), "its rotation is 'steep'"),
    (rectangle(0, 0, 10, 10, value=None), "has no value"),
    (rectangle(0, 0, 10, 10, original_width=40, original_height=80), "40 x 80 pixels, this one is 80 x 40"),
]


@pytest.mark.parametrize(("region", "problem"), BAD)
def test_one_that_cannot_be_used_is_said_and_the_others_count(region: dict[str, Any], problem: str) -> None:
    found = read_rectangles([region, rectangle(0, 0, 10, 10)], LABEL_MAP, SIZE)
    assert found.boxes == (Box(0, 0, 8, 4),)
    (said,) = found.problems
    assert problem in said
    assert said.startswith("rectangle 'r'")


def test_hundreds_are_read_and_hundreds_of_problems_stay_readable() -> None:
    fine = [rectangle(step / 8, 0, 10, 10) for step in range(0, 700)]
    found = read_rectangles([*fine, *[region for region, _ in BAD] * 50], LABEL_MAP, SIZE)
    assert len(found.boxes) > 60
    assert len(found.problems) == 6
    assert found.problems[-1] == f"and {len(BAD) * 50 - 5} more rectangles that cannot be used"


# -- what it means for a label ---------------------------------------------------------------------------------------
def test_a_label_is_of_the_returned_rectangles() -> None:
    found = labelled_boxes([rectangle(0, 0, 10, 10), BAD[0][0]], LABEL_MAP, SIZE, was_asked=lambda: True)
    assert found.boxes == (Box(0, 0, 8, 4),)
    assert len(found.problems) == 1


def test_without_rectangles_it_depends_on_what_was_asked() -> None:
    assert not labelled_boxes([], LABEL_MAP, SIZE, was_asked=lambda: False)
    with pytest.raises(MaskError, match=r"returns none.*Draw a rectangle with 'query'.*delete the annotation"):
        labelled_boxes([], LABEL_MAP, SIZE, was_asked=lambda: True)


def test_useless_rectangles_do_not_make_a_label_of_the_whole_image() -> None:
    with pytest.raises(MaskError, match=r"none of its rectangles can be used \(rectangle 'r': it covers no pixel"):
        labelled_boxes([BAD[0][0]], LABEL_MAP, SIZE, was_asked=lambda: False)


@pytest.mark.parametrize(
    "stated", [{"original_width": None, "original_height": None}, {"original_width": "x"}, {"original_width": 0}]
)
def test_rectangles_need_no_stated_size(stated: dict[str, Any]) -> None:
    assert read_rectangles([rectangle(0, 0, 50, 50, **stated)], LABEL_MAP, SIZE).boxes == (Box(0, 0, 40, 20),)


def test_rectangles_of_a_larger_original_fit_and_those_of_a_turned_one_do_not() -> None:
    larger = rectangle(0, 0, 50, 50, original_width=800, original_height=400)
    assert read_rectangles([larger], LABEL_MAP, SIZE).boxes == (Box(0, 0, 40, 20),)
    turned = rectangle(0, 0, 50, 50, original_width=400, original_height=800)
    (problem,) = read_rectangles([turned], LABEL_MAP, SIZE).problems
    assert "400 x 800 pixels, this one is 80 x 40" in problem


def test_boxes_that_touch_do_not_overlap() -> None:
    box = Box(10, 10, 5, 5)
    assert overlap([box], [Box(0, 0, 1, 1), Box(14, 14, 1, 1)])
    assert not overlap([box], [Box(15, 10, 5, 5), Box(10, 15, 5, 5), Box(5, 10, 5, 5)])
    assert not overlap([], [box])


# -- the control -----------------------------------------------------------------------------------------------------
def test_the_control_is_added_and_nothing_else_is_touched() -> None:
    added = with_query_control(XML)
    control = next(line for line in added.splitlines() if "RectangleLabels" in line)
    assert added.replace(control + "\n", "") == XML
    assert 'fillOpacity="0" opacity="0"' in control
    assert "#ffe119" not in control  # cells have that colour
    assert (LABEL_MAP.query_control, LABEL_MAP.query_label) == ("query", "Please label")
    assert LABEL_MAP.classes == parse_label_config(XML).classes
    assert with_query_control(added) == added


def test_it_fits_into_any_layout() -> None:
    flat = """<View><View style='x'><Image name="i&amp;j" value="$i"/></View><BrushLabels name="t" toName="i&amp;j">"""
    flat += '<Label value="ö"/></BrushLabels></View>'
    added = with_query_control(flat, query_control='ask "here"')
    found = parse_label_config(added, query_control='ask "here"')
    assert (found.query_control, found.image_name) == ('ask "here"', "i&j")
    assert added.endswith("</RectangleLabels></View>")


def test_a_name_that_is_taken_is_an_error_that_says_so() -> None:
    taken = XML.replace("</View>", '<Choices name="query" toName="image"><Choice value="x"/></Choices></View>')
    with pytest.raises(LabelConfigError, match=r"'query' that is no RectangleLabels.*NEXTMASK_QUERY_CONTROL"):
        with_query_control(taken)


def test_digests_of_configurations_without_a_query_label_stay() -> None:
    # as of the first release: models in the field were trained with these
    assert parse_label_config(XML).digest == "b2a6ff4458f3cedb"
    assert LABEL_MAP.digest != parse_label_config(XML).digest
