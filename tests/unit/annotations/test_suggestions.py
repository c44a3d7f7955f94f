"""Suggestions mend what is drawn: what is replaced, what is added, and what stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml_backend.annotations.boxes import Box
from ml_backend.annotations.label_map import LabelMap, parse_label_config
from ml_backend.annotations.masks import read_result, write_result
from ml_backend.annotations.prompts import DrawnPrompt
from ml_backend.annotations.suggestions import Drawn, mended, write_suggestion

SIZE = (40, 60)
LABELS = '<Label value="cell"/><Label value="fibre"/>'
Result = list[dict[str, Any]]


def map_of(tag: str = "BrushLabels") -> LabelMap:
    return parse_label_config(
        f'<View><Image name="image" value="$image"/><{tag} name="tag" toName="image">{LABELS}</{tag}></View>'
    )


TAGS = pytest.mark.parametrize("tag", ["BrushLabels", "BitmaskLabels", "PolygonLabels"])


def pixels(*boxes: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Boxes of top, left, bottom and right."""
    found = np.zeros(SIZE, bool)
    for top, left, bottom, right in boxes:
        found[top:bottom, left:right] = True
    return found


def result_of(label_map: LabelMap, **classes: NDArray[np.bool_]) -> Result:
    mask = np.zeros(SIZE, np.uint8)
    for name, where in classes.items():
        mask[where] = label_map.index_of(name)
    return write_result(mask, label_map, minimum_area=0, tolerance=0.0)


def click(row: int, column: int, *, is_positive: bool = True, index: int = 1, name: str = "p") -> DrawnPrompt:
    return DrawnPrompt(name, index, is_positive, Box.point(row, column))


def suggested(mask: NDArray[np.bool_], result: Result, label_map: LabelMap, *prompts: DrawnPrompt) -> Result:
    drawn = Drawn(result, label_map, SIZE)
    wanted = mended(mask, drawn.seen(1), prompts)
    return write_suggestion(wanted, 1, drawn, label_map, prompts, minimum_area=4, tolerance=1.0)


def accepted(result: Result, suggestion: Result) -> Result:
    """What the editor holds then: a region of an id that is there takes its place, others are added."""
    held = {region["id"]: region for region in result}
    return [*(held | {region["id"]: region for region in suggestion}).values()]


def read(result: Result, label_map: LabelMap) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = read_result(result, label_map, size=SIZE).mask == 1
    return found


@TAGS
def test_where_nothing_is_drawn_a_region_is_added(tag: str) -> None:
    label_map, object_ = map_of(tag), pixels((5, 5, 15, 20))
    (region,) = suggested(object_, [], label_map, click(10, 10, name="x7"))
    assert (region["id"], region["from_name"], region["to_name"]) == ("smart-x7", "tag", "image")
    assert (region["type"], region["value"][region["type"]]) == (tag.lower(), ["cell"])
    assert (region["original_width"], region["original_height"], region["image_rotation"]) == (60, 40, 0)
    assert np.array_equal(read([region], label_map), object_)


@TAGS
def test_a_mask_that_is_drawn_grows_and_shrinks_in_its_own_region(tag: str) -> None:
    label_map, before = map_of(tag), pixels((5, 5, 15, 20))
    result = result_of(label_map, cell=before)
    larger, smaller = pixels((5, 5, 15, 30)), pixels((5, 5, 15, 12))
    for after, prompt in ((larger, click(10, 25)), (smaller, click(10, 18, is_positive=False))):
        (region,) = suggested(after, result, label_map, prompt)
        assert region["id"] == result[0]["id"]
        assert np.array_equal(read(accepted(result, [region]), label_map), after)


def test_what_no_prompt_touches_stays() -> None:
    label_map = map_of()
    result = result_of(label_map, cell=pixels((0, 0, 5, 5), (20, 20, 30, 30)))
    (region,) = suggested(pixels((20, 20, 30, 40), (0, 50, 4, 54)), result, label_map, click(25, 35))
    after = read(accepted(result, [region]), label_map)
    assert np.array_equal(after, pixels((0, 0, 5, 5), (20, 20, 30, 40)))


def test_nothing_is_suggested_where_the_mask_agrees_or_nothing_is_there_to_shrink() -> None:
    label_map, cell = map_of(), pixels((5, 5, 15, 20))
    assert suggested(cell, result_of(label_map, cell=cell), label_map, click(10, 10)) == []
    assert suggested(pixels(), [], label_map, click(10, 10, is_positive=False)) == []


