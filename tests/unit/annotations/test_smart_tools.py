"""The controls of smart tools: how they are added, and that what is drawn with them is no label."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from label_studio_sdk.label_interface import LabelInterface

from ml_backend.annotations.clicks import clicks
from ml_backend.annotations.config_edits import with_points_control, with_query_control, with_smart_tools
from ml_backend.annotations.label_map import LabelMap, parse_label_config
from ml_backend.annotations.masks import read_result
from ml_backend.annotations.shortcomings import shortcomings
from ml_backend.errors import LabelConfigError

XML = """<View>
  <!-- kept -->
  <Image name="image" value="$image"/>
  <BrushLabels name="tag" toName="image">
    <Label value="cell" background='#ffe119'/>
    <Label value="dead &amp; gone" alias="dead" hotkey="2" background="red"/>
  </BrushLabels>
  <PolygonLabels name="line" toName="image">
    <Label value="Cell"/><Label value="fibre" background="#00f"/>
  </PolygonLabels>
  <EllipseLabels name="round" toName="image"><Label value="pore"/></EllipseLabels>
</View>
"""
OWN = '<{tag} name="{name}" toName="image" smart="{smart}"><Label value="cell"/></{tag}>'


def added(xml: str, **options: str) -> str:
    return with_smart_tools(xml, parse_label_config(xml, **options))  # type: ignore[arg-type]


def own(tag: str, name: str = "mine", smart: str = "true") -> str:
    return XML.replace("</View>", OWN.format(tag=tag, name=name, smart=smart) + "</View>")


def labels(xml: str, name: str) -> list[dict[str, str]]:
    control = next(element for element in ET.fromstring(xml).iter() if element.get("name") == name)
    return [dict(label.attrib) for label in control]


# -- how they are added ----------------------------------------------------------------------------------------------
def test_each_has_a_label_of_every_class_that_a_suggestion_can_be_written_in() -> None:
    """A hotkey that they shared with the mask's labels would end the smart tool in the editor; pores are ellipses."""
    xml = added(XML)
    expected = [
        {"value": "cell", "background": "#ffe119"},
        {"value": "dead & gone", "alias": "dead", "background": "red"},
        {"value": "fibre", "background": "#00f"},
    ]
    assert labels(xml, "smart-click") == labels(xml, "smart-box") == expected
    assert LabelInterface(xml).get_control("smart-click").tag == "KeyPointLabels"
    assert LabelInterface(xml).get_control("smart-box").tag == "RectangleLabels"
    assert xml.count('smart="true" smartOnly="true"') == 2
    assert xml.replace(' smart="false"', "").startswith(XML[: XML.rindex("</View>")]), "all other text stays"
    assert parse_label_config(xml).smart_tools == ("smart-click", "smart-box")


def test_other_controls_lose_the_smart_tools_that_label_studio_gives_to_all_that_do_not_say_which() -> None:
    def smart(xml: str) -> dict[str, str]:
        return {one.get("name", ""): one.get("smart", "") for one in ET.fromstring(xml).iter() if one.get("toName")}

    xml = added(with_query_control(with_points_control(XML)))
    ours = {"smart-click": "true", "smart-box": "true"}
    assert smart(xml) == ours | dict.fromkeys(("points", "tag", "line", "round", "query"), "false")
    assert smart(added(XML.replace('"tag"', '"tag" smart="true"')))["tag"] == "true"
    assert smart(with_query_control(with_points_control(xml))) == smart(xml)


def test_labels_without_a_colour_get_one_that_the_mask_has_too() -> None:
    xml = XML.replace(" background='#ffe119'", "")
    assert all(label["background"] for label in labels(added(xml), "smart-click"))


def test_adding_is_idempotent_and_goes_with_the_controls_of_questions() -> None:
    xml = added(XML)
    assert added(xml) == xml
    for questions in (with_points_control, with_query_control):
        both = questions(xml)
        assert added(questions(XML)).count("smart-") == 2
        label_map = parse_label_config(both)
        assert label_map.smart_tools == ("smart-click", "smart-box")
        assert (label_map.points_control or label_map.query_control) is not None


