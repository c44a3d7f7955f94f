"""The shape in a region's `value` -> pixels of a mask.

Coordinates are percent of the image. Shapes are rotated in pixels, since percent have another scale along each side. A
pixel is painted when at least half of it (brush) or its centre (outlines) is covered.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ml_backend.annotations import brush, outlines
from ml_backend.annotations.fields import number_in
from ml_backend.errors import MaskError, MaskWithoutArea, shown

MAXIMUM_VERTICES: Final = 100_000
"""Points of the longest polygon that is read."""
PNG_PREFIX: Final = "data:image/png;base64,"
_MAXIMUM_PERCENT = 100_000  # of the image's side: nobody can draw farther outside

Mask = NDArray[np.uint8]
Value = Mapping[str, Any]


def paint(mask: Mask, value: Value, index: int) -> int:
    """Set the pixels of a region to a class index; what lies outside the image is left out.

    The keys of the value tell the shape. The region's type does not: regions of `<Labels>` have the type "labels"
    whatever their shape.

    Args:
        mask: (H,W) uint8, changed in place; unchanged when an error is raised.
        value: the region's `value` in Label Studio's format.
        index: the class index, 0 to 255.

    Returns:
        Number of vertices of a polygon or vector; 0 for other shapes.

    Raises:
        MaskWithoutArea: the shape is a line or a point.
        MaskError: the shape is unknown or damaged, or the size of a bitmask differs.
    """
    painter = next((painter for key, painter in _PAINTERS if key in value), None)
    if painter is None:
        raise MaskError(f"its value has no shape that is read as a mask, only {shown(sorted(map(str, value)))}")
    return painter(mask, value, index)


def has_shape(value: Value) -> bool:
    """Whether a value has a shape that could be painted."""
    return any(key in value for key, _ in _PAINTERS)


def is_raster(value: Value) -> bool:
    """Whether a value holds pixels, which fit one size of the image only; all other shapes are in percent of it."""
    return "rle" in value or "imageDataURL" in value


def vertices(value: Value) -> outlines.Points | None:
    """Return the points of a polygon or vector, (N,2) float64, x and y in percent of the image; None for other shapes.

    Raises:
        MaskError: they are no pairs of numbers, too many, or too far outside.
    """
    if "points" in value:
        return _points(value["points"])
    if "vertices" not in value:
        return None
    return _positions(_vertices(value))


def open_png(data: bytes) -> Image.Image:
    """Return a PNG of which only the header is read, so that its size can be checked before it is decoded.

    Raises:
        MaskError: it is no PNG.
    """
    try:
        return Image.open(io.BytesIO(data), formats=("PNG",))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MaskError(f"it is no PNG that can be read: {error}") from error


def load_png(image: Image.Image) -> Image.Image:
    """Decode an image of `open_png`, and return it.

    Raises:
        MaskError: it is damaged.
    """
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise MaskError(f"its PNG is damaged: {error}") from error
    return image


def _paint_brush(mask: Mask, value: Value, index: int) -> int:
    if value.get("format", "rle") != "rle":
        raise MaskError(f"its brush format is {shown(value['format'])}, only 'rle' is known")
    # Strokes have soft edges: a pixel is in when at least half of it is covered, as with all other shapes.
    mask[brush.decode(value["rle"], *mask.shape) >= 128] = index
    return 0


def _paint_bitmask(mask: Mask, value: Value, index: int) -> int:
    url = value["imageDataURL"]
    if not isinstance(url, str) or not url.startswith(PNG_PREFIX):
        raise MaskError(f"its imageDataURL does not begin with {PNG_PREFIX!r}")
    try:
        data = base64.b64decode(url[len(PNG_PREFIX) :], validate=True)
    except ValueError as error:
        raise MaskError(f"its imageDataURL is not valid base64: {error}") from error
    image = open_png(data)
    if image.size != mask.shape[::-1]:  # known from the header: a bomb is never unpacked
        raise MaskError(
            f"its bitmask is {image.size[0]} x {image.size[1]}, the image {mask.shape[1]} x {mask.shape[0]}"
        )
    mask[np.asarray(load_png(image).convert("RGBA").getchannel("A")) > 0] = index
    return 0


def _paint_polygon(mask: Mask, value: Value, index: int) -> int:
    points = _points(value["points"])
    # `closed: false` is an outline whose last click is missing: closed here, as in Label Studio's own exports.
    _fill(mask, points, index)
    return len(points)


def _paint_vector(mask: Mask, value: Value, index: int) -> int:
    vertices = _vertices(value)
    if not value.get("closed"):
        raise MaskWithoutArea("it is an open path, which has no area")
    vertices = _chained(vertices)
    _fill(mask, np.concatenate(list(_segments(vertices, _positions(vertices)))), index)
    return len(vertices)


def _paint_ellipse(mask: Mask, value: Value, index: int) -> int:
    height, width = mask.shape
    radii = _percent(value, "radiusX") * width, _percent(value, "radiusY") * height
    if min(radii) <= 0:
        raise MaskWithoutArea(f"it has no area: its radii are {radii[0]:g} and {radii[1]:g} pixels")
    centre = _percent(value, "x") * width, _percent(value, "y") * height
    outlines.fill(mask, outlines.ellipse(*centre, *radii, _degrees(value)), index)
    return 0


def _paint_rectangle(mask: Mask, value: Value, index: int) -> int:
    height, width = mask.shape
    sides = _percent(value, "width") * width, _percent(value, "height") * height
    if 0 in sides:
        raise MaskWithoutArea(f"it has no area: its sides are {sides[0]:g} and {sides[1]:g} pixels")
    corner = _percent(value, "x") * width, _percent(value, "y") * height
    outlines.fill(mask, outlines.rectangle(*corner, *sides, _degrees(value)), index)
    return 0


_PAINTERS: tuple[tuple[str, Callable[[Mask, Value, int], int]], ...] = (
    ("rle", _paint_brush),
    ("imageDataURL", _paint_bitmask),
    ("points", _paint_polygon),
    ("vertices", _paint_vector),
    ("radiusX", _paint_ellipse),
    ("height", _paint_rectangle),
)


def _fill(mask: Mask, percent: outlines.Points, index: int) -> None:
    if len(np.unique(percent, axis=0)) < 3:
        raise MaskWithoutArea(f"it has no area: only {len(np.unique(percent, axis=0))} different points")
    outlines.fill(mask, percent / 100 * mask.shape[::-1], index)


def _points(pairs: object) -> outlines.Points:
    """(N, 2) x and y in percent."""
    if isinstance(pairs, Sequence) and len(pairs) > MAXIMUM_VERTICES:
        raise MaskError(f"it has {len(pairs)} points; at most {MAXIMUM_VERTICES} are read")
    try:
        points = np.array(pairs, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise MaskError("its points are no pairs of numbers") from error
    if points.ndim != 2 or points.shape[1] != 2:
        raise MaskError("its points are no pairs of numbers")
    if not (np.abs(points) <= _MAXIMUM_PERCENT).all():  # not-a-number fails it, too
        raise MaskError(f"its points are not within {_MAXIMUM_PERCENT} % of the image")
    return points


def _percent(value: Value, key: str) -> float:
    """Return a coordinate or length as a fraction of the image's side."""
    return number_in(value, key, -_MAXIMUM_PERCENT, _MAXIMUM_PERCENT) / 100


