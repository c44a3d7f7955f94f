"""Refuses hostile image files by their headers: small files that would keep a decoder busy or fill the memory.

Decoders check the size of an image themselves. They do not check the number of scans of a JPEG, the number of values
in the tags of a TIFF, and the size of its tiles.
"""

from __future__ import annotations

import io
import mmap
import re
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import IO, Any

MAXIMUM_SIDE = 1 << 20
"""Pixels of the longest side: decoders need memory for each row, however short. JPEG and WebP allow far fewer."""

_MAXIMUM_SCANS = 50  # progressive files have about ten; each costs a pass over all blocks, and takes few bytes
_MAXIMUM_VALUES = 1 << 22  # of a TIFF tag: offsets of 16 x 16 tiles of a very large image are fewer
_MAXIMUM_TILE = 1 << 24  # pixels of a tile in an image that is smaller
_SOS, _EOI = 0xDA, 0xD9
_JPEG_TAIL = b"\xff\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"
# In the data of a scan, 0xFF is followed by 0 or by a restart marker only.
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_BYTES = (1, 2, 6, 7)  # TIFF types of which decoders keep the bytes as they are
_WIDTH, _LENGTH, _TILE_WIDTH, _TILE_LENGTH = 256, 257, 322, 323


def is_cut_short(file: IO[bytes]) -> bool:
    """Whether the end of a JPEG or PNG is missing; False for other files.

    Args:
        file: at its beginning.
    """
    head = file.read(8)
    file.seek(-min(8, len(head)), io.SEEK_END)
    tail = file.read()
    file.seek(8)
    if head.startswith(b"\xff\xd8"):
        return not tail.endswith(_JPEG_TAIL) and not check_jpeg(file)
    return head == _PNG and not tail.startswith(b"IEND") and not _has_end_of_png(file)


def _has_end_of_png(file: IO[bytes]) -> bool:
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if kind == b"IEND":
            return True
        file.seek(length + 4, io.SEEK_CUR)  # 4 bytes of checksum follow
    return False


def check_jpeg(file: IO[bytes]) -> bool:
    """Refuse a JPEG of very many scans; what follows its end (a film, more images) is not checked.

    Returns:
        Whether it has an end.

    Raises:
        ValueError: it has more than 50 scans.
    """
    scans = 0
    with _whole(file) as data:
        position = 2
        while match := _MARKER.search(data, position):
            marker = match.group(1)[0]
            if marker == _EOI:
                return True
            if marker == _SOS:
                scans += 1
                if scans > _MAXIMUM_SCANS:
                    raise ValueError(f"it has more than {_MAXIMUM_SCANS} scans")
            # Segments are skipped as a whole: a thumbnail inside has markers of its own.
            length = int.from_bytes(data[match.end() : match.end() + 2], "big")
            position = match.end() + length
    return False


def _whole(file: IO[bytes]) -> AbstractContextManager[Any]:
    """Return the bytes of a file, without reading them where the system can show them."""
    if isinstance(file, io.BytesIO):
        return file.getbuffer()
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def check_tiff(file: IO[bytes]) -> None:
    """Refuse a TIFF whose first page has tags of very many values, or tiles far larger than the image.

    Raises:
        ValueError: it has.
        struct.error: the header is cut off.
    """
    sides = dict.fromkeys((_WIDTH, _LENGTH, _TILE_WIDTH, _TILE_LENGTH), 0)
    for tag, value in _numbers(file):  # all tags: `_numbers` checks each
        if tag in sides:
            sides[tag] = value
    area = sides[_TILE_WIDTH] * sides[_TILE_LENGTH]
    if area > max(_MAXIMUM_TILE, 4 * sides[_WIDTH] * sides[_LENGTH]):
        raise ValueError(
            f"its tiles are {sides[_TILE_WIDTH]} x {sides[_TILE_LENGTH]}, it is {sides[_WIDTH]} x {sides[_LENGTH]}"
        )


def _numbers(file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Yield the numeric tags of the first page, with their first value (an offset when there are several values)."""
    file.seek(0)
    start = file.read(16)
    order = "<" if start[:2] == b"II" else ">"
    big = struct.unpack(f"{order}H", start[2:4])[0] == 43
    (offset,) = struct.unpack(f"{order}Q", start[8:16]) if big else struct.unpack(f"{order}I", start[4:8])
    file.seek(offset)
    counter, entry = (f"{order}Q", f"{order}HHQ8s") if big else (f"{order}H", f"{order}HHI4s")
    (entries,) = struct.unpack(counter, file.read(struct.calcsize(counter)))
    for _ in range(entries):
        tag, kind, count, value = struct.unpack(entry, file.read(struct.calcsize(entry)))
        if kind in _BYTES:
            continue
        if count > _MAXIMUM_VALUES:
            raise ValueError(f"its tag {tag} has {count} values")
        yield tag, struct.unpack(f"{order}{'H' if kind == 3 else 'I'}", value[: 2 if kind == 3 else 4])[0]
