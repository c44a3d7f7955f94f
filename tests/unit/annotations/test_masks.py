"""Results <-> masks: round trips, shapes, what the host accepts, and hostile input."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import time
import tracemalloc
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from label_studio_sdk.converter.brush import mask2rle
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from ml_backend.annotations import masks
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap, parse_label_config
from ml_backend.errors import MaskError

LABELS = "".join(f'<Label value="{name}"/>' for name in ("Cell", "Nucleus", "Wall"))


def config(tag: str) -> str:
    return f'<View><Image name="img" value="$image"/><{tag} name="c" toName="img">{LABELS}</{tag}></View>'


def labels(tag: str = "BrushLabels", **options: Any) -> LabelMap:
    return parse_label_config(config(tag), **options)


def region(
    tag: str, value: dict[str, Any], *, label: str = "Cell", size: tuple[int, int] = (60, 100)
) -> dict[str, Any]:
    kind = tag.lower()
    return {
        "id": "r",
        "from_name": "c",
        "to_name": "img",
        "type": kind,
        "original_width": size[1],
        "original_height": size[0],
        "image_rotation": 0,
        "value": {**value, kind: [label]},
    }


def read(tag: str, value: dict[str, Any], **options: Any) -> masks.Reading:
    return masks.read_result([region(tag, value, **options)], labels(tag))


def discs(height: int = 120, width: int = 200) -> np.ndarray:
    """A cell with a nucleus and an empty hole in it, a wall along one side, and a speck."""
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (80, 60), (60, 45), 20, 0, 360, 1, -1)
    cv2.circle(mask, (70, 55), 15, 2, -1)
    cv2.circle(mask, (105, 70), 10, 0, -1)
    mask[:, 180:] = 3
    mask[3:5, 3:5] = 1
    return mask


WRITTEN = ("BrushLabels", "BitmaskLabels", "PolygonLabels")
index_masks = arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.integers(0, 3))


@pytest.mark.parametrize("tag", WRITTEN)
@settings(max_examples=60)
@given(mask=index_masks)
def test_write_then_read_is_exact(tag: str, mask: np.ndarray) -> None:
    """Polygons too, when nothing is simplified: holes, touching corners, single pixels."""
    result = masks.write_result(mask, labels(tag), minimum_area=1, tolerance=0)
    reading = masks.read_result(result, labels(tag), size=mask.shape)

    assert reading.problems == ()
    assert (reading.mask == mask).all()
    assert reading.regions == len(result)


def blobs(seed: int) -> np.ndarray:
    """Smooth random regions of three classes, of the kind that networks predict."""
    noise = np.random.default_rng(seed).normal(size=(4, 90, 130)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(channel, (0, 0), 6) for channel in noise])
    return smooth.argmax(axis=0).astype(np.uint8)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_simplified_polygons_stay_within_a_pixel(seed: int) -> None:
    mask = blobs(seed)
    result = masks.write_result(mask, labels("PolygonLabels"), minimum_area=1)
    back = masks.read_result(result, labels("PolygonLabels")).mask

    padded = np.pad(mask, 1, constant_values=IGNORE_INDEX)  # the image's border is part of the contours
    for index in range(1, 4):
        wrong = (back == index) != (mask == index)
        region_of = (padded == index).astype(np.uint8)
        to_other = sum(cv2.distanceTransform(side, cv2.DIST_L2, 5) for side in (region_of, 1 - region_of))[1:-1, 1:-1]
        # The contour is half a pixel nearer than the centre of the next pixel beyond it.
        assert not wrong.any() or to_other[wrong].max() - 0.5 <= 1
    assert masks.agreement(mask, back, 4) > 0.93


def test_iou_of_simplified_polygons_of_a_usual_size() -> None:
    mask = cv2.resize(blobs(0), (520, 360), interpolation=cv2.INTER_NEAREST)
    result = masks.write_result(mask, labels("PolygonLabels"), minimum_area=1)
    assert masks.agreement(mask, masks.read_result(result, labels("PolygonLabels")).mask, 4) > 0.98


@pytest.mark.parametrize("tag", WRITTEN)
def test_the_host_accepts_what_is_written(tag: str) -> None:
    result = masks.write_result(discs(), labels(tag), minimum_area=10)
    host = LabelInterface(config(tag))

    assert host.validate_prediction({"result": result, "score": 0.5, "model_version": "v"}, return_errors=True) == []
    assert json.loads(json.dumps(result)) == result
    assert len({region["id"] for region in result}) == len(result)
    assert {region["from_name"] for region in result} == {"c"}
    assert all((r["original_width"], r["original_height"], r["image_rotation"]) == (200, 120, 0) for r in result)
    assert masks.write_result(discs(), labels(tag), minimum_area=10) == result


def test_one_region_per_class_or_per_component() -> None:
    assert len(masks.write_result(discs(), labels("BrushLabels"), minimum_area=1)) == 3
    assert len(masks.write_result(discs(), labels("BitmaskLabels"), minimum_area=1)) == 3
    assert len(masks.write_result(discs(), labels("PolygonLabels"), minimum_area=1)) == 4


@pytest.mark.parametrize("tag", WRITTEN)
def test_specks_are_dropped_by_area(tag: str) -> None:
    mask = discs()
    kept = masks.read_result(masks.write_result(mask, labels(tag), minimum_area=4, tolerance=0), labels(tag)).mask
    dropped = masks.read_result(masks.write_result(mask, labels(tag), minimum_area=5, tolerance=0), labels(tag)).mask

    assert (kept == mask).all()
    assert dropped[3:5, 3:5].max() == 0
    assert (dropped[10:] == mask[10:]).all()


def test_unpainted_ignored_and_unwritable_classes_are_not_written() -> None:
    mask = np.array([[0, 1, 1, IGNORE_INDEX]], np.uint8)
    written = masks.write_result(mask, labels(), minimum_area=0)
    assert [r["value"]["brushlabels"] for r in written] == [["Cell"]]
    assert masks.write_result(mask, labels("EllipseLabels"), minimum_area=0) == []
    assert masks.write_result(np.zeros((4, 4), np.uint8), labels(), minimum_area=0) == []

    ignoring = labels(unpainted="ignore")
    written = masks.write_result(mask, ignoring, minimum_area=0)
    assert [r["value"]["brushlabels"] for r in written] == [["Cell"], ["Nucleus"]]
    assert (masks.read_result(written, ignoring).mask == mask).all()


def test_labels_are_spelled_as_the_control_spells_them() -> None:
    xml = """<View><Image name="img" value="$image"/>
      <EllipseLabels name="e" toName="img"><Label value="CELL"/></EllipseLabels>
      <PolygonLabels name="p" toName="img"><Label value="Cell" alias="cell"/></PolygonLabels></View>"""
    label_map = parse_label_config(xml)
    (written,) = masks.write_result(np.ones((3, 3), np.uint8), label_map, minimum_area=0)

    assert label_map.classes == ("background", "CELL")
    assert (written["from_name"], written["value"]["polygonlabels"]) == ("p", ["cell"])
    assert LabelInterface(xml).validate_prediction({"result": [written]}, return_errors=True) == []


@pytest.mark.parametrize(
    "mask",
    [
        np.full((2, 2), 4, np.uint8),
        np.zeros((2, 2), np.int64),
        np.zeros((2, 2, 3), np.uint8),
        np.zeros((0, 4), np.uint8),
    ],
)
def test_arrays_that_are_no_masks_are_refused(mask: np.ndarray) -> None:
    with pytest.raises(MaskError):
        masks.write_result(mask, labels(), minimum_area=0)
    with pytest.raises(MaskError):
        masks.agreement(mask, mask, 4)


def test_only_masks_are_stored() -> None:
    for array in (np.zeros((2, 2), np.float32), np.zeros((2, 0), np.uint8), np.zeros((2, 2, 4), np.uint8)):
        with pytest.raises(MaskError):
            masks.png_bytes(array)


# Reading


def test_regions_are_painted_in_order() -> None:
    box = {"x": 0, "y": 0, "width": 50, "height": 100, "rotation": 0}
    wide = {**box, "width": 100}
    both = [region("RectangleLabels", wide), region("RectangleLabels", box, label="Wall")]

    first = masks.read_result(both, labels("RectangleLabels"))
    assert (first.regions, set(first.mask[:, :50].ravel()), set(first.mask[:, 50:].ravel())) == (2, {3}, {1})
    assert set(masks.read_result(both[::-1], labels("RectangleLabels")).mask.ravel()) == {1}


def test_soft_brush_edges_count_from_half_covered() -> None:
    soft = np.array([[0, 100, 127, 128, 200, 255]], np.uint8)
    reading = read("BrushLabels", {"format": "rle", "rle": mask2rle(soft)}, size=(1, 6))
    assert reading.mask.tolist() == [[0, 0, 0, 1, 1, 1]]


def test_any_alpha_of_a_bitmask_counts() -> None:
    pixels = np.zeros((1, 4, 4), np.uint8)
    pixels[0, :, 3] = (0, 1, 128, 255)
    assert read("BitmaskLabels", bitmask(Image.fromarray(pixels)), size=(1, 4)).mask.tolist() == [[0, 1, 1, 1]]


def bitmask(image: Image.Image) -> dict[str, Any]:
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"imageDataURL": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()}


def test_rectangle_turns_about_its_corner_in_pixels() -> None:
    # 20 x 10 pixels at (50, 30), a quarter turn clockwise: 10 to the left and 20 down.
    value = {"x": 50, "y": 50, "width": 20, "height": 10 / 60 * 100, "rotation": 90}
    mask = read("RectangleLabels", value).mask
    assert mask.sum() == 200
    assert mask[30:50, 40:50].all()


def test_ellipse_turns_about_its_centre_in_pixels() -> None:
    value = {"x": 50, "y": 50, "radiusX": 20, "radiusY": 10 / 60 * 100, "rotation": 90}
    rows, columns = np.nonzero(read("EllipseLabels", value).mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 49, 40, 59)
    assert len(rows) == pytest.approx(math.pi * 20 * 10, rel=0.02)


def test_shapes_are_cut_off_at_the_border() -> None:
    value = {"x": -50, "y": 50, "width": 100, "height": 500}
    mask = read("RectangleLabels", value).mask
    assert mask[30:, :50].all()
    assert mask.sum() == 30 * 50
    assert read("PolygonLabels", {"points": [[-10, -10], [110, -10], [110, 110], [-10, 110]]}).mask.all()


def test_polygon_with_hole_two_points_open_and_crossing() -> None:
    (written,) = masks.write_result(
        np.pad(np.zeros((4, 4), np.uint8), 3, constant_values=1), labels("PolygonLabels"), minimum_area=0
    )
    reading = masks.read_result([written], labels("PolygonLabels"))
    assert (reading.mask.sum(), reading.vertices) == (100 - 16, 10)

    reading = read("PolygonLabels", {"points": [[10, 10], [50, 50]]})
    assert (reading.regions, reading.vertices, reading.mask.any()) == (0, 0, False)
    assert "2 different points" in reading.problems[0]
    assert read("PolygonLabels", {"points": [[10, 10], [50, 50], [10, 10], [50, 50]]}).regions == 0

    triangle = [[0, 0], [100, 0], [0, 100]]
    assert read("PolygonLabels", {"points": triangle, "closed": False}).mask.sum() > 2900
    bow_tie = read("PolygonLabels", {"points": [[0, 0], [100, 100], [100, 0], [0, 100]]}).mask
    assert (bow_tie[30, 10], bow_tie[30, 90], bow_tie[5, 50], bow_tie[55, 50]) == (1, 1, 0, 0)


def vertex(number: int, x: float, y: float, **more: Any) -> dict[str, Any]:
    previous = f"v{number - 1}" if number else None
    return {"id": f"v{number}", "prevPointId": previous, "x": x, "y": y, "isBezier": False, **more}


SQUARE = [vertex(0, 20, 20), vertex(1, 80, 20), vertex(2, 80, 80), vertex(3, 20, 80)]


def test_vectors_closed_open_and_reordered() -> None:
    closed = read("VectorLabels", {"vertices": SQUARE, "closed": True})
    assert (closed.mask.sum(), closed.vertices) == (60 * 36, 4)

    shuffled = [SQUARE[0], SQUARE[3], SQUARE[1], SQUARE[2]]
    assert (read("VectorLabels", {"vertices": shuffled, "closed": True}).mask == closed.mask).all()
    looped = [{**SQUARE[0], "prevPointId": "v3"}, *SQUARE[1:]]  # how the editor marks a closed path
    assert (read("VectorLabels", {"vertices": looped, "closed": True}).mask == closed.mask).all()
    bare = [{"x": vertex["x"], "y": vertex["y"]} for vertex in SQUARE]
    assert (read("VectorLabels", {"vertices": bare, "closed": True}).mask == closed.mask).all()

    for open_path in ({"vertices": SQUARE, "closed": False}, {"vertices": SQUARE}):
        reading = read("VectorLabels", open_path)
        assert (reading.regions, reading.mask.any()) == (0, False)
        assert "open path" in reading.problems[0]


def test_bezier_curves_of_vectors() -> None:
    # A circle of radius 20 pixels from four cubic curves, the usual approximation.
    k = 0.5522847498
    around = [((0, -1), (1, 0)), ((1, 0), (0, 1)), ((0, 1), (-1, 0)), ((-1, 0), (0, -1))]
    vertices = []
    for number, ((x, y), (tangent_x, tangent_y)) in enumerate(around):
        point, before, after = (
            {"x": 50 + 20 * px, "y": 50 + 20 / 60 * 100 * py}
            for px, py in (
                (x, y),
                (x - k * tangent_x, y - k * tangent_y),
                (x + k * tangent_x, y + k * tangent_y),
            )
        )
        vertices.append(vertex(number, **point, isBezier=True, controlPoint1=before, controlPoint2=after) | point)
    mask = read("VectorLabels", {"vertices": vertices, "closed": True}).mask
    rows, columns = np.mgrid[:60, :100] + 0.5
    assert (mask == ((columns - 50) ** 2 + (rows - 30) ** 2 <= 400)).mean() > 0.999

    one_handle = [{**SQUARE[0], "isBezier": True, "controlPoint2": {"x": 50, "y": -20}}, *SQUARE[1:]]
    bulged = read("VectorLabels", {"vertices": one_handle, "closed": True}).mask
    assert bulged[:12].any()
    assert bulged[12:].sum() == 60 * 36


def test_a_turned_view_leaves_coordinates_upright() -> None:
    # Drawn in Label Studio 1.23.2 after "rotate right", around a disc at x 122..178, y 102..158 of 520 x 300 pixels.
    drawn = {
        **region("RectangleLabels", {"x": 23.4907, "y": 34.3066, "width": 10.7574, "height": 18.2656}, size=(300, 520)),
        "image_rotation": 90,
    }
    rows, columns = np.nonzero(masks.read_result([drawn], labels("RectangleLabels")).mask)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (122, 177, 103, 157)


def test_labels_given_by_a_separate_tag() -> None:
    xml = f"""<View><Image name="img" value="$image"/><Labels name="c" toName="img">{LABELS}</Labels>
      <Rectangle name="tool" toName="img"/></View>"""
    shape = {"x": 0, "y": 0, "width": 50, "height": 50, "rotation": 0}
    labelled = region("Labels", shape, label="Wall")
    bare = {**labelled, "from_name": "tool", "type": "rectangle", "value": shape}

    reading = masks.read_result([bare, labelled], parse_label_config(xml))
    assert (reading.regions, reading.problems, int(reading.mask.sum())) == (1, (), 3 * 50 * 30)


def test_results_that_are_no_masks_are_passed_over() -> None:
    xml = config("RectangleLabels").replace(
        "</View>",
        '<RectangleLabels name="query" toName="img"><Label value="q"/></RectangleLabels>'
        '<Image name="second" value="$second"/></View>',
    )
    box = region("RectangleLabels", {"x": 0, "y": 0, "width": 100, "height": 100})
    others = [
        {**box, "from_name": "query"},
        {**box, "to_name": "second"},
        {"type": "choices", "from_name": "x", "to_name": "img", "value": {"choices": ["a"]}},
        {"type": "relation", "from_id": "a", "to_id": "b"},
        {**box, "type": "keypointlabels"},
        "nonsense",
        None,
    ]
    reading = masks.read_result(others, parse_label_config(xml), size=(60, 100))
    assert (reading.regions, reading.problems, reading.mask.any()) == (0, (), False)
    assert reading.others == ("rectanglelabels on 'second', while masks are read of 'img'", "keypointlabels of 'c'")


GOOD = {"x": 0, "y": 0, "width": 100, "height": 100}
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("RectangleLabels", {**GOOD, "rectanglelabels": ["Dragon"]}, "'Dragon' is not in"),
    ("RectangleLabels", {**GOOD, "rectanglelabels": []}, "no label"),
    ("RectangleLabels", {**GOOD, "rectanglelabels": "Cell"}, "no label"),
    ("RectangleLabels", {**GOOD, "rectanglelabels": [None]}, "None is not in"),
    ("RectangleLabels", {**GOOD, "width": "wide"}, "width is 'wide'"),
    ("RectangleLabels", {**GOOD, "width": math.nan}, "width is nan"),
    ("RectangleLabels", {**GOOD, "x": True}, "x is True"),
    ("RectangleLabels", {**GOOD, "x": 1e300}, "x is 1e"),
    ("RectangleLabels", {**GOOD, "width": 0}, "no area"),
    ("RectangleLabels", {**GOOD, "rotation": "up"}, "rotation"),
    ("RectangleLabels", {"x": 1, "width": 2}, "no shape"),
    ("EllipseLabels", {"x": 5, "y": 5, "radiusX": 0, "radiusY": 4}, "no area"),
    ("EllipseLabels", {"x": 5, "y": 5, "radiusX": 1}, "radiusY is None"),
    ("PolygonLabels", {"points": []}, "no pairs"),
    ("PolygonLabels", {"points": [[1, 2], [3]]}, "no pairs"),
    ("PolygonLabels", {"points": [[1, 2, 3]] * 4}, "no pairs"),
    ("PolygonLabels", {"points": [[1, 2], [3, None], [4, 5]]}, "not within"),
    ("PolygonLabels", {"points": [[1, 2], [3, 10**400], [4, 5]]}, "no pairs"),
    ("PolygonLabels", {"points": [[0, 0]] * 100_001}, "100001 points"),
    ("VectorLabels", {"vertices": "abc", "closed": True}, "list of objects"),
    ("VectorLabels", {"vertices": [], "closed": True}, "no pairs"),
    ("VectorLabels", {"vertices": [{"x": 1}] * 3, "closed": True}, "not within"),
    ("BrushLabels", {"format": "base64", "rle": []}, "format"),
    ("BrushLabels", {"format": "rle", "rle": [0, 0, 1]}, ""),
    ("BrushLabels", {"format": "rle", "rle": None}, ""),
    ("BrushLabels", {"format": "rle", "rle": ["a"]}, ""),
    ("BrushLabels", {"format": "rle", "rle": mask2rle(np.zeros((8, 8), np.uint8))}, ""),
    ("BitmaskLabels", {"imageDataURL": None}, "does not begin"),
    ("BitmaskLabels", {"imageDataURL": "data:image/svg+xml;base64,AA=="}, "does not begin"),
    ("BitmaskLabels", {"imageDataURL": "data:image/png;base64,???"}, "not valid base64"),
    ("BitmaskLabels", {"imageDataURL": "data:image/png;base64,\u00e9"}, "not valid base64"),
    ("BitmaskLabels", {"imageDataURL": "data:image/png;base64,AAAA"}, "no PNG"),
    ("BitmaskLabels", bitmask(Image.new("LA", (99, 60))), "99 x 60, the image 100 x 60"),
]


@pytest.mark.parametrize(("tag", "value", "problem"), BAD)
def test_a_bad_region_is_skipped_and_said(tag: str, value: dict[str, Any], problem: str) -> None:
    bad = region(tag, {})
    bad["value"] = {**bad["value"], **value}
    xml = config(tag).replace("</View>", f'<EllipseLabels name="good" toName="img">{LABELS}</EllipseLabels></View>')
    dot = {**region("EllipseLabels", {"x": 50, "y": 50, "radiusX": 3, "radiusY": 3}), "from_name": "good"}
    reading = masks.read_result([bad, dot], parse_label_config(xml))

    assert reading.regions == 1
    assert reading.mask[30, 50] == 1
    assert len(reading.problems) == 1
    assert problem in reading.problems[0]
    assert "'r' of 'c'" in reading.problems[0]


def test_other_damage_is_said_too() -> None:
    box = region("RectangleLabels", GOOD)
    for damaged in ({**box, "value": None}, *({**box, "from_name": name} for name in ("gone", ["c"], None))):
        reading = masks.read_result([damaged], labels("RectangleLabels"))
        assert (reading.regions, len(reading.problems)) == (0, 1)


def test_size_comes_from_the_regions_and_must_agree() -> None:
    box = region("RectangleLabels", GOOD)
    label_map = labels("RectangleLabels")
    without = {key: value for key, value in box.items() if not key.startswith("original")}

    assert masks.read_result([box], label_map).mask.shape == (60, 100)
    assert masks.read_result([without], label_map, size=(5, 7)).mask.shape == (5, 7)
    assert masks.read_result([], label_map, size=(5, 7)).mask.tolist() == [[0] * 7] * 5
    for result, size in (([], None), ([without], None)):
        with pytest.raises(MaskError, match="nothing says the size"):
            masks.read_result(result, label_map, size=size)
    assert masks.read_result([box], label_map, size=(6, 10)).mask.all()  # percent fit any size
    with pytest.raises(MaskError, match="sizes disagree"):
        masks.read_result([box, {**box, "original_width": 99}], label_map)


@pytest.mark.parametrize("width", [10**6, 10**12, 10**400, -1, 0, "1e6", "wide", math.nan, math.inf])
def test_absurd_sizes_are_refused_before_anything_is_allocated(width: Any) -> None:
    absurd = {**region("RectangleLabels", GOOD), "original_width": width, "original_height": 1000}
    with pytest.raises(MaskError):
        masks.read_result([absurd], labels("RectangleLabels"))


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    packed = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + packed + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (9_000, 9_000), (100, 60)])
def test_decompression_bombs_stay_packed(width: int, height: int) -> None:
    bomb = base64.b64encode(png(width, height, bytes(40_000_000)[: 4 * 9_000 * 1_000])).decode()
    tracemalloc.start()
    try:
        reading = read("BitmaskLabels", {"imageDataURL": f"data:image/png;base64,{bomb}"})
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert reading.regions == 0
    assert ("covers no pixel" in reading.problems[0]) == ((width, height) == (100, 60))


def test_truncated_bitmask_is_a_problem() -> None:
    value = masks.write_result(discs(), labels("BitmaskLabels"), minimum_area=1)[0]["value"]
    data = base64.b64decode(value["imageDataURL"].partition(",")[2])
    cut = {"imageDataURL": "data:image/png;base64," + base64.b64encode(data[: len(data) // 2]).decode()}
    reading = read("BitmaskLabels", cut, size=(120, 200))
    assert (reading.regions, set(reading.mask.ravel())) == (0, {IGNORE_INDEX})  # whatever it was, it may be anywhere
    assert "damaged" in reading.problems[0]


# Agreement and storage


def test_agreement_by_hand() -> None:
    a = np.array([[0, 0, 1, 1]], np.uint8)
    b = np.array([[0, 1, 1, IGNORE_INDEX]], np.uint8)
    # Over three pixels: class 0 shares 1 of 2, class 1 shares 1 of 2, class 2 is absent.
    assert masks.agreement(a, b, 3) == 0.5
    assert masks.agreement(a, a, 3) == 1
    assert masks.agreement(a, 1 - a, 2) == 0
    assert masks.agreement(a, np.full_like(a, IGNORE_INDEX), 3) is None
    with pytest.raises(MaskError, match="cannot be compared"):
        masks.agreement(a, a.T, 3)


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_png_storage_is_lossless(mask: np.ndarray) -> None:
    assert (masks.mask_from_png(masks.png_bytes(mask)) == mask).all()


def test_png_with_a_palette_gives_indices() -> None:
    image = Image.fromarray(np.array([[0, 1, 255]], np.uint8))
    image = image.convert("P") if image.mode != "P" else image
    image.putpalette([0, 0, 0, 9, 9, 9] + [7, 8, 9] * 254)
    file = io.BytesIO()
    image.save(file, "PNG")
    assert masks.mask_from_png(file.getvalue()).tolist() == [[0, 1, 255]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no PNG"),
        (b"GIF89a", "no PNG"),
        (masks.png_bytes(np.zeros((50, 50), np.uint8))[:-30], "damaged"),
        (png(2, 2, bytes(18)), "RGBA"),
        (png(11_000, 10_000, b""), "is over"),
        (png(60_000, 60_000, b""), "no PNG"),
    ],
)
@pytest.mark.filterwarnings("ignore:Image size")
def test_files_that_are_no_masks(data: bytes, message: str) -> None:
    with pytest.raises(MaskError, match=message):
        masks.mask_from_png(data)


@pytest.mark.parametrize("tag", WRITTEN)
def test_a_usual_mask_is_written_and_read_quickly(tag: str) -> None:
    mask = cv2.resize(blobs(1), (480, 360), interpolation=cv2.INTER_NEAREST)
    start = time.perf_counter()
    masks.read_result(masks.write_result(mask, labels(tag), minimum_area=16), labels(tag))
    assert time.perf_counter() - start < 2
