"""What a labelling configuration leaves out, and the control that people are told to add."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from label_studio_sdk.label_interface import LabelInterface

from ml_backend.annotations.label_map import parse_label_config
from ml_backend.annotations.shortcomings import Shortcoming, shortcomings
from ml_backend.errors import LabelConfigError

IMAGE = '<Image name="img" value="$image"/>'
BRUSH = '<BrushLabels name="brush" toName="img"><Label value="Cell" background="#ff0000"/></BrushLabels>'


def told(*tags: str, image: str = IMAGE) -> list[Shortcoming]:
    xml = f"<View>{image}{''.join(tags)}</View>"
    return shortcomings(xml, parse_label_config(xml))


def with_a(tag: str, image: str = "img") -> str:
    return f'<{tag} name="c" toName="{image}"><Label value="a"/></{tag}>'


def with_what_is_told(*tags: str) -> str:
    """The configuration after its reader has done as told."""
    (shortcoming,) = told(*tags)
    lead, _, control = shortcoming.remedy.partition(": ")
    assert lead == "Add before the last </View>"
    return f"<View>{IMAGE}{''.join(tags)}{control}</View>"


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ([with_a("Labels"), '<Brush name="b" toName="img"/>'], "<Labels> 'c' alone"),
        ([with_a("RectangleLabels")], "<RectangleLabels> 'c' alone"),
        ([with_a("VectorLabels")], "<VectorLabels> 'c' alone"),
    ],
)
def test_where_nothing_can_be_prefilled_the_control_to_add_is_told(tags: list[str], words: str) -> None:
    (shortcoming,) = told(*tags)
    assert shortcoming.cause.startswith("No mask can be pre-filled: the labelling configuration has")
    assert words in shortcoming.cause
    mended = with_what_is_told(*tags)
    label_map = parse_label_config(mended)
    assert label_map.classes == ("background", "a")
    assert label_map.writer_of(1) is not None
    assert shortcomings(mended, label_map) == []
    LabelInterface(mended).validate()


def test_the_control_has_the_classes_as_they_are_spelt_and_a_name_of_its_own() -> None:
    ellipses = (
        '<EllipseLabels name="mask" toName="img"><Label value="Straße &lt;1&gt;" alias="road" background="blue"/>'
        '<Label value="Cell"/><Label value="b &quot;c&quot;" hotkey="7"/></EllipseLabels>'
    )
    (shortcoming,) = told(ellipses, BRUSH)
    assert shortcoming.cause.startswith("'road', 'b \"c\"' cannot be pre-filled")
    mended = with_what_is_told(ellipses, BRUSH)
    control = ET.fromstring(mended)[-1]
    assert (control.tag, control.get("name"), control.get("toName")) == ("BrushLabels", "mask2", "img")
    road, quoted = [label.attrib for label in control]
    assert road == {"value": "Straße <1>", "alias": "road", "background": "blue"}
    assert (quoted["value"], quoted["hotkey"], "background" in quoted) == ('b "c"', "7", True)
    before, after = parse_label_config(f"<View>{IMAGE}{ellipses}{BRUSH}</View>"), parse_label_config(mended)
    assert before.classes == after.classes
    assert None not in [after.writer_of(index) for index in range(1, len(after.classes))]


def test_nothing_is_told_of_what_works() -> None:
    polygon = '<PolygonLabels name="p" toName="img"><Label value="Cell"/></PolygonLabels>'
    query = '<RectangleLabels name="query" toName="img"><Label value="look"/></RectangleLabels>'
    rest = (
        '<Choices name="c" toName="img" perRegion="true"><Choice value="x"/></Choices><Text name="t" value="$text"/>'
        '<Labels name="ner" toName="t"><Label value="y"/></Labels><Image name="reference" value="$other"/>'
    )
    assert told(BRUSH, polygon, query, rest) == []
    assert (
        told('<BitmaskLabels name="b" toName="img"><Label value="background"/><Label value="a"/></BitmaskLabels>') == []
    )


def test_controls_of_another_image_are_told() -> None:
    other = (
        '<Image name="second" value="$b"/><BrushLabels name="other" toName="second"><Label value="x"/></BrushLabels>'
    )
    (shortcoming,) = told(BRUSH, other)
    assert "'other' is not read: it is for second, and nextmask looks at one image per task, img" in shortcoming.cause


def test_labels_of_the_task_are_told() -> None:
    dynamic = '<PolygonLabels name="p" toName="img" value="$labels"/>'
    (shortcoming,) = told(BRUSH, dynamic)
    assert "labels of 'p' come from each task ($labels)" in shortcoming.cause
    with pytest.raises(LabelConfigError) as refused:
        told(dynamic)
    assert "they come from each task: $labels" in refused.value.cause
    assert '<BrushLabels name="mask" toName="img"><Label value="object"/></BrushLabels>' in refused.value.remedy


def test_labels_that_are_one_class_are_told() -> None:
    (shortcoming,) = told(
        '<BrushLabels name="m" toName="img"><Label value="Cell"/><Label value="cell "/></BrushLabels>'
    )
    assert "The labels 'Cell' and 'cell ' of 'm' are one class." in shortcoming.cause


# -- what is refused --------------------------------------------------------------------------------------------------
PAGE = '<Image name="img" {}/>'
REPEATED = '<Repeater on="$a" indexFlag="{{idx}}"><Image name="i_{{idx}}" value="$a[{{idx}}].url"/>'
REFUSED = {
    '<Video name="v" value="$video"/><VideoRectangle name="b" toName="v"/>': "has no <Image>",
    "": "has no <Image>, and masks are learned of images; found: none",
    f"{IMAGE}{with_a('KeyPointLabels')}": "no control",
    f'{IMAGE}<Text name="t" value="$t"/>{with_a("BrushLabels", "t")}': "no control",
    f'{IMAGE}<BrushLabels name="b" toName="img"/>': "without labels of its own",
    f"{REPEATED}{with_a('BrushLabels', 'i_{{idx}}')}</Repeater>": "repeats its image",
    f"{REPEATED}<BrushLabels name='b' toName='i_{{{{idx}}}}'/></Repeater>": "repeats its image",
    PAGE.format('value="$images[{{idx}}]"') + BRUSH: "repeats its image",
    PAGE.format('valueList="$pages"') + BRUSH: "several pages",
    PAGE.format('value="$"') + BRUSH: "one variable",
    PAGE.format('value="$[]"') + BRUSH: "one variable",
    PAGE.format('value="https://x/$id.png"') + BRUSH: "one variable",
}


@pytest.mark.parametrize(("xml", "words"), REFUSED.items())
def test_configurations_that_can_never_work_are_refused(xml: str, words: str) -> None:
    with pytest.raises(LabelConfigError, match=words):
        parse_label_config(f"<View>{xml}</View>")


def test_a_refusal_tells_a_control_with_the_labels_that_are_there() -> None:
    with pytest.raises(LabelConfigError) as refused:
        told('<KeyPointLabels name="k" toName="img"><Label value="nose"/></KeyPointLabels>')
    control = refused.value.remedy.partition("</View>: ")[2]
    assert parse_label_config(f"<View>{IMAGE}{control}</View>").classes == ("background", "nose")


@pytest.mark.parametrize(
    ("value", "data", "reference"),
    [
        ("$images[0]", {"images": ["a.png", "b.png"]}, "a.png"),
        ("$images[1].url", {"images": [{"url": "a.png"}, {"url": "b.png"}]}, "b.png"),
        ("$images.1", {"images": ["a.png", "b.png"]}, "b.png"),
        ("$page.views[0]", {"page": {"views": ["a.png"]}}, "a.png"),
        ("$images[0]", {"images[0]": "a.png"}, "a.png"),
        ("$images[0]", {"images": {"0": "a.png"}}, "a.png"),
        ("$images[0]", {"images": []}, None),
        ("$images[2]", {"images": ["a.png", "b.png"]}, None),
        ("$images[0]", {"images": "a.png"}, None),
        ("$images[-1]", {"images": ["a.png"]}, None),
        ("$images[0]", {"images": [["a.png"]]}, None),
        ("$images[0]", {}, None),
    ],
)
def test_paths_of_the_task_are_followed_as_label_studio_does(value: str, data: object, reference: str | None) -> None:
    label_map = parse_label_config(f'<View><Image name="img" value="{value}"/>{BRUSH}</View>')
    assert label_map.image_reference(data) == reference  # type: ignore[arg-type]
