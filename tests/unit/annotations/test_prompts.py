"""Prompts of smart tools, read as the editor of Label Studio sends them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ml_backend.annotations.boxes import Box
from ml_backend.annotations.config_edits import with_points_control, with_query_control, with_smart_tools
from ml_backend.annotations.label_map import LabelMap, parse_label_config
from ml_backend.annotations.prompts import DrawnPrompt, read_prompts

CONTROL = '<BrushLabels name="tag" toName="image">{}</BrushLabels>'
XML = f'<View><Image name="image" value="$image"/>{CONTROL}</View>'
TWO = XML.format('<Label value="cell"/><Label value="dead &amp; gone" alias="dead"/>')
SIZE = (40, 80)


def map_of(xml: str = TWO) -> LabelMap:
    return parse_label_config(with_smart_tools(xml, parse_label_config(xml)))


def click(x: float, y: float, label: str | None = "cell", name: str = "a", **fields: Any) -> dict[str, Any]:
    labels = {} if label is None else {"keypointlabels": [label], "labels": [label]}
    value = {"x": x, "y": y, "width": 0.6, **labels}
    kind = "keypoint" if label is None else "keypointlabels"
    common = {"to_name": "image", "original_width": 80, "original_height": 40, "image_rotation": 0}
    return {"id": name, "from_name": "smart-click", "type": kind, "value": value, **common, **fields}


def box(x: float, y: float, width: float, height: float, **fields: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": ["cell"]}
    return {
        "id": "b",
        "from_name": "smart-box",
        "to_name": "image",
        "type": "rectanglelabels",
        "value": value,
        **fields,
    }


def test_clicks_say_a_class_and_whether_it_is_there() -> None:
    result = [click(50, 50), click(0, 100, "dead", "c", is_positive=0), click(10, 10, name="d", is_positive=False)]
    prompts, problems = read_prompts(result, map_of(), SIZE)
    assert prompts == (
        DrawnPrompt("a", 1, True, Box.point(20, 40)),
        DrawnPrompt("c", 2, False, Box.point(39, 0)),
        DrawnPrompt("d", 1, False, Box.point(4, 8)),
    )
    assert problems == ()
    assert all(prompt.box.is_point for prompt in prompts)


def test_boxes_are_clipped_to_the_image() -> None:
    prompts, problems = read_prompts([box(50, -10, 100, 60)], map_of(), SIZE)
    assert prompts == (DrawnPrompt("b", 1, True, Box(40, 0, 40, 20)),)
    assert problems == ()


def test_the_label_may_stand_in_an_entry_of_its_own() -> None:
    shape = click(50, 50, None)
    label = {"id": "a", "from_name": "classes", "to_name": "image", "type": "labels", "value": {"labels": ["dead"]}}
    prompts, _ = read_prompts([shape, label], map_of(), SIZE)
    assert [(prompt.id, prompt.index) for prompt in prompts] == [("a", 2)]


def test_a_click_without_a_label_is_of_the_only_class_and_otherwise_a_problem() -> None:
    one = map_of(XML.format('<Label value="cell"/>'))
    assert [prompt.index for prompt in read_prompts([click(1, 1, None)], one, SIZE)[0]] == [1]
    prompts, problems = read_prompts([click(1, 1, None)], map_of(), SIZE)
    assert prompts == ()
    assert problems == ("click 'a': it has no label: choose one before you click",)


def test_what_cannot_be_used_is_told_and_the_rest_serves() -> None:
    result = [
        click(50, 50, "nose", "strange"),
        click(500, 50, name="far"),
        click(float("nan"), 1, name="nan"),
        {**click(1, 1, name="text"), "value": {"x": "here", "y": 1, "keypointlabels": ["cell"]}},
        box(200, 200, 10, 10, id="off"),
        click(50, 50, name="good"),
        "no region",
        {"type": "keypointlabels"},
        {"id": "mask", "type": "brushlabels", "from_name": "tag", "value": {"rle": [], "brushlabels": ["cell"]}},
    ]
    prompts, problems = read_prompts(result, map_of(), SIZE)
    assert [prompt.id for prompt in prompts] == ["good"]
    assert [problem.split(":")[0] for problem in problems] == [
        "click 'strange'",
        "click 'far'",
        "click 'nan'",
        "click 'text'",
        "box 'off'",
    ]
    assert "its label 'nose' is no class of BrushLabels 'tag'" in problems[0]


def test_points_that_answer_questions_are_no_prompts() -> None:
    xml = with_points_control(with_query_control(TWO))
    answer, region = click(50, 50, from_name="points"), box(0, 0, 50, 50, from_name="query")
    prompts, problems = read_prompts([answer, region, click(10, 10, name="c")], map_of(xml), SIZE)
    assert [prompt.id for prompt in prompts] == ["c"]
    assert problems == ()


def test_clicks_on_an_image_that_was_enlarged_mean_the_same_place_and_on_its_side_are_refused() -> None:
    larger = click(50, 50, original_width=160, original_height=80)
    assert read_prompts([larger], map_of(), SIZE)[0][0].box == Box.point(20, 40)
    turned = click(50, 50, original_width=40, original_height=80)
    prompts, problems = read_prompts([turned], map_of(), SIZE)
    assert prompts == ()
    assert "lies on its side" in problems[0]
    assert read_prompts([click(50, 50, image_rotation=90)], map_of(), SIZE)[0], "the screen was turned, not the image"


json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y", "id", "type"]), inner),
    max_leaves=5,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"id": json, "type": st.sampled_from(["keypointlabels", "rectangle", "labels"])},
            optional={
                "value": st.dictionaries(
                    st.sampled_from(["x", "y", "width", "height", "keypointlabels", "labels"]), json
                ),
                "is_positive": json,
            },
        ),
        max_size=4,
    )
)
def test_anything_is_read_or_told(result: list[dict[str, Any]]) -> None:
    prompts, _ = read_prompts(result, map_of(), SIZE)
    for prompt in prompts:
        assert 0 <= prompt.box.top < prompt.box.top + prompt.box.height <= SIZE[0]
        assert 0 <= prompt.box.left < prompt.box.left + prompt.box.width <= SIZE[1]
