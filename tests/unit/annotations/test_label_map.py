"""The labelling configuration: which controls, classes and image it gives, and the palette."""

from __future__ import annotations

import colorsys
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from label_studio_sdk.label_interface import LabelInterface

from ml_backend.annotations.config_edits import colour_of, label_colours, labels_without_colours, with_palette
from ml_backend.annotations.label_map import IGNORE_INDEX, parse_label_config
from ml_backend.errors import LabelConfigError

ROAD = """
<View>
  <Header value="Paint the street"/>
  <Image name="img" value="$image" zoom="true"/>
  <BrushLabels name="brush" toName="img">
    <Label value="Road" background="#ff0000"/>
    <View><Label value="Car" predicted_values="automobile, Truck"/></View>
    <Label value="Street lamp" alias="lamp"/>
  </BrushLabels>
  <PolygonLabels name="polygon" toName="img"><Label value="car"/><Label value="Sign"/></PolygonLabels>
  <EllipseLabels name="ellipse" toName="img"><Label value="Wheel"/></EllipseLabels>
  <RectangleLabels name="query" toName="img" fillOpacity="0"><Label value="Look here"/></RectangleLabels>
  <Choices name="weather" toName="img"><Choice value="sun"/></Choices>
</View>
"""


def one(tag: str, labels: str = '<Label value="a"/>', image: str = '<Image name="img" value="$image"/>') -> str:
    return f'<View>{image}<{tag} name="c" toName="img">{labels}</{tag}></View>'


def test_classes_controls_and_image() -> None:
    labels = parse_label_config(ROAD)

    assert labels.classes == ("background", "Road", "Car", "lamp", "Sign", "Wheel")
    assert labels.unpainted_index == 0
    assert [(c.name, c.tag, c.labels) for c in labels.controls] == [
        ("brush", "BrushLabels", ("Road", "Car", "lamp")),
        ("polygon", "PolygonLabels", ("car", "Sign")),
        ("ellipse", "EllipseLabels", ("Wheel",)),
    ]
    assert (labels.image_name, labels.image_variable, labels.query_control) == ("img", "image", "query")


def test_labels_are_those_of_the_host() -> None:
    host = LabelInterface(ROAD)

    for control in parse_label_config(ROAD).controls:
        assert tuple(host.get_control(control.name).labels) == control.labels


@pytest.mark.parametrize(
    ("label", "index"),
    [
        ("Road", 1),
        ("ROAD ", 1),
        ("car", 2),
        ("automobile", 2),
        ("truck", 2),
        ("lamp", 3),
        ("street LAMP", 3),
        ("background", 0),
        ("Look here", None),
        ("sun", None),
        ("", None),
    ],
)
def test_index_of_any_spelling(label: str, index: int | None) -> None:
    assert parse_label_config(ROAD).index_of(label) == index


def test_writer_is_the_first_writable_control_and_its_own_spelling() -> None:
    labels = parse_label_config(ROAD)
    writers = [labels.writer_of(index) for index in range(len(labels.classes))]

    assert [writer and writer.name for writer in writers] == [None, "brush", "brush", "brush", "polygon", None]
    polygon = labels.controls[1]
    assert labels.spelling(polygon, 2) == "car"
    assert labels.spelling(polygon, 1) is None
    assert labels.writer_of(IGNORE_INDEX) is None


def test_a_background_label_is_the_unpainted_class() -> None:
    xml = one("BrushLabels", '<Label value="cell"/><Label value="BackGround"/>')

    labels = parse_label_config(xml)
    assert (labels.classes, labels.unpainted_index) == (("cell", "BackGround"), 1)
    assert labels.writer_of(1) is None

    ignoring = parse_label_config(xml, unpainted="ignore")
    assert (ignoring.classes, ignoring.unpainted_index) == (("cell", "BackGround"), IGNORE_INDEX)
    assert ignoring.writer_of(1) is not None


def test_ignoring_unpainted_adds_no_class() -> None:
    labels = parse_label_config(one("BitmaskLabels"), unpainted="ignore")
    assert (labels.classes, labels.unpainted_index) == (("a",), IGNORE_INDEX)


def test_image_of_the_first_segmentation_control() -> None:
    xml = """<View>
      <Image name="map" value="$map"/><Image name="photo" value="$page.photo"/>
      <Choices name="ok" toName="map"><Choice value="yes"/></Choices>
      <BrushLabels name="b" toName="photo"><Label value="x"/></BrushLabels>
      <BrushLabels name="other" toName="map"><Label value="y"/></BrushLabels>
    </View>"""
    labels = parse_label_config(xml)

    assert (labels.image_name, labels.image_variable) == ("photo", "page.photo")
    assert [control.name for control in labels.controls] == ["b"]
    assert labels.image_reference({"page": {"photo": "a.png"}}) == "a.png"
    assert labels.image_reference({"page.photo": "b.png"}) == "b.png"
    assert labels.image_reference({"page": "a.png"}) is None
    assert labels.image_reference({"page": {"photo": 3}}) is None