def test_nothing_that_is_read_or_learned_changes_and_nothing_is_told() -> None:
    without, with_tools = parse_label_config(XML), parse_label_config(added(XML))
    assert with_tools.digest == without.digest
    assert shortcomings(added(XML), with_tools) == shortcomings(XML, without)


def test_smart_tools_of_ones_own_stay() -> None:
    assert added(own("KeyPointLabels")).count('smart="true"') == 2
    assert "smart-box" in added(own("KeyPointLabels"))
    assert "smart-click" not in added(own("KeyPointLabels"))
    assert "smart-box" not in added(own("RectangleLabels"))
    assert "smart-click" in added(own("KeyPointLabels", smart="false")), "key points that ask nothing are none"


def test_what_cannot_be_added_is_told() -> None:
    with pytest.raises(LabelConfigError, match="a tag named 'smart-click' that is no KeyPointLabels"):
        added(own("KeyPointLabels", name="smart-click", smart="false"))
    alone = '<View><Image name="image" value="$image"/>{}</View>'
    for tag in ("VectorLabels", "EllipseLabels"):
        with pytest.raises(LabelConfigError, match="no control that one can be written with"):
            added(alone.format(f'<{tag} name="m" toName="image"><Label value="cell"/></{tag}>'))


def test_a_background_that_can_be_painted_is_a_label_only_where_unpainted_pixels_are_ignored() -> None:
    xml = XML.replace("fibre", "Background")
    assert [label["value"] for label in labels(added(xml), "smart-click")] == ["cell", "dead & gone"]
    ignored = labels(added(xml, unpainted="ignore"), "smart-click")
    assert [label["value"] for label in ignored] == ["cell", "dead & gone", "Background"]


# -- what is drawn with them -----------------------------------------------------------------------------------------
def entry(name: str, kind: str, label: str, **value: object) -> dict[str, object]:
    common = {"to_name": "image", "original_width": 10, "original_height": 10, "image_rotation": 0}
    return {"id": "one", "from_name": name, "type": kind, **common, "value": {**value, kind: [label]}}


@pytest.fixture
def label_map() -> LabelMap:
    return parse_label_config(added(with_points_control(XML)))


def test_prompts_that_are_left_in_an_annotation_are_no_labels_and_cost_nothing(label_map: LabelMap) -> None:
    click = {**entry("smart-click", "keypointlabels", "cell", x=50.0, y=50.0, width=1.0), "is_positive": True}
    box = {**entry("smart-box", "rectanglelabels", "cell", x=0.0, y=0.0, width=50.0, height=50.0), "id": "two"}
    corners = [[0, 0], [50, 0], [50, 50], [0, 50]]
    mask = {**entry("line", "polygonlabels", "fibre", points=corners, closed=True), "id": "three"}
    reading = read_result([click, box, mask], label_map)
    assert (reading.regions, reading.problems, reading.answers) == (1, (), ())
    assert (reading.mask == label_map.index_of("fibre")).sum() == 25
    assert all("a prompt of a smart tool" in other for other in reading.others)
    before = reading.mask * 0
    assert clicks([click, box, mask], label_map, before).tolist() == clicks([mask], label_map, before).tolist()


def test_the_label_that_the_editor_adds_when_a_suggestion_is_accepted_changes_nothing(label_map: LabelMap) -> None:
    """It gives an accepted region the label that is chosen then, as another entry of the same id and shape."""
    corners = [[0, 0], [50, 0], [50, 50], [0, 50]]
    mask = entry("line", "polygonlabels", "fibre", points=corners, closed=True)
    for name, kind in (("smart-click", "keypointlabels"), ("smart-box", "rectanglelabels")):
        chosen = entry(name, kind, "cell", points=corners, closed=True)
        for result in ([mask, chosen], [chosen, mask]):
            reading = read_result(result, label_map)
            assert (reading.regions, reading.problems) == (1, ())
            assert (reading.mask == label_map.index_of("fibre")).sum() == 25
