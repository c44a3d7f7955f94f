"""Pure functions from arrays to picture files.

Masks and heat maps are PNG files with a palette, transparent where there is nothing to show: what lies below stays to
be seen, and the values can be read back.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ml_backend.annotations.boxes import Box
from ml_backend.annotations.config_edits import Colour
from ml_backend.annotations.label_map import IGNORE_INDEX

SIDE: Final = 480
"""Longest side of a picture in pixels; smaller images keep their size."""
LARGE_SIDE: Final = 1600
"""Likewise, of a picture that has a page of its own."""
_QUALITY = 82
_WEBP_EFFORT = 3
_LEVELS = 256
_FRAME_SHARE = 160  # the longest side is that many times as long as a frame is wide
_SAME, _DIFFERENT = 0, 1
_DIFFERENCE: Colour = (255, 64, 160)
_LINE, _LINES = 44, 6  # characters of a reason in a line, and lines

Pixels = NDArray[np.uint8]
Mask = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Picture:
    """A file to send: its content and what it is."""

    content: bytes
    media_type: str


def small_size(height: int, width: int, side: int = SIDE) -> tuple[int, int]:
    """Return height and width of the pictures of an image whose longest side is to be `side`.

    >>> small_size(720, 960), small_size(40, 30), small_size(1, 5000)
    ((360, 480), (40, 30), (1, 480))
    """
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def shrunk_image(image: Pixels, side: int = SIDE) -> Pixels:
    """Shrink an image (H,W,3) to a picture's size, by the areas that pixels share."""
    height, width = small_size(image.shape[0], image.shape[1], side)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def shrunk_mask(mask: Mask, side: int = SIDE) -> Mask:
    """Shrink a mask (H,W) to a picture's size, to the nearest pixel."""
    height, width = small_size(mask.shape[0], mask.shape[1], side)
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def levels_of(values: NDArray[np.floating], size: tuple[int, int]) -> Pixels:
    """Bring values (h,w) in [0, 1] to a size (height, width), bilinearly, and to 256 levels.

    >>> levels_of(np.array([[0.0, 0.5, 1.0]], np.float32), (1, 3))
    array([[  0, 128, 255]], dtype=uint8)
    """
    larger = cv2.resize(np.asarray(values, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR).reshape(size)
    levels: Pixels = np.floor(larger.clip(0, 1) * (_LEVELS - 1) + 0.5).astype(np.uint8)
    return levels


def image_picture(pixels: Pixels) -> Picture:
    """Pack (h,w,3) RGB."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=_QUALITY, method=_WEBP_EFFORT)
    return Picture(buffer.getvalue(), "image/webp")


def mask_picture(mask: Mask, colours: Sequence[Colour], unpainted: int) -> Picture:
    """Paint a mask (h,w) in the colours of its classes; unpainted and ignored pixels are transparent."""
    nothing_there = len(colours)  # a file holds no index beyond its palette
    opacity = bytes(0 if index in (unpainted, nothing_there) else 255 for index in range(nothing_there + 1))
    shown = np.minimum(mask, nothing_there).astype(np.uint8)
    return _with_palette(shown, [*colours, (0, 0, 0)], opacity)


def heat_picture(levels: Pixels) -> Picture:
    """Paint levels (h,w) from 0, dark, to 255, bright, in a perceptually uniform map of colours (inferno)."""
    return _with_palette(levels, heat_colours(), None)


def heat_colours() -> list[Colour]:
    """Return the colours of the 256 levels."""
    ramp = cv2.applyColorMap(np.arange(_LEVELS, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)  # (256,1,3) BGR
    return [(int(red), int(green), int(blue)) for blue, green, red in ramp[:, 0]]


def difference_picture(first: Mask, second: Mask) -> Picture:
    """Paint the pixels in which two masks (h,w) differ; ignored pixels do not count."""
    differs = (first != second) & (first != IGNORE_INDEX) & (second != IGNORE_INDEX)
    marked = np.where(differs, _DIFFERENT, _SAME).astype(np.uint8)
    return _with_palette(marked, [(0, 0, 0), _DIFFERENCE], bytes([0, 255]))


def boxes_picture(boxes: Sequence[tuple[Box, Colour | None]], size: tuple[int, int], side: int = SIDE) -> Picture:
    """Draw frames around boxes and rings around points, white on black so that they are seen on any image.

    Args:
        boxes: each with the colour that a point is filled with; None: it is not.
        size: (height, width) of the original image, whose pixels the boxes are in.
    """
    height, width = small_size(*size, side)
    drawn = np.zeros((height, width), np.uint8)
    thickness = max(1, max(height, width) // _FRAME_SHARE)
    fills = list(dict.fromkeys(colour for _, colour in boxes if colour is not None))
    for value, grow in ((1, thickness), (2, 0)):
        for box, colour in boxes:
            left, top, right, bottom = box.corners_in_picture(size, (height, width))
            if not box.is_point:
                cv2.rectangle(drawn, (left, top), (right, bottom), value, thickness + 2 * grow)
                continue
            middle, radius = ((left + right) // 2, (top + bottom) // 2), 3 * thickness
            cv2.circle(drawn, middle, radius, value, thickness + 2 * min(grow, 1))
            if colour is not None:
                cv2.circle(drawn, middle, radius - (thickness + 1) // 2, 3 + fills.index(colour), cv2.FILLED)
    return _with_palette(drawn, [(0, 0, 0), (0, 0, 0), (255, 255, 255), *fills], bytes([0] + [255] * (2 + len(fills))))


def placeholder(reason: str) -> Picture:
    """Return a picture that says why there is no picture."""
    lines = textwrap.wrap(_printable(reason), _LINE, max_lines=_LINES, placeholder=" …") or ["No picture."]
    height = SIDE * 3 // 4
    first = height // 2 - (len(lines) - 1) * 12
    text = "".join(f'<tspan x="50%" y="{first + 24 * row}">{escape(line)}</tspan>' for row, line in enumerate(lines))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIDE}" height="{height}" viewBox="0 0 {SIDE} {height}">'
        f'<rect width="100%" height="100%" fill="#5b6270"/>'
        f'<text fill="#ffffff" font-family="sans-serif" font-size="17" text-anchor="middle">{text}</text></svg>'
    )
    return Picture(svg.encode("utf-8", "replace"), "image/svg+xml")


def nothing() -> Picture:
    """Return an empty, transparent picture."""
    return _with_palette(np.zeros((1, 1), np.uint8), [(0, 0, 0)], bytes([0]))


def packed(indices: Pixels) -> bytes:
    """Pack (h,w) or (h,w,2) uint8 without loss, to be kept."""
    buffer = io.BytesIO()
    Image.fromarray(indices).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def unpacked(content: bytes) -> Pixels:
    """Read what `packed` made."""
    return np.asarray(Image.open(io.BytesIO(content), formats=("PNG",)), np.uint8)


def _with_palette(indices: Pixels, colours: Sequence[Colour], opacity: bytes | None) -> Picture:
    image = Image.fromarray(np.ascontiguousarray(indices))
    image.putpalette([part for colour in colours for part in colour])  # which makes grey levels indices
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=4, **({} if opacity is None else {"transparency": opacity}))
    return Picture(buffer.getvalue(), "image/png")


def _printable(text: str) -> str:
    """Leave out what no XML document may hold."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