def test_a_separate_labels_tag_needs_a_tool_that_draws_masks() -> None:
    image, labels = '<Image name="img" value="$image"/>', '<Labels name="l" toName="img"><Label value="a"/></Labels>'
    parsed = parse_label_config(f'<View>{image}{labels}<Polygon name="p" toName="img"/></View>')

    assert [(c.name, c.tag) for c in parsed.controls] == [("l", "Labels")]
    assert parsed.writer_of(1) is None
    with pytest.raises(LabelConfigError):
        parse_label_config(f'<View>{image}{labels}<KeyPoint name="p" toName="img"/></View>')
    with pytest.raises(LabelConfigError):
        parse_label_config(f'<View>{image}{labels}<Rectangle name="query" toName="img"/></View>')


def test_labels_without_a_tool_beside_a_readable_control_are_left_out() -> None:
    xml = one("BrushLabels").replace("</View>", '<Labels name="l" toName="img"><Label value="z"/></Labels></View>')
    assert parse_label_config(xml).classes == ("background", "a")


def test_tags_in_any_case() -> None:
    assert parse_label_config(one("brushlabels")).controls[0].tag == "BrushLabels"


def test_query_control_by_its_configured_name() -> None:
    assert parse_label_config(ROAD, query_control="none").query_control is None
    assert "Look here" in parse_label_config(ROAD, query_control="none").classes


def test_error_names_what_was_found_and_what_is_wanted() -> None:
    xml = """<View><Image name="img" value="$image"/>
      <KeyPointLabels name="points" toName="img"><Label value="a"/></KeyPointLabels>
      <BrushLabels name="dynamic" toName="img" value="$labels"/>
      <RectangleLabels name="query" toName="img"><Label value="q"/></RectangleLabels></View>"""
    with pytest.raises(LabelConfigError) as raised:
        parse_label_config(xml)

    for part in (
        "<keypointlabels> 'points'",
        "<brushlabels> 'dynamic' for 'img', without labels",
        "'query' for 'img', set",
    ):
        assert part in str(raised.value)
    for tag in ("BrushLabels", "BitmaskLabels", "PolygonLabels", "EllipseLabels", "RectangleLabels", "VectorLabels"):
        assert f"<{tag}>" in str(raised.value)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", "not valid XML"),
        ("<View>", "not valid XML"),
        ("<View>\ud800</View>", "not valid XML"),
        (one("BrushLabels", image='<Video name="img" value="$v"/>'), r"no <Image>.*<video> 'img'"),
        (one("BrushLabels", image='<Image name="img" valueList="$pages"/>'), "valueList"),
        (one("BrushLabels", image='<Image name="img" value="https://x/$id.png"/>'), "one variable"),
        (one("BrushLabels", image='<Image name="img" value="image"/>'), "one variable"),
        (one("BrushLabels", "".join(f'<Label value="c{n}"/>' for n in range(255))), "256 classes"),
    ],
)
def test_configurations_that_cannot_serve(xml: str, message: str) -> None:
    with pytest.raises(LabelConfigError, match=message):
        parse_label_config(xml)


def test_255_classes_fit() -> None:
    xml = one("BrushLabels", "".join(f'<Label value="c{n}"/>' for n in range(254)))
    assert len(parse_label_config(xml).classes) == 255


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa">'
        + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
        + "]>",
        '<!DOCTYPE v [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE v SYSTEM "http://localhost:1/x.dtd">',
    ],
)
def test_entities_are_refused_at_once(declaration: str) -> None:
    xml = declaration + one("BrushLabels", '<Label value="&a;&j;"/>')
    start = time.perf_counter()

    for read in (parse_label_config, labels_without_colours, with_palette):
        with pytest.raises(LabelConfigError, match="DOCTYPE"):
            read(xml)
    assert time.perf_counter() - start < 0.1


def test_deep_nesting_is_no_problem() -> None:
    xml = "<View>" * 20_000 + one("BrushLabels") + "</View>" * 20_000
    assert parse_label_config(xml).classes == ("background", "a")


def test_digest_changes_with_what_alters_masks_only() -> None:
    digest = parse_label_config(ROAD).digest

    assert parse_label_config(ROAD).digest == digest
    assert parse_label_config(with_palette(ROAD)).digest == digest
    assert parse_label_config(ROAD.replace("Paint the street", "Go on")).digest == digest
    for other in (
        parse_label_config(ROAD, unpainted="ignore"),
        parse_label_config(ROAD, query_control="ask"),
        parse_label_config(ROAD.replace('"Wheel"', '"Tyre"')),
        parse_label_config(ROAD.replace("automobile", "vehicle")),
        parse_label_config(ROAD.replace("$image", "$photo")),
    ):
        assert other.digest != digest


