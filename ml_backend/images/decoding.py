"""Image files into pixels: which formats are read, and how every mode becomes 8-bit RGB."""

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
"""Of a file's beginning, which tell its format."""


_PERCENTILES = (0.1, 99.9)


STRIP_PIXELS = 1 << 20
"""Pixels that are converted at a time: bounds what a large image takes beside itself."""


_LARGE_PIXELS = 25_000_000


_LARGE = threading.Lock()
"""Held while a larger image is decoded, one at a time: each may take a gigabyte, and several threads fetch ahead."""


_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")


# Opened by their classes, not by PIL.Image.open: that one's limit on pixels is a global variable, ours is a setting.
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


# What Pillow's decoders raise on files that are not what they claim to be.
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


def load_image(path: Path) -> Array:
    """Decode an image file to (H, W, 3) uint8 RGB; see the module's rules.

    Raises:
        ImageError: it cannot be read or decoded.
    """
    try:
        with path.open("rb") as file:
            return decoded(open_image(file, path.name))
    except DECODING_ERRORS as error:
        raise ImageError(f"Image file {path} cannot be decoded: {reason_of(error)}.") from error


def open_image(file: IO[bytes], name: str) -> ImageFile:
    """Read the header. The file must stay open until the image is decoded."""
    head = file.read(SNIFFED_BYTES)
    file.seek(0)
    return kind_of(head, name)(file, name)


def kind_of(head: bytes, name: str) -> type[ImageFile]:
    """Return what reads a file that begins with these bytes, SNIFFED_BYTES of them.

    Raises:
        ImageError: nothing does.
    """
    for magic, kind in _FORMATS:
        if head.startswith(magic) and (magic != b"RIFF" or head[8:12] == b"WEBP"):
            return kind
    what = "is empty" if not head else f"starts with {head[:12]!r}"
    raise ImageError(f"Image {name} is not a PNG, JPEG, TIFF, WebP or BMP file: it {what}.")


def check_header(file: IO[bytes]) -> None:
    """Refuse a file whose header promises more than its size can hold.

    Raises:
        ImageError: it does.
    """
    head = file.read(4)
    if head.startswith(b"\xff\xd8"):
        image_headers.check_jpeg(file)
    elif head[:2] in (b"II", b"MM"):
        image_headers.check_tiff(file)
    file.seek(0)


def decoded(image: ImageFile) -> Array:
    """Decode an opened image into (H,W,3) uint8 RGB, turned upright."""
    with _LARGE if image.size[0] * image.size[1] > _LARGE_PIXELS else contextlib.nullcontext():
        return _to_rgb(_upright(image))


def _upright(image: ImageFile) -> Image.Image:
    image.load()
    with contextlib.suppress(*DECODING_ERRORS):  # broken EXIF: browsers, too, show such an image as it is stored
        ImageOps.exif_transpose(image, in_place=True)  # without a copy where there is nothing to turn
    return image


def _to_rgb(image: Image.Image) -> Array:
    """Turn a decoded image of any mode into (H, W, 3) uint8, in strips: what is held beside it stays small."""
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
    """Turn a strip of an image into RGB, over white where it is transparent."""
    if whole.mode not in ("RGBA", "LA", "PA") and "transparency" not in whole.info:
        return strip.convert("RGB")
    strip.info = whole.info
    strip = strip.convert("RGBA")
    white = Image.new("RGBA", strip.size, "white")
    white.alpha_composite(strip)
    return white.convert("RGB")


@dataclass(frozen=True)
class _Stretch:
    """Values (H, W) of any numeric type, and which of them become black and white."""

    values: npt.NDArray[Any]
    low: float
    high: float

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> _Stretch:
        """Look at the values: percentile to percentile; those that are not finite do not count."""
        finite = values if values.dtype.kind in "iu" else values[np.isfinite(values)]
        if not finite.size:
            return cls(values, 0.0, 0.0)
        low, high = np.percentile(finite, _PERCENTILES)
        if high <= low:  # almost one value everywhere: the few others are what there is to see
            low, high = finite.min(), finite.max()
        return cls(values, float(low), float(high))

    def grey(self, rows: slice) -> Array:
        """Return some rows as uint8; values that are not finite become 0."""
        if self.high <= self.low:
            return np.zeros(self.values[rows].shape, dtype=np.uint8)
        numbers = self.values[rows].astype(np.float64)
        known = np.where(np.isfinite(numbers), numbers, self.low)
        scaled = np.clip((known - self.low) * (255.0 / (self.high - self.low)), 0, 255)
        grey: Array = np.rint(scaled).astype(np.uint8)
        return grey


def reason_of(error: BaseException) -> str:
    """Return what an error of a decoder says, to stand in a sentence."""
    return (str(error) or type(error).__name__).rstrip(".")