@TAGS
def test_other_classes_keep_their_regions_and_never_hide_what_is_added(tag: str) -> None:
    label_map = map_of(tag)
    cell, fibre = pixels((5, 5, 15, 20)), pixels((5, 20, 15, 40))
    for first, later in (("cell", "fibre"), ("fibre", "cell")):
        drawn = {"cell": cell, "fibre": fibre}
        result = [*result_of(label_map, **{first: drawn[first]}), *result_of(label_map, **{later: drawn[later]})]
        suggestion = suggested(pixels((5, 5, 15, 30)), result, label_map, click(10, 25))
        held = accepted(result, suggestion)
        assert np.array_equal(read(held, label_map), pixels((5, 5, 15, 30)))
        assert [region for region in held if region["value"][region["type"]] == ["fibre"]] == [
            region for region in result if region["value"][region["type"]] == ["fibre"]
        ]


def test_polygons_that_fall_apart_keep_the_id_of_the_largest_part() -> None:
    label_map = map_of("PolygonLabels")
    result = result_of(label_map, cell=pixels((5, 5, 15, 40)))
    parts = pixels((5, 5, 15, 12), (5, 18, 15, 40))
    found = suggested(parts, result, label_map, click(10, 15, is_positive=False))
    assert [region["id"] for region in found] == [result[0]["id"], f"{result[0]['id']}-1"]
    assert np.array_equal(read(accepted(result, found), label_map), parts)
    assert read([found[0]], label_map)[10, 30]


def test_a_part_with_a_click_is_kept_however_small_and_specks_are_left_out() -> None:
    label_map = map_of()
    (region,) = suggested(pixels((5, 5, 6, 6), (20, 20, 22, 21)), [], label_map, click(5, 5))
    assert np.array_equal(read([region], label_map), pixels((5, 5, 6, 6)))


def test_an_outline_is_not_simplified_over_a_click() -> None:
    label_map = map_of("PolygonLabels")
    mask = pixels((5, 5, 25, 30))
    mask[5, 17] = False  # a notch that a tolerance of a pixel would fill
    found = suggested(mask, [], label_map, click(15, 15), click(5, 17, is_positive=False, name="n"))
    assert not read(found, label_map)[5, 17]


def test_damaged_regions_and_those_of_other_sizes_are_left_out() -> None:
    label_map = map_of()
    (good,) = result_of(label_map, cell=pixels((5, 5, 15, 20)))
    damaged: Any = [{**good, "id": "d", "value": {**good["value"], "rle": [1, 2, 3]}}, 7, {"id": "e"}]
    (region,) = suggested(pixels((5, 5, 15, 30)), [*damaged, good], label_map, click(10, 25))
    assert region["id"] == good["id"]
    assert suggested(pixels((5, 5, 15, 30)), damaged, label_map, click(10, 25))[0]["id"] == "smart-p"


boxes = st.tuples(st.integers(0, 30), st.integers(0, 50), st.integers(1, 20), st.integers(1, 20)).map(
    lambda box: (box[0], box[1], min(box[0] + box[2], SIZE[0]), min(box[1] + box[3], SIZE[1]))
)
places = st.tuples(st.integers(0, SIZE[0] - 1), st.integers(0, SIZE[1] - 1), st.booleans())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["BrushLabels", "PolygonLabels"]),
    st.lists(boxes, max_size=3),
    st.lists(boxes, max_size=2),
    st.lists(boxes, max_size=2),
    st.lists(places, min_size=1, max_size=4, unique_by=lambda place: place[:2]),
)
def test_no_click_is_contradicted_once_a_suggestion_is_accepted(
    tag: str, mask_boxes: Any, cell: Any, fibre: Any, clicks: Any
) -> None:
    label_map, mask = map_of(tag), pixels(*mask_boxes)
    for row, column, is_positive in clicks:
        mask[row, column] = is_positive
    result = [*result_of(label_map, cell=pixels(*cell)), *result_of(label_map, fibre=pixels(*fibre))]
    prompts = [click(row, column, is_positive=said, name=str(n)) for n, (row, column, said) in enumerate(clicks)]
    after = read(accepted(result, suggested(mask, result, label_map, *prompts)), label_map)
    for row, column, is_positive in clicks:
        assert after[row, column] == is_positive or _must_be_deleted(result, mask, label_map)


def _must_be_deleted(result: Result, mask: NDArray[np.bool_], label_map: LabelMap) -> bool:
    """Whether a region ought to vanish altogether, which a suggestion cannot say."""
    regions = [one for one in result if one["value"][one["type"]] == ["cell"]]
    return any(not (read([one], label_map) & mask).any() for one in regions)
