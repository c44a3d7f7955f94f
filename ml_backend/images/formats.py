"""The formats of image files, read as browsers show them: Pillow's readers, and what browsers do otherwise.

Compared with Chromium pixel by pixel in `tests/browser/test_pixels.py`; TIFF is shown by no browser but Safari.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from typing import IO, Any

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ImageFile import ImageFile, _Tile

from ml_backend.errors import ImageError

SNIFFED_BYTES = 16
"""Number of bytes at the beginning of a file that tell its format."""

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

_END_OF_JPEG = b"\xff\xd9"
_EMPTY = {"1": 255, "L": 255, "LA": (0, 0), "RGB": (255, 255, 255), "RGBA": (0, 0, 0, 0), "CMYK": (0, 0, 0, 0)}
"""What is not there is transparent in browsers, hence white here; by mode, as Pillow has it."""
_PLANES = 2
_GREY = (0, 1)

# Pillow's own reader of uncompressed TIFF mixes up planes of more than 8 bits; libtiff reads them right.
TiffImagePlugin.READ_LIBTIFF = True


class _InPart(ImageFile):
    """Reads what there is of a file that is cut short; the rest is empty, as in browsers."""

    def load_prepare(self) -> None:
        """Begin with an empty image instead of a black one."""
        super().load_prepare()
        if self.mode in _EMPTY:
            self.im.paste(_EMPTY[self.mode], (0, 0, *self.im.size))

    def load(self) -> Any:
        """Decode what there is."""
        try:
            return super().load()
        except OSError as error:
            can_be_in_part = self.mode in _EMPTY and not self.info.get("interlace")
            if "truncated" not in str(error) or not can_be_in_part or self.fp is None or self.fp.read(1):
                raise
            self.tile = []
            if self.getextrema() == self._extrema_of_nothing():
                raise OSError("the file is cut short before its first pixels") from error
            return super().load()

    def _extrema_of_nothing(self) -> object:
        values = _EMPTY[self.mode]
        return tuple((value, value) for value in values) if isinstance(values, tuple) else (values, values)


class _Jpeg(_InPart, JpegImagePlugin.JpegImageFile):
    """Reads the scans that there are of a progressive file, too."""

    _ended = False

    def load_read(self, read_bytes: int) -> bytes:
        """Return the next bytes, and once, where a progressive file ends too early, the marker of the end."""
        content = bytes(self.fp.read(read_bytes)) if self.fp is not None else b""
        if content or self._ended or not self.info.get("progressive"):
            return content
        self._ended = True
        return _END_OF_JPEG


class Png(_InPart, PngImagePlugin.PngImageFile):
    """Keeps all bits of grey with alpha, and compares grey with the transparent value in the depth that it is read in.

    Attributes:
        has_deep_alpha: whether it is grey with alpha of 16 bits each, read as the four bytes of RGBA.
    """

    has_deep_alpha = False

    def _open(self) -> None:
        super()._open()
        if not self.tile:
            return
        decoder, extents, offset, rawmode = self.tile[0]
        transparent = self.info.get("transparency")
        if self.mode == "L" and isinstance(transparent, int) and rawmode in ("L;2", "L;4"):
            self.info["transparency"] = transparent * (85 if rawmode == "L;2" else 17)
        elif rawmode == "LA;16B":  # of which Pillow would drop the lower bytes
            self.has_deep_alpha, self._mode = True, "RGBA"
            self.tile = [_Tile(decoder, extents, offset, "RGBA")]


class _Tiff(TiffImagePlugin.TiffImageFile):
    """Refuses what Pillow reads wrongly, and says which TIFF is read."""

    def _open(self) -> None:
        try:
            super()._open()
        except (SyntaxError, IndexError) as error:
            if "pixel mode" in str(error) or isinstance(error, IndexError):
                raise ValueError("its kind of pixels is not read: save it as grey or RGB of 8 or 16 bits") from error
            raise

    def _setup(self) -> None:
        super()._setup()
        tags = self.tag_v2
        bands = int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))
        is_grey = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0) in _GREY
        if is_grey and bands > 1 and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == _PLANES:
            raise ValueError(f"it is grey in {bands} planes, which is not read: save it as grey or RGB")


# Opened by their classes: the limit on pixels of PIL.Image.open is a global variable, and ours is a setting.
_FORMATS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", Png),
    (b"\xff\xd8\xff", _Jpeg),
    (b"II*\x00", _Tiff),
    (b"MM\x00*", _Tiff),
    (b"II+\x00", _Tiff),
    (b"MM\x00+", _Tiff),
    (b"RIFF????WEBP", WebPImagePlugin.WebPImageFile),
    (b"????ftypavif", AvifImagePlugin.AvifImageFile),
    (b"????ftypavis", AvifImagePlugin.AvifImageFile),
    (b"GIF87a", GifImagePlugin.GifImageFile),
    (b"GIF89a", GifImagePlugin.GifImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
)


def kind_of(head: bytes, name: str) -> type[ImageFile]:
    """Return the reader of a format.

    Args:
        head: the first SNIFFED_BYTES bytes of the file.
        name: of the file in messages.

    Raises:
        ImageError: the format is none of those that are read.
    """
    for magic, kind in _FORMATS:
        if len(head) >= len(magic) and all(
            wanted in (byte, ord("?")) for wanted, byte in zip(magic, head, strict=False)
        ):
            return kind
    what = "is empty" if not head else f"starts with {head[:12]!r}"
    raise ImageError(f"Image {name} is not a PNG, JPEG, TIFF, WebP, AVIF, GIF or BMP file: it {what}.")


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
    image = kind_of(head, name)(file, name)
    if getattr(image, "default_image", False):
        image.seek(1)  # a PNG whose animation begins after the picture that programs without animations show
    return image


def load_upright(image: ImageFile) -> None:
    """Decode an opened image, and turn it as browsers do: by EXIF that comes before the pixels, in WebP not at all.

    Pillow would also follow EXIF behind the pixels of a PNG, or in its texts, and XMP.

    Raises:
        DECODING_ERRORS: the file is damaged.
    """
    exif = image.info.get("exif")
    image.load()  # which turns a TIFF
    if image.format in ("TIFF", "WEBP") or not exif:
        return
    image.info = {"exif": exif, **{name: image.info[name] for name in ("transparency",) if name in image.info}}
    with contextlib.suppress(*DECODING_ERRORS):  # broken EXIF: browsers, too, show such an image as it is stored
        ImageOps.exif_transpose(image, in_place=True)  # without a copy where there is nothing to turn
