"""What each strategy chose first, as small pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ml_backend.simulation.report.names import file_name

_MOST = 8
"""Pictures of a strategy."""
_SIDE = 240
"""Longer side in pixels."""


@dataclass(frozen=True)
class Picture:
    """A picture as an address that holds its content."""

    number: int
    address: str


def first_choices(folder: Path, dataset: str, strategies: Sequence[str]) -> list[tuple[str, list[Picture]]]:
    """Return each strategy with its pictures, if it has any; a file that is no whole picture is left out."""
    chosen = []
    for strategy in strategies:
        files = sorted((folder / file_name(dataset) / file_name(strategy)).glob("*.png"))[:_MOST]
        pictures = [Picture(number, address) for number, file in enumerate(files, 1) if (address := _address(file))]
        if pictures:
            chosen.append((strategy, pictures))
    return chosen


def _address(file: Path) -> str | None:
    content = io.BytesIO()
    try:
        with Image.open(file) as picture:
            small = picture.convert("RGB")
            small.thumbnail((_SIDE, _SIDE))
            small.save(content, "PNG", optimize=True)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):  # what Pillow raises for a damaged file
        return None
    return data_address(content.getvalue(), "image/png")


def data_address(content: bytes, kind: str) -> str:
    """Return a data: address of a content type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
