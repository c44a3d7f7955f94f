"""Small files that ask for much: of memory, of time, or of both."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_ZEROS = 256 << 20


def zeros(count: int = _ZEROS) -> bytes:
    """Compressed zeros: a thousandth of their size."""
    packer = zlib.compressobj(9)
    pieces = [packer.compress(bytes(1 << 20)) for _ in range(count >> 20)]
    return b"".join([*pieces, packer.flush()])


def png(*chunks: tuple[bytes, bytes], size: tuple[int, int] = (4, 4)) -> bytes:
    """A PNG of these chunks between its header and its end."""
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    return _PNG + b"".join(_chunk(kind, data) for kind, data in [(b"IHDR", header), *chunks, (b"IEND", b"")])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(**tags: bytes) -> bytes:
    """A grey TIFF of 16 x 16 pixels; further tags are LONGs, named as t324."""
    numbers = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 278: 16, 273: 8, 279: 256}
    values = {tag: struct.pack("<I", value) for tag, value in numbers.items()}
    values |= {int(name[1:]): data for name, data in tags.items()}
    end = 8 + 2 + 12 * len(values) + 4
    entries, extra = b"", b""
    for tag, data in sorted(values.items()):
        stored = data if len(data) == 4 else struct.pack("<I", end + len(extra))
        extra += b"" if len(data) == 4 else data
        entries += struct.pack("<HHI", tag, 4, len(data) // 4) + stored
    return b"II*\x00" + struct.pack("<IH", 8, len(values)) + entries + bytes(4) + extra + bytes(300)


def jpeg(scans: int) -> bytes:
    """A JPEG of 14,000 x 14,000 pixels in a megabyte, whose last pass is repeated."""
    buffer = io.BytesIO()
    Image.new("L", (14_000, 14_000), 99).save(buffer, "JPEG", progressive=True, quality=30)
    whole = buffer.getvalue()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * scans + whole[-2:]


def bombs() -> Iterator[tuple[str, bytes, str]]:
    """Yield name, content, and a part of what is said about it; nothing is said of what is harmless in the end."""
    pixels, much = zlib.compress(bytes(4 * 13)), zeros()
    yield "text", png((b"zTXt", b"k\0\0" + much), (b"IDAT", pixels)), "too large"
    yield "international text", png((b"iTXt", b"k\0\1\0\0\0" + much), (b"IDAT", pixels)), "too large"
    yield "colour profile", png((b"iCCP", b"k\0\0" + much), (b"IDAT", pixels)), "too large"
    yield "many texts", png(*[(b"zTXt", b"k\0\0" + zeros(1 << 20))] * 100, (b"IDAT", pixels)), "Too much memory"
    yield "more pixels than declared", png((b"IDAT", much)), ""
    yield "fewer pixels than declared", png((b"IDAT", pixels), size=(9000, 9000)), "truncated"
    yield "a chunk that is not there", _PNG + struct.pack(">I", 0x7FFFFFFF) + b"tEXt" + b"x" * 100, "Truncated"
    yield "a single row", png((b"IDAT", pixels), size=(200_000_000, 1)), "no side may be longer"
    yield "a single column", png((b"IDAT", pixels), size=(1, 200_000_000)), "no side may be longer"
    yield "values of a tag", tiff(t60000=bytes(40_000_000)), "its tag 60000 has 10000000 values"
    side = struct.pack("<I", 26_000)
    tiles = tiff(t322=side, t323=side, t259=struct.pack("<I", 8), t324=struct.pack("<I", 8), t325=side)
    yield "tiles", tiles, "its tiles are 26000 x 26000, it is 16 x 16"
    yield "scans", jpeg(2000), "more than 50 scans"
    frames = [Image.new("RGB", (1000, 1000), (n, 0, 0)) for n in range(50)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    yield "frames", buffer.getvalue(), ""
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "BMP")
    bitmap = bytearray(buffer.getvalue())
    bitmap[18:26] = struct.pack("<ii", 9000, 9000)
    yield "a bitmap's size", bytes(bitmap), "cannot be decoded"
    bitmap[30:34] = struct.pack("<I", 1)  # run lengths, of which each ends a row
    yield "a bitmap's runs", bytes(bitmap[: bitmap[10] + 256 * bitmap[11]]) + b"\xff\x01" * 10_000, "cannot be decoded"
