"""Image files -> (H,W,3) uint8 RGB with the EXIF orientation applied, whatever the file holds.

- more than 8 bits of grey (and floating point): stretched so that the 0.1th and 99.9th percentile become 0 and 255.
  Sensors put 10 or 12 bits into 16, so dividing by 256 would leave such images almost black.
- more than 8 bits per colour: the upper 8 bits, as browsers show them.
- transparent pixels: laid over white, as on the page behind Label Studio's editor.
- several pages or frames: the first.

Formats are PNG, JPEG, TIFF, WebP and BMP, all decoded by Pillow.
"""

from __future__ import annotations

import contextlib
import struct
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import BmpImagePlugin, Image, ImageOps, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from ml_backend.errors import ImageError
from ml_backend.images import headers as image_headers

Array = npt.NDArray[np.uint8]

SNIFFED_BYTES = 16
"""Number of bytes at the beginning of a file that tell its format."""

_PERCENTILES = (0.1, 99.9)
STRIP_PIXELS = 1 << 20
"""Pixels that are converted at a time: bounds what a large image takes beside itself."""
_LARGE_PIXELS = 25_000_000
_LARGE = threading.Lock()
"""Held while an image of more than _LARGE_PIXELS is decoded, which may take a gigabyte: several threads decode."""
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
# Opened by their classes: the limit on pixels of PIL.Image.open is a global variable, and ours is a setting.
_FORMATS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"II*\x00", TiffImagePlugin.TiffImageFile),
    (b"MM\x00*", TiffImagePlugin.TiffImageFile),
    (b"II+\x00", TiffImagePlugin.TiffImageFile),
    (b"MM\x00+", TiffImagePlugin.TiffImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
)

DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    MemoryError,
    Image.DecompressionBombError,  # of Pillow's WebP reader, which has its own limit
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise on damaged or hostile files."""


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


def open_image(file: IO[bytes], name: str) -> ImageFile:
    """Read the header of an image file, which must stay open until the image is decoded.

    Args:
        file: at its beginning.
        name: of the file in messages.

    Raises:
        ImageError: the format is none of those that are read.
        DECODING_ERRORS: the header is damaged.
    """
    head = file.read(SNIFFED_BYTES)
    file.seek(0)
    return kind_of(head, name)(file, name)


def kind_of(head: bytes, name: str) -> type[ImageFile]:
    """Return Pillow's class for files of a format.

    Args:
        head: the first SNIFFED_BYTES bytes of the file.
        name: of the file in messages.

    Raises:
        ImageError: the format is none of those that are read.
    """
    for magic, kind in _FORMATS:
        if head.startswith(magic) and (magic != b"RIFF" or head[8:12] == b"WEBP"):
            return kind
    what = "is empty" if not head else f"starts with {head[:12]!r}"
    raise ImageError(f"Image {name} is not a PNG, JPEG, TIFF, WebP or BMP file: it {what}.")


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
        return _to_rgb(_upright(image))


def _upright(image: ImageFile) -> Image.Image:
    image.load()
    with contextlib.suppress(*DECODING_ERRORS):  # broken EXIF: browsers, too, show such an image as it is stored
        ImageOps.exif_transpose(image, in_place=True)  # without a copy where there is nothing to turn
    return image


def _to_rgb(image: Image.Image) -> Array:
    """Return a decoded image of any mode as (H,W,3) uint8, converted in strips to need little memory beside it."""
    width, height = image.size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    deep = _Stretch.of(np.asarray(image)) if image.mode in _DEEP_MODES else None
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        if deep is not None:
            pixels[top:bottom] = deep.grey(slice(top, bottom))[:, :, None]
        else:
            pixels[top:bottom] = np.asarray(_opaque(image.crop((0, top, width, bottom)), image))
    return pixels


def _opaque(strip: Image.Image, whole: Image.Image) -> Image.Image:
    """Return a strip of an image as RGB, over white where it is transparent."""
    if whole.mode not in ("RGBA", "LA", "PA") and "transparency" not in whole.info:
        return strip.convert("RGB")
    strip.info = whole.info
    strip = strip.convert("RGBA")
    white = Image.new("RGBA", strip.size, "white")
    white.alpha_composite(strip)
    return white.convert("RGB")


@dataclass(frozen=True)
class _Stretch:
    """Values (H,W) of any numeric type, with the values that become black (`low`) and white (`high`)."""

    values: npt.NDArray[Any]
    low: float
    high: float

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> _Stretch:
        """Stretch from percentile to percentile of the finite values."""
        finite = values if values.dtype.kind in "iu" else values[np.isfinite(values)]
        if not finite.size:
            return cls(values, 0.0, 0.0)
        low, high = np.percentile(finite, _PERCENTILES)
        if high <= low:  # nearly all values are equal: show the few others
            low, high = finite.min(), finite.max()
        return cls(values, float(low), float(high))

    def grey(self, rows: slice) -> Array:
        """Return some rows as (h,W) uint8; values that are not finite become 0."""
        if self.high <= self.low:
            return np.zeros(self.values[rows].shape, dtype=np.uint8)
        numbers = self.values[rows].astype(np.float64)
        known = np.where(np.isfinite(numbers), numbers, self.low)
        scaled = np.clip((known - self.low) * (255.0 / (self.high - self.low)), 0, 255)
        grey: Array = np.rint(scaled).astype(np.uint8)
        return grey


def reason_of(error: BaseException) -> str:
    """Return the text of a decoder's error, or its type, without a full stop."""
    return (str(error) or type(error).__name__).rstrip(".")