def test_import_is_cheap_and_parsing_faster_than_setup_needs() -> None:
    code = (
        "import sys, ml_backend.annotations.label_map; print('label_studio_sdk' in sys.modules, 'numpy' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]

    xml = one("BrushLabels", "".join(f'<Label value="c{n}"/>' for n in range(254)))
    start = time.perf_counter()
    parse_label_config(xml)
    assert time.perf_counter() - start < 0.1


# Palette


def colours(xml: str) -> list[str | None]:
    return [label.get("background") for label in ET.fromstring(xml).iter("Label")]


def test_palette_gives_every_name_one_colour_of_its_own() -> None:
    painted = with_palette(ROAD)

    assert labels_without_colours(ROAD)
    assert not labels_without_colours(painted)
    red, car, lamp, polygon_car, sign, wheel, query = colours(painted)
    assert red == "#ff0000"
    assert car == polygon_car
    assert len({red, car, lamp, sign, wheel, query}) == 6
    assert with_palette(painted) == painted


def test_palette_takes_a_colour_from_another_control_with_that_label() -> None:
    xml = one("BrushLabels", '<Label value="a"/>').replace(
        "</View>", '<PolygonLabels name="p" toName="img"><Label value="A" background="green"/></PolygonLabels></View>'
    )
    assert colours(with_palette(xml)) == ["green", "green"]


def test_palette_changes_nothing_else() -> None:
    xml = """\ufeff<?xml version='1.0' encoding='utf-16'?>
<!-- {"data": {"image": "<Label value='no'/>"}} --><View><Image name="img" value="$image"/>
<Style><![CDATA[ .a > .b { content: "<Label value='no'/>" } ]]></Style>
  <BrushLabels name='c' toName='img' ><Label   value="Straße &lt;1&gt;" hint='"x"'/><Label
     value="b"></Label></BrushLabels></View>
<!-- end -->"""
    painted = with_palette(xml)

    added = colours(painted.lstrip("\ufeff").replace("utf-16", "utf-8"))
    assert None not in added
    for colour in added:
        painted = painted.replace(f' background="{colour}"', "")
    assert painted == xml


def test_palette_fills_a_colour_that_is_empty() -> None:
    xml = one("BrushLabels", """<Label value='a "background=&quot;&quot;' background = ""/><Label value="b"/>""")
    painted = with_palette(xml)
    assert len({*colours(painted)}) == 2
    assert painted.count("background") == 3
    assert parse_label_config(painted) == parse_label_config(xml)


def test_palette_has_colours_for_any_number_of_labels() -> None:
    xml = one("BrushLabels", "".join(f'<Label value="c{n}"/>' for n in range(254)))
    found = [colour for colour in colours(with_palette(xml)) if colour]

    assert len(set(found)) == 254
    assert all(len(colour) == 7 and int(colour[1:], 16) >= 0 for colour in found)
    hues = [colorsys.rgb_to_hls(*(int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)))[0] for c in found[19:40]]
    distances = [min(abs(a - b), 1 - abs(a - b)) for a, b in pairwise(hues)]
    assert min(distances) > 0.3  # neighbours in the list never look alike


def test_palette_skips_colours_in_use() -> None:
    first = colours(with_palette(one("BrushLabels")))[0]
    xml = one("BrushLabels", f'<Label value="a"/><Label value="b" background="{str(first).upper()}"/>')
    assert colours(with_palette(xml))[0] != first


@pytest.mark.parametrize("used", ["red", "#F00", "rgb(255, 0, 0)", "orange", "#ffe000", "#e6194b", "#4363d9"])
def test_palette_keeps_away_from_colours_in_use(used: str) -> None:
    labels = "".join(f'<Label value="c{n}"/>' for n in range(12)) + f'<Label value="used" background="{used}"/>'
    *given, last = (colour_of(str(text)) for text in colours(with_palette(one("BrushLabels", labels))))
    assert last == colour_of(used)
    for colour in given:
        assert colour
        assert max(abs(a - b) for a, b in zip(colour, last or (), strict=True)) > 50, (colour, last)


def test_palette_has_colours_where_all_the_room_is_taken() -> None:
    grid = [f"#{r:02x}{g:02x}{b:02x}" for r in range(0, 256, 51) for g in range(0, 256, 51) for b in range(0, 256, 51)]
    labels = (
        "".join(f'<Label value="c{text}" background="{text}"/>' for text in grid)
        + '<Label value="a"/><Label value="b"/>'
    )
    start = time.perf_counter()
    *_, first, second = colours(with_palette(one("BrushLabels", labels)))
    assert time.perf_counter() - start < 30
    assert len({first, second, *grid}) == len(grid) + 2


def test_labels_have_one_colour_each() -> None:
    xml = one("BrushLabels", '<Label value="a" background="no colour"/><Label value="b"/>').replace(
        "</View>", '<PolygonLabels name="p" toName="img"><Label value="a" background="#0af"/></PolygonLabels></View>'
    )
    shown = label_colours(xml)
    assert shown["p", "a"] == (0, 170, 255)
    assert shown["c", "b"] == colour_of(str(colours(with_palette(xml))[1]))
    assert len({*shown.values()}) == 3
