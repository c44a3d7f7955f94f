"""What real annotations contain: what is painted, what is said, and what is neither."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.converter.brush import mask2rle
from PIL import Image

from ml_backend.annotations import masks
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap, parse_label_config
from ml_backend.annotations.masks import Reading, read_result
from ml_backend.annotations.regions import mask_regions

SIZE = (48, 64)
"""Height and width of the image."""
POINTS = [[15.625, 16.6667], [62.5, 16.6667], [62.5, 62.5], [15.625, 62.5]]
SQUARE = {"points": POINTS, "closed": True}
BOX = {"x": 15.625, "y": 16.6667, "width": 46.875, "height": 45.8333, "rotation": 0}
AREA = 30 * 22
DOTS = '<EllipseLabels name="e" toName="img"><Label value="b"/></EllipseLabels>'
LABELS = '<Label value="a" background="#f00"/><Label value="b" background="#0f0"/>'


def config(*tags: str) -> LabelMap:
    return parse_label_config(f'<View><Image name="img" value="$image"/>{"".join(tags)}{DOTS}</View>')


def control(tag: str, name: str = "c", **attributes: str) -> str:
    more = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f'<{tag} name="{name}" toName="img"{more}>{LABELS if tag.endswith("Labels") else ""}</{tag}>'


BRUSH, POLYGON = control("BrushLabels"), control("PolygonLabels", "p")


def pixels() -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[8:30, 10:40] = 255
    return mask


def rle(mask: np.ndarray | None = None) -> dict[str, Any]:
    return {"format": "rle", "rle": mask2rle(pixels() if mask is None else mask)}


def bitmask(mask: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(np.dstack([mask] * 4)).save(file, "PNG")
    return {"imageDataURL": f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"}


def entry(kind: str, value: Any, *labels: str, name: str = "c", **fields: Any) -> dict[str, Any]:
    named = {kind: list(labels)} if labels else {}
    size = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
    value = {**value, **named} if isinstance(value, dict) else value
    return {"id": "r1", "from_name": name, "to_name": "img", "type": kind, **size, "value": value} | fields


def good(label: str = "b", *, at: int = 0) -> dict[str, Any]:
    """A brush stroke across the last rows."""
    mask = np.zeros(SIZE, np.uint8)
    mask[40 + at :] = 255
    return entry("brushlabels", rle(mask), label, id="good")


def read(result: list[Any], label_map: LabelMap) -> Reading:
    return read_result(result, label_map, size=SIZE)


# -- not understood --------------------------------------------------------------------------------------------------
APART = config('<Labels name="l" toName="img"><Label value="a"/><Label value="b"/></Labels>', control("Brush", "b"))
WAND = config(control("MagicWand", "mw"), BRUSH)
NOT_UNDERSTOOD: list[tuple[str, LabelMap, dict[str, Any], str]] = [
    (
        "image and control of other names",
        config(BRUSH),
        entry("brushlabels", rle(), "a", name="tag", to_name="image"),
        "no image 'image'; masks are read of 'img'",
    ),
    ("control of another name", config(BRUSH), entry("brushlabels", rle(), "a", name="tag"), "it has BrushLabels 'c'"),
    ("no image", config(BRUSH), entry("brushlabels", rle(), "a", to_name=None), "no image None"),
    ("magic wand", WAND, entry("magicwand", rle(), name="mw"), "no label (type 'magicwand')"),
    ("brush without a label", APART, entry("brush", rle(), name="b"), "no label (type 'brush'): select it in"),
    ("brush beside BrushLabels", config(BRUSH, control("Brush", "b")), entry("brush", rle(), name="b"), "no label"),
    ("bitmask without a label", config(BRUSH), entry("bitmask", bitmask(pixels()), name="m"), "no such control"),
    ("polygon without a label", config(BRUSH, control("Polygon", "q")), entry("polygon", SQUARE, name="q"), "no label"),
    ("empty list of labels", config(BRUSH), entry("brushlabels", {**rle(), "brushlabels": []}), "no label"),
    ("labels under another key", config(BRUSH), entry("brushlabels", {**rle(), "labels": ["a"]}), "no label"),
    ("a label that was removed", config(BRUSH), entry("brushlabels", rle(), "car"), "'car' is not in the labelling"),
    ("unknown type", config(BRUSH), entry("superpixel", SQUARE, "a"), "its type 'superpixel' is none that is read"),
    ("no type", config(BRUSH), entry("brushlabels", rle(), "a", type=None), "its type 'None'"),
    ("value missing", config(BRUSH), entry("brushlabels", None), "no shape"),
    ("value with a label only", config(BRUSH), entry("brushlabels", {}, "a"), "no shape"),
    ("rle is null", config(BRUSH), entry("brushlabels", {"format": "rle", "rle": None}, "a"), "got a NoneType"),
    ("rle is empty", config(BRUSH), entry("brushlabels", {"format": "rle", "rle": []}, "a"), "truncated"),
    ("rle is cut", config(BRUSH), entry("brushlabels", {"format": "rle", "rle": [0] * 20}, "a"), "words of 8 bits"),
    ("nothing painted", config(BRUSH), entry("brushlabels", rle(np.zeros(SIZE, np.uint8)), "a"), "covers no pixel"),
    (
        "empty bitmask",
        config(control("BitmaskLabels")),
        entry("bitmasklabels", bitmask(np.zeros(SIZE, np.uint8)), "a"),
        "covers no pixel",
    ),
    ("two points", config(POLYGON), entry("polygonlabels", {"points": POINTS[:2]}, "a", name="p"), "2 different"),
    ("no points", config(POLYGON), entry("polygonlabels", {"points": []}, "a", name="p"), "no pairs"),
    ("points are null", config(POLYGON), entry("polygonlabels", {"points": None}, "a", name="p"), "no pairs"),
    (
        "brush of the larger original",
        config(BRUSH),
        entry("brushlabels", rle(np.full((480, 640), 255, np.uint8)), "a", original_width=640, original_height=480),
        "640 x 480 pixels, this one is 64 x 48",
    ),
    (
        "brush of the larger original that states no size",
        config(BRUSH),
        entry("brushlabels", rle(np.full((480, 640), 255, np.uint8)), "a", original_width=None, original_height=None),
        "belongs to another image size",
    ),
    (
        "bitmask of another size",
        config(control("BitmaskLabels")),
        entry("bitmasklabels", bitmask(np.full((24, 32), 255, np.uint8)), "a"),
        "32 x 24, the image 64 x 48",
    ),
    (
        "polygon of the image on its side",
        config(POLYGON),
        entry("polygonlabels", SQUARE, "a", name="p", original_width=48, original_height=64),
        "48 x 64 pixels, this one is 64 x 48, and lies on its side",
    ),
]
CASES = pytest.mark.parametrize(
    ("label_map", "region", "problem"), [case[1:] for case in NOT_UNDERSTOOD], ids=[case[0] for case in NOT_UNDERSTOOD]
)


@CASES
def test_what_is_not_understood_is_said_and_never_background(
    label_map: LabelMap, region: dict[str, Any], problem: str
) -> None:
    reading = read([region], label_map)
    (said,) = reading.problems
    assert reading.regions == 0
    assert problem in said
    assert f"'r1' of {region['from_name']!r}" in said


@CASES
def test_beside_a_mask_it_leaves_pixels_without_a_label(
    label_map: LabelMap, region: dict[str, Any], problem: str
) -> None:
    """Where it lies, or everywhere but on the mask where that is unknown; a line and an erased stroke lie nowhere."""
    dot = entry("ellipselabels", {"x": 50, "y": 92, "radiusX": 4, "radiusY": 4}, "b", name="e", id="good")
    reading = read([dot, region], label_map)
    assert reading.mask[44, 32] == 2
    background = int((reading.mask == 0).sum())
    if "covers no pixel" in problem or "different" in problem:
        assert background > SIZE[0] * SIZE[1] - AREA
    else:
        assert (reading.mask[8:30, 10:40] == IGNORE_INDEX).all()
        assert len(reading.problems) == 1


def test_what_a_person_drew_later_lies_on_top() -> None:
    reading = read([entry("brushlabels", rle(), "car"), good("a", at=-20)], config(BRUSH))
    assert (reading.mask[20:] == 1).all()
    assert (reading.mask[8:20, 10:40] == IGNORE_INDEX).all()
    reading = read([good("a", at=-20), entry("brushlabels", rle(), "car")], config(BRUSH))
    assert (reading.mask[8:30, 10:40] == IGNORE_INDEX).all()
    assert (reading.mask[30:] == 1).all()


# -- labels in entries of their own ----------------------------------------------------------------------------------
@pytest.mark.parametrize("label", [entry("labels", rle(), "a", name="l"), entry("labels", {}, "a", name="l")])
@pytest.mark.parametrize("order", [1, -1])
def test_the_label_of_a_bare_brush_is_known_by_the_id(label: dict[str, Any], order: int) -> None:
    reading = read([entry("brush", rle(), name="b"), label][::order], APART)
    assert (reading.regions, reading.problems, int((reading.mask == 1).sum())) == (1, (), AREA)


def test_the_label_of_a_magic_wand_is_known_by_the_id() -> None:
    reading = read([entry("magicwand", rle(), name="mw"), entry("brushlabels", rle(), "b")], WAND)
    assert (reading.regions, reading.problems, int((reading.mask == 2).sum())) == (1, (), AREA)


def test_regions_of_one_id_and_different_shapes_are_different_regions() -> None:
    """Importers number regions as they like: neither hides the other."""
    reading = read([good(), {**entry("magicwand", rle(), name="mw"), "id": "good"}], WAND)
    assert len(reading.problems) == 1
    assert (reading.mask[8:30, 10:40] == IGNORE_INDEX).all()
    assert (reading.mask[40:] == 2).all()


def test_choices_of_a_region_are_neither_its_label_nor_a_problem() -> None:
    chosen = entry("choices", {**rle(), "choices": ["blurred"]}, name="quality")
    xml = '<Choices name="quality" toName="img" perRegion="true"><Choice value="blurred"/></Choices>'
    reading = read([entry("brushlabels", rle(), "a"), chosen], config(BRUSH, xml))
    assert (reading.regions, reading.problems, reading.others) == (1, (), ())
    reading = read([chosen, entry("brush", rle(), name="c")], config(BRUSH, xml))
    assert (reading.regions, len(reading.problems)) == (0, 1)


# -- what goes on being all background -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "result",
    [
        [],
        [entry("choices", {"choices": ["empty"]}, name="q")],
        [entry("textarea", {"text": ["nothing here"]}, name="q"), entry("rating", {"rating": 2}, name="q")],
        [entry("taxonomy", {"taxonomy": [["x"]]}, name="q"), {"type": "relation", "from_id": "a", "to_id": "b"}],
        [entry("labels", {"start": 0, "end": 4, "text": "cell", "labels": ["a"]}, name="ner", to_name="caption")],
        [entry("labels", {"start": 0, "end": 4, "text": "cell", "labels": ["a"]}, name="ner", to_name="removed")],
        [None, "nonsense", 4, {}],
    ],
)
def test_without_a_region_all_is_background(result: list[Any]) -> None:
    xml = '<Choices name="q" toName="img"/><Text name="caption" value="$t"/><Labels name="ner" toName="caption"/>'
    reading = read(result, config(BRUSH, xml))
    assert (reading.regions, reading.problems, reading.others, reading.mask.any()) == (0, (), (), False)


@pytest.mark.parametrize(
    ("value", "pixels"),
    [
        ({**BOX, "x": 62.5, "width": -46.875}, AREA),
        ({**BOX, "x": "15.625", "width": "46.875"}, AREA),
        ({"x": -50, "y": -50, "width": 200, "height": 200}, SIZE[0] * SIZE[1]),
    ],
)
def test_negative_sizes_text_and_coordinates_outside_are_read(value: dict[str, Any], pixels: int) -> None:
    reading = read([entry("rectanglelabels", value, "a", name="r")], config(control("RectangleLabels", "r")))
    assert (reading.problems, int((reading.mask == 1).sum())) == ((), pixels)


# -- sizes -----------------------------------------------------------------------------------------------------------
SIZES = [
    (None, None),
    ("640", "480"),
    (0, 0),
    (640, 480),
    (64, None),
    ("", ""),
    (-1, 48),
    (6400, 4805),
    (1, 1),
    (10**400, 3),
    ("1e400", 3),
]
PERCENT = [
    ("PolygonLabels", SQUARE),
    ("RectangleLabels", BOX),
    ("EllipseLabels", {"x": 50, "y": 50, "radiusX": 20, "radiusY": 20}),
    ("VectorLabels", {"vertices": [{"x": x, "y": y} for x, y in POINTS], "closed": True}),
]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize(("tag", "value"), PERCENT)
def test_shapes_in_percent_fit_the_image_whatever_size_they_state(
    tag: str, value: dict[str, Any], width: Any, height: Any
) -> None:
    label_map, region = config(control(tag)), entry(tag.lower(), value, "a")
    reading = read([{**region, "original_width": width, "original_height": height}], label_map)
    assert reading.problems == ()
    assert np.array_equal(reading.mask, read([region], label_map).mask)
    without = {key: part for key, part in region.items() if not key.startswith("original")}
    assert np.array_equal(read([without], label_map).mask, reading.mask)


@given(scale=st.integers(1, 40), height=st.integers(8, 60), width=st.integers(8, 60))
def test_a_polygon_of_an_original_paints_the_same_share_of_a_copy(scale: int, height: int, width: int) -> None:
    region = entry("polygonlabels", SQUARE, "a", name="p", original_width=width * scale, original_height=height * scale)
    reading = read_result([region], config(POLYGON), size=(height, width))
    assert reading.problems == ()
    expected = (0.625 - 0.15625) * (0.625 - 1 / 6)
    assert abs(reading.mask.mean() - expected) < 2 * (height + width) / (height * width)


@pytest.mark.parametrize("stated", [{}, {"original_width": None, "original_height": None}, {"original_width": "64"}])
def test_brush_needs_no_stated_size(stated: dict[str, Any]) -> None:
    region = entry("brushlabels", rle(), "a")
    bare = {key: part for key, part in region.items() if not key.startswith("original")}
    reading = read([bare | stated], config(BRUSH))
    assert (reading.problems, int((reading.mask == 1).sum())) == ((), AREA)


def test_regions_of_different_original_sizes_go_together() -> None:
    other = entry("polygonlabels", SQUARE, "a", name="p", original_width=640, original_height=480)
    reading = read([good(), other], config(BRUSH, POLYGON))
    assert (reading.regions, reading.problems, int((reading.mask == 1).sum())) == (2, (), AREA)


def test_a_turned_view_is_no_turned_image() -> None:
    reading = read([entry("polygonlabels", SQUARE, "a", name="p", image_rotation=90)], config(POLYGON))
    assert (reading.problems, int((reading.mask == 1).sum())) == ((), AREA)


# -- prompts ---------------------------------------------------------------------------------------------------------
KEY_POINT = {"x": 30, "y": 30, "width": 0.5}
SMART = config(
    BRUSH,
    control("RectangleLabels", "box", smart="true"),
    control("EllipseLabels", "round", smart="True"),
    control("KeyPointLabels", "kp", smart="true"),
    control("Rectangle", "bare", smart="true"),
)
PROMPTS = [
    entry("rectanglelabels", BOX, "a", name="box"),
    entry("ellipselabels", {"x": 50, "y": 50, "radiusX": 20, "radiusY": 20}, "a", name="round"),
    entry("keypointlabels", KEY_POINT, "a", name="kp"),
    entry("keypoint", KEY_POINT, name="kp2"),
    entry("rectangle", BOX, name="bare"),
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_are_neither_painted_nor_a_problem(prompt: dict[str, Any]) -> None:
    reading = read([prompt, good(), prompt], SMART)
    assert (reading.regions, reading.problems) == (1, ())
    assert np.array_equal(reading.mask, read([good()], SMART).mask)
    assert mask_regions([prompt], SMART) == []


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_alone_say_that_the_mask_is_missing(prompt: dict[str, Any]) -> None:
    reading = read([prompt], SMART)
    assert (reading.regions, reading.problems, len(reading.others)) == (0, (), 1)


def test_a_smart_box_and_its_label_apart_are_a_prompt() -> None:
    label_map = config(
        f'<Labels name="l" toName="img">{LABELS}</Labels>',
        control("Brush", "b"),
        control("Rectangle", "box", smart="true"),
        control("KeyPoint", "kp", smart="true"),
    )
    for kind, value, name in (("rectangle", BOX, "box"), ("keypoint", KEY_POINT, "kp")):
        twin = [entry(kind, value, name=name), entry("labels", value, "a", name="l")]
        stroke = [entry("brush", rle(), name="b", id="s"), entry("labels", rle(), "b", name="l", id="s")]
        reading = read([*twin, *stroke], label_map)
        assert (reading.regions, reading.problems, set(np.unique(reading.mask))) == (1, (), {0, 2})


@pytest.mark.parametrize(
    "tags",
    [
        [control("RectangleLabels", "box", smart="true")],
        [control("RectangleLabels", "box")],
        [control("RectangleLabels", "box"), BRUSH],
        [control("RectangleLabels", "box", smart="false"), BRUSH],
        [control("RectangleLabels", "box", smart="true"), control("KeyPointLabels", "kp", smart="true")],
    ],
)
def test_boxes_are_masks_where_nothing_finer_can_answer_them_or_they_are_not_smart(tags: list[str]) -> None:
    reading = read([entry("rectanglelabels", BOX, "a", name="box")], config(*tags))
    assert (reading.regions, reading.problems, int((reading.mask == 1).sum())) == (1, (), AREA)


def test_labels_of_prompts_are_no_classes() -> None:
    xml = '<KeyPointLabels name="kp" toName="img" smart="true"><Label value="inside"/></KeyPointLabels>'
    xml += '<RectangleLabels name="box" toName="img" smart="true"><Label value="around"/></RectangleLabels>'
    assert config(xml, BRUSH).classes == ("background", "a", "b")


# -- other drawings --------------------------------------------------------------------------------------------------
OTHERS = [
    (entry("keypointlabels", KEY_POINT, "a", name="kp"), "keypointlabels of 'kp'"),
    (entry("rectangle", BOX, name="ocr"), "rectangle of 'ocr', which has no labels"),
    (entry("brushlabels", rle(), "a", to_name="second"), "brushlabels on 'second', while masks are read of 'img'"),
    (entry("videorectangle", {"sequence": []}, name="v"), "videorectangle of 'v'"),
]


@pytest.mark.parametrize(("region", "words"), OTHERS)
def test_other_drawings_are_left_out_beside_a_mask_and_told_where_there_is_none(
    region: dict[str, Any], words: str
) -> None:
    label_map = config(
        BRUSH,
        control("Rectangle", "ocr"),
        control("KeyPointLabels", "kp"),
        '<Image name="second" value="$second"/>',
    )
    assert read([region], label_map).others == (words,)
    reading = read([region, good()], label_map)
    assert (reading.regions, reading.problems) == (1, ())
    assert np.array_equal(reading.mask, read([good()], label_map).mask)


# -- masks that are kept ---------------------------------------------------------------------------------------------
def blobs(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(3, 12, 16))
    coarse = noise.argmax(axis=0).astype(np.uint8)
    mask = coarse.repeat(4, axis=0).repeat(4, axis=1)
    mask[1, 1] = 2  # a speck
    return mask


@pytest.mark.parametrize("tag", ["BrushLabels", "BitmaskLabels", "PolygonLabels", "EllipseLabels"])
@pytest.mark.parametrize(("minimum_area", "tolerance"), [(16, 1.0), (0, 0.0), (40, 3.0)])
@given(seed=st.integers(0, 1000))
def test_what_is_written_reads_as_what_is_compared_with(
    tag: str, minimum_area: int, tolerance: float, seed: int
) -> None:
    label_map = config(control(tag))
    written = masks.write_result(blobs(seed), label_map, minimum_area=minimum_area, tolerance=tolerance)
    shown = masks.as_written(blobs(seed), label_map, minimum_area=minimum_area, tolerance=tolerance)
    assert np.array_equal(read(written, label_map).mask, shown)
