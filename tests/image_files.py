"""Small image files of the kinds that users have."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

COLOURS = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
SMOOTH = np.stack([np.add.outer(np.arange(16), np.arange(24)) * k for k in (1, 3, 6)], axis=2).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(seed: int = 0, size: tuple[int, int] = (9, 14)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "PNG")


def tiff(values: npt.NDArray[np.generic], **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()
