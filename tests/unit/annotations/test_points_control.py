"""The control for points: which one it is, how it is added, and what is told of it."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from label_studio_sdk.label_interface import LabelInterface

from ml_backend.annotations.config_edits import with_points_control, with_query_control
from ml_backend.annotations.label_map import Control, LabelMap, parse_label_config
from ml_backend.annotations.shortcomings import shortcomings
from ml_backend.errors import LabelConfigError

XML = """<View>
  <!-- kept -->
  <Image name="image" value="$image"/>
  <View className="row">
    <BrushLabels name="tag" toName="image">
      <Label value="cell" background='#ffe119'/>
      <Label value="dead &amp; gone" alias="dead" hotkey="2" background="red"/>
    </BrushLabels>
  </View>
  <PolygonLabels name="line" toName="image">
    <Label value="Cell"/><Label value="fibre" background="#00f"/>
  </PolygonLabels>
</View>
"""


def control(*labels: str, name: str = "points", **attributes: str) -> str:
    """The configuration with a KeyPointLabels of these labels."""
    more = "".join(f' {key}="{value}"' for key, value in attributes.items())
    tags = "".join(f'<Label value="{label}"/>' for label in labels)
    return XML.replace(
        "</View>\n", f'<KeyPointLabels name="{name}" toName="image"{more}>{tags}</KeyPointLabels></View>\n', 1
    )


def points_of(xml: str) -> Control | None:
    return parse_label_config(xml).points_control


def told(xml: str) -> str:
    return " ".join(map(str, shortcomings(xml, parse_label_config(xml))))


# -- which control it is ---------------------------------------------------------------------------------------------
def test_key_points_with_labels_of_the_mask() -> None:
    found = points_of(control("cell", "Dead", "background"))
    assert found == Control("points", "image", "KeyPointLabels", ("cell", "Dead", "background"))
    assert parse_label_config(control("cell")).classes == parse_label_config(XML).classes


@pytest.mark.parametrize(
    "xml",
    [
        XML,
        control("nose"),
        control(),
        control("cell", name="marks"),
        control("cell", smart="true"),
        control("cell").replace("KeyPointLabels", "RectangleLabels"),
        control("cell").replace('"points" toName="image"', '"points" toName="other"'),
    ],
)
def test_other_controls_are_none(xml: str) -> None:
    assert points_of(xml) is None


def test_digests_of_projects_without_one_stay_and_it_changes_nothing_that_is_learned() -> None:
    without, with_one = parse_label_config(XML), parse_label_config(with_points_control(XML))
    assert without.digest == "514e0fc6ce8888a7"
    assert with_one.digest != without.digest
    assert with_one.training_digest == without.training_digest


# -- how it is added -------------------------------------------------------------------------------------------------
def added(xml: str, label_map: LabelMap | None = None) -> list[dict[str, str]]:
    """Attributes of the labels of the added control."""
    found = ET.fromstring(xml).find(".//KeyPointLabels")
    assert found is not None
    assert (found.get("name"), found.get("toName")) == ("points", "image")
    return [dict(label.attrib) for label in found]


def test_it_has_a_label_of_each_class_as_the_mask_controls_have_them() -> None:
    xml = with_points_control(XML)
    cell, dead, fibre, background = added(xml)
    assert cell == {"value": "cell", "background": "#ffe119", "hotkey": "1"}
    assert dead == {"value": "dead & gone", "alias": "dead", "background": "red", "hotkey": "2"}
    assert fibre == {"value": "fibre", "background": "#00f", "hotkey": "4"}  # "Cell" of the other control has 3
    assert background["value"] == "background"
    assert background["background"] not in {"#ffe119", "red", "#00f"}
    label_map = parse_label_config(xml)
    assert label_map.points_control is not None
    assert [label_map.index_of(label) for label in label_map.points_control.labels] == [1, 2, 3, 0]
    assert list(LabelInterface(xml).get_control("points").labels) == list(label_map.points_control.labels)


def test_labels_of_masks_get_the_hotkeys_of_their_twins_and_the_rest_stays() -> None:
    xml = with_points_control(XML)
    tree, before = ET.fromstring(xml), ET.fromstring(XML)
    keys = {label.get("value"): label.get("hotkey") for label in tree.findall(".//BrushLabels/Label")}
    assert keys == {"cell": "1", "dead & gone": "2"}
    for label in tree.iter("Label"):
        label.attrib.pop("hotkey", None)
    for label in before.iter("Label"):
        label.attrib.pop("hotkey", None)
    row = tree.find("./View")
    assert row is not None
    row.remove(row[0])
    assert [ET.tostring(one) for one in tree.iter("Label")] == [ET.tostring(one) for one in before.iter("Label")]
    assert "<!-- kept -->" in xml
    assert xml.count("\n") == XML.count("\n") + 1


def test_it_stands_before_the_masks_so_that_hotkeys_still_choose_their_tool() -> None:
    xml = with_points_control(XML)
    assert xml.index("<KeyPointLabels") < xml.index("<BrushLabels") < xml.index("<PolygonLabels")


def test_adding_is_idempotent_and_goes_with_a_query_control() -> None:
    xml = with_points_control(XML)
    assert with_points_control(xml) == xml
    both = parse_label_config(with_query_control(xml))
    assert both.query_control == "query"
    assert both.points_control == points_of(xml)
    assert points_of(with_points_control(with_query_control(XML))) == points_of(xml)


def test_a_background_of_the_masks_is_not_added_twice_nor_where_unpainted_pixels_are_ignored() -> None:
    own = XML.replace("fibre", "Background")
    assert [label["value"] for label in added(with_points_control(own))] == ["cell", "dead & gone", "Background"]
    ignored = with_points_control(XML, unpainted="ignore")
    assert [label["value"] for label in added(ignored)] == ["cell", "dead & gone", "fibre"]


def test_more_labels_than_keys() -> None:
    labels = "".join(f'<Label value="c{number}"/>' for number in range(40))
    xml = with_points_control(
        f'<View><Image name="image" value="$image"/><BrushLabels name="b" toName="image">{labels}</BrushLabels></View>'
    )
    keys = [label.get("hotkey") for label in added(xml)[:40]]
    assert "".join(key or "" for key in keys) == "1234567890qwetasdfgzxcvbyiopjklnm"
    assert keys[33:] == [None] * 7


@pytest.mark.parametrize("xml", [control("nose"), XML.replace('name="line"', 'name="points"')])
def test_a_name_that_is_taken_is_told(xml: str) -> None:
    with pytest.raises(LabelConfigError, match="a tag named 'points' that is no KeyPointLabels"):
        with_points_control(xml)


# -- what is told ----------------------------------------------------------------------------------------------------
def test_nothing_is_told_of_an_added_one() -> None:
    for unpainted in ("background", "ignore"):
        xml = with_points_control(XML, unpainted=unpainted)  # type: ignore[arg-type]
        assert shortcomings(xml, parse_label_config(xml, unpainted=unpainted)) == []  # type: ignore[arg-type]


def test_labels_that_are_no_class_and_classes_without_a_label_are_told() -> None:
    assert told(control("cell", "nose", "ear", "dead", "fibre", "background")) == (
        "'nose', 'ear' of the points control 'points' is no class: points with such a label are not read. "
        "Give it a label of the same name in 'tag', or call the control something else."
    )
    assert "'nose' of the points control" in told(control("nose"))
    lacking = told(control("cell", "background"))
    assert "No point can say 'dead', 'fibre': 'points' has no such label." in lacking
    assert '<Label value="dead &amp; gone" alias="dead"' in lacking
    assert '<Label value="fibre"' in lacking
    assert told(control("nose", name="landmarks")) == ""
