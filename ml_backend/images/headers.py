"""Looks at image files before they are decoded, for what makes a decoder work far more than the image is worth.

Sizes of images are no secret to the decoders; these are: how often a JPEG is gone through, how many values a TIFF's
tags hold, and how large its tiles are. All raise ValueError, with what was found, or struct.error on rubbish.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from typing import IO

MAXIMUM_SIDE = 1 << 20
"""Pixels; decoders hold memory for each row, whatever its length. JPEG and WebP end far below."""

_MAXIMUM_SCANS = 50  # progressive files have about ten; each costs a pass over all blocks, and takes few bytes
_MAXIMUM_VALUES = 1 << 22  # of a TIFF tag: offsets of 16 x 16 tiles of a very large image are fewer
_MAXIMUM_TILE = 1 << 24  # pixels of a tile in an image that is smaller
_SOS, _EOI = 0xDA, 0xD9
# In the data of a scan, 0xFF is followed by 0 or by a restart marker only.
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_BYTES = (1, 2, 6, 7)  # TIFF types that are kept as one string of bytes
_WIDTH, _LENGTH, _TILE_WIDTH, _TILE_LENGTH = 256, 257, 322, 323


def check_jpeg(file: IO[bytes]) -> None:
    """Refuse a JPEG of very many scans; what follows its end (a film, further images) is not looked at."""
    scans = 0
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = 2
        while found := _MARKER.search(data, position):
            marker = found.group(1)[0]
            if marker == _EOI:
                return
            if marker == _SOS:
                scans += 1
                if scans > _MAXIMUM_SCANS:
                    raise ValueError(f"it has more than {_MAXIMUM_SCANS} scans")
            # Segments are skipped whole: a thumbnail within one has markers of its own.
            length = int.from_bytes(data[found.end() : found.end() + 2], "big")
            position = found.end() + length


def check_tiff(file: IO[bytes]) -> None:
    """Refuse a TIFF whose first page has tags of very many values, or tiles far larger than the image."""
    sides = dict.fromkeys((_WIDTH, _LENGTH, _TILE_WIDTH, _TILE_LENGTH), 0)
    for tag, value in _numbers(file):  # all of them: each is checked on the way
        if tag in sides:
            sides[tag] = value
    area = sides[_TILE_WIDTH] * sides[_TILE_LENGTH]
    if area > max(_MAXIMUM_TILE, 4 * sides[_WIDTH] * sides[_LENGTH]):
        raise ValueError(
            f"its tiles are {sides[_TILE_WIDTH]} x {sides[_TILE_LENGTH]}, it is {sides[_WIDTH]} x {sides[_LENGTH]}"
        )


def _numbers(file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Yield the tags of the first page that are numbers, with the value of those that hold a single one."""
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
