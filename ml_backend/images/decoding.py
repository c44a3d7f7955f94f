"""Image files -> (H,W,3) uint8 RGB with the EXIF orientation applied, whatever the file holds.

- more than 8 bits of grey (and floating point): stretched so that the 0.1th and 99.9th percentile become 0 and 255.
  Sensors put 10 or 12 bits into 16, so dividing by 256 would leave such images almost black.
- more than 8 bits per colour: the upper 8 bits, as browsers show them.
- transparent pixels: laid over white, as on the page behind Label Studio's editor.
- several pages or frames: the first.
- colour profiles: not followed, so that a photo of a wide gamut is a little paler than in a browser.
- a JPEG or PNG that is cut short: what there is, the rest white, as browsers show it. Other formats: refused.

`formats` has the formats, all decoded by Pillow.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

from ml_backend.errors import ImageError
from ml_backend.images import headers as image_headers
from ml_backend.images.deep_grey import DeepGrey
from ml_backend.images.formats import DECODING_ERRORS, Png, load_upright, open_image

Array = npt.NDArray[np.uint8]

STRIP_PIXELS = 1 << 20
"""Pixels that are converted at a time: bounds what a large image takes beside itself."""
_LARGE_PIXELS = 25_000_000
_LARGE = threading.Lock()
"""Held while an image of more than _LARGE_PIXELS is decoded, which may take a gigabyte: several threads decode."""
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")


def load_image(path: Path) -> Array:
    """Return an image file as (H,W,3) uint8 RGB; the module says how.

    Raises:
        ImageError: it cannot be read or decoded.
    """
    try:
        with path.open("rb") as file:
            return decoded(open_image(file, path.name))
    except DECODING_ERRORS as error:
        raise ImageError(f"Image file {path} cannot be decoded: {reason_of(error)}.") from error


def check_header(file: IO[bytes]) -> None:
    """Refuse a file that would cost a decoder far more than its pixels; see `headers`.

    Args:
        file: at its beginning, where it is left.

    Raises:
        ValueError, struct.error: the file is refused, or its header is damaged.
    """
    head = file.read(4)
    if head.startswith(b"\xff\xd8"):
        image_headers.check_jpeg(file)
    elif head[:2] in (b"II", b"MM"):
        image_headers.check_tiff(file)
    file.seek(0)


def decoded(image: ImageFile) -> Array:
    """Return an opened image as (H,W,3) uint8 RGB, upright.

    Raises:
        DECODING_ERRORS: the file is damaged.
    """
    with _LARGE if image.size[0] * image.size[1] > _LARGE_PIXELS else contextlib.nullcontext():
        load_upright(image)
        return _to_rgb(image)


def _to_rgb(image: ImageFile) -> Array:
    """Return a decoded image of any mode as (H,W,3) uint8, converted in strips to need little memory beside it."""
    width, height = image.size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    deep = _deep_grey(image)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        if deep is not None:
            pixels[top:bottom] = deep.grey(slice(top, bottom))[:, :, None]
        else:
            pixels[top:bottom] = np.asarray(_opaque(image.crop((0, top, width, bottom)), image))
    return pixels


def _deep_grey(image: ImageFile) -> DeepGrey | None:
    """Return the values of an image of more than 8 bits of grey; None for other images."""
    if isinstance(image, Png) and image.has_deep_alpha:
        values = np.asarray(image).view(">u2")  # (H,W,4) uint8 -> (H,W,2): grey, alpha
        return DeepGrey.of(values[:, :, 0], alpha=values[:, :, 1])
    if image.mode not in _DEEP_MODES:
        return None
    values = np.asarray(image)
    transparent = image.info.get("transparency")
    return DeepGrey.of(values, alpha=None if transparent is None else (values != transparent).astype(np.uint16) * 65535)


def _opaque(strip: Image.Image, whole: Image.Image) -> Image.Image:
    """Return a strip of an image as RGB, over white where it is transparent."""
    if whole.mode not in ("RGBA", "LA", "PA") and "transparency" not in whole.info:
        return strip.convert("RGB")
    strip.info = whole.info
    strip = strip.convert("RGBA")
    white = Image.new("RGBA", strip.size, "white")
    white.alpha_composite(strip)
    return white.convert("RGB")


def reason_of(error: BaseException) -> str:
    """Return the text of a decoder's error, or its type, without a full stop."""
    return (str(error) or type(error).__name__).rstrip(".")