def _degrees(value: Value) -> float:
    return 0.0 if value.get("rotation") is None else number_in(value, "rotation", -3600, 3600)


def _vertices(value: Value) -> Sequence[Value]:
    vertices = value["vertices"]
    if not isinstance(vertices, Sequence) or not all(isinstance(vertex, Mapping) for vertex in vertices):
        raise MaskError("its vertices are no list of objects")
    return vertices


def _positions(vertices: Sequence[Value]) -> outlines.Points:
    """(N, 2) x and y of vertices, in percent."""
    return _points([(vertex.get("x"), vertex.get("y")) for vertex in vertices])


def _chained(vertices: Sequence[Value]) -> Sequence[Value]:
    """Return vertices in drawing order: by `prevPointId` when that links all of them, else in the order of the list."""
    following = {str(vertex["prevPointId"]): vertex for vertex in vertices if vertex.get("prevPointId") is not None}
    chain = list(vertices[:1])
    while len(chain) < len(vertices):
        vertex = following.pop(str(chain[-1].get("id")), None)
        if vertex is None or vertex is chain[0]:
            return vertices
        chain.append(vertex)
    return chain


def _segments(vertices: Sequence[Value], corners: outlines.Points) -> Iterator[outlines.Points]:
    """Points from each vertex up to the next one, in percent; curves as the editor draws them."""
    for number, (vertex, start) in enumerate(zip(vertices, corners, strict=True)):
        following = (number + 1) % len(vertices)
        end = corners[following]
        leaving, arriving = _handle(vertex, "controlPoint2"), _handle(vertices[following], "controlPoint1")
        if leaving is None and arriving is None:
            yield start[None]
        else:
            # Where an end has no handle, the editor puts it on the straight line, 30 % from that end.
            leaving = start + 0.3 * (end - start) if leaving is None else leaving
            arriving = end - 0.3 * (end - start) if arriving is None else arriving
            yield outlines.curve(start, leaving, arriving, end)


def _handle(vertex: Value, key: str) -> outlines.Points | None:
    point = vertex.get(key)
    if not vertex.get("isBezier") or not isinstance(point, Mapping):
        return None
    handle: outlines.Points = _points([(point.get("x"), point.get("y"))])[0]
    return handle
