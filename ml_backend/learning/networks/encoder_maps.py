"""Kept maps of frozen encoders: in memory, and in a folder that processes share."""

from __future__ import annotations

import json
import logging
import math
import zlib
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ml_backend.system.bounded_folder import BoundedFolder, touch

logger = logging.getLogger(__name__)

KeptMaps = tuple[Tensor | tuple[int, ...], ...]
"""Maps (D,h,w) of an image, from shallow to deep; the shape in the place of one that is not used."""

_HEADER_END = b"\n"
_CHECKSUM_BYTES = 4


class MapStore(Protocol):
    """Keeps maps by a digest of the image and the encoder; safe to use from many threads."""

    def get(self, key: str) -> KeptMaps | None:
        """Return the maps of a key; None where they are not kept."""

    def put(self, key: str, maps: KeptMaps) -> None:
        """Keep maps, where there is room."""


class MapMemory:
    """Maps in memory.

    Args:
        most_bytes: bytes of maps that are kept; beyond, nothing is added.
        behind: keeps them, too, for longer.
    """

    def __init__(self, most_bytes: int, behind: MapStore | None = None) -> None:
        self._left, self._behind = most_bytes, behind
        self._maps: dict[str, KeptMaps] = {}

    def __len__(self) -> int:
        return len(self._maps)

    def get(self, key: str) -> KeptMaps | None:
        """See `MapStore.get`."""
        maps = self._maps.get(key)
        if maps is None and self._behind is not None:
            maps = self._behind.get(key)
            if maps is not None:
                self._add(key, maps)
        return maps

    def put(self, key: str, maps: KeptMaps) -> None:
        """See `MapStore.put`."""
        self._add(key, maps)
        if self._behind is not None:
            self._behind.put(key, maps)

    def _add(self, key: str, maps: KeptMaps) -> None:
        size = sum(level.numel() * level.element_size() for level in maps if isinstance(level, Tensor))
        if key not in self._maps and size <= self._left:
            self._left -= size
            self._maps[key] = maps


class MapFolder:
    """Maps in a folder of bounded size, for all projects and processes.

    A file that is damaged counts as none, and a disk that refuses a file keeps nothing from being computed.

    Args:
        path: of the folder; it is made when needed.
        most_bytes: when the folder is larger, the maps used least recently are deleted.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._folder = BoundedFolder(path, suffix=".maps", max_bytes=most_bytes)
        self._is_refused = False

    def get(self, key: str) -> KeptMaps | None:
        """See `MapStore.get`."""
        file = self._folder.file(key)
        try:
            content = bytearray(file.read_bytes())
            maps = _decoded(content)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("%s is damaged and computed anew: %s", file, error)
            return None
        touch(file)
        return maps

    def put(self, key: str, maps: KeptMaps) -> None:
        """See `MapStore.put`."""
        try:
            with self._folder.adding(self._folder.file(key)) as target:
                target.write(_encoded(maps))
        except OSError as error:
            if not self._is_refused:
                logger.warning("maps of encoders cannot be kept in %s, and are computed each time: %s", key, error)
            self._is_refused = True


def _encoded(maps: KeptMaps) -> bytes:
    """Return shapes as a line of JSON, the numbers in half precision, and a checksum."""
    levels = [[list(level.shape), True] if isinstance(level, Tensor) else [list(level), False] for level in maps]
    parts = [level.half().contiguous().numpy().tobytes() for level in maps if isinstance(level, Tensor)]
    content = b"".join([json.dumps(levels).encode(), _HEADER_END, *parts])
    return content + zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "big")


def _decoded(content: bytearray) -> KeptMaps:
    """Return the maps of a file; ValueError where it is damaged."""
    body = memoryview(content)[:-_CHECKSUM_BYTES]
    if zlib.crc32(body) != int.from_bytes(content[-_CHECKSUM_BYTES:], "big"):
        raise ValueError("the checksum is wrong")
    position = content.index(_HEADER_END) + 1
    maps: list[Tensor | tuple[int, ...]] = []
    for shape, is_kept in json.loads(content[:position]):
        if not is_kept:
            maps.append(tuple(shape))
            continue
        count = math.prod(shape)
        maps.append(torch.frombuffer(content, dtype=torch.float16, count=count, offset=position).view(shape))
        position += 2 * count
    return tuple(maps)
