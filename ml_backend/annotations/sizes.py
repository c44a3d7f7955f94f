"""The size of the image that regions state, against the size that it has.

Shapes in percent fit every size of an image, so an annotation of the original serves for a smaller copy; pixels (brush,
bitmask) fit one size only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ml_backend.annotations.fields import stated_size
from ml_backend.annotations.shapes import is_raster
from ml_backend.errors import MaskError, first_few, shown

MAXIMUM_PIXELS: Final = 100_000_000
"""Pixels of the largest mask that is read."""


def checked_size(height: float, width: float) -> tuple[int, int]:
    """Return a (height, width) that is not too large.

    Raises:
        MaskError: it has more than MAXIMUM_PIXELS.
    """
    if not height * width <= MAXIMUM_PIXELS:
        raise MaskError(f"an image of {_pixels(width)} x {_pixels(height)} pixels is over {MAXIMUM_PIXELS}")
    return int(height), int(width)


def common_size(regions: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Return the (height, width) that regions state.

    Raises:
        MaskError: none states one, they state several, or it is too large.
    """
    sizes: dict[tuple[float, float], str] = {}
    for region in regions:
        if (stated := stated_size(region)) is not None:
            sizes.setdefault(stated, f"region {shown(region.get('id'))}")
    if not sizes:
        raise MaskError("nothing says the size of the image: no region has original_width and original_height")
    if len(sizes) > 1:
        described = [f"{_pixels(width)} x {_pixels(height)} ({source})" for (height, width), source in sizes.items()]
        raise MaskError(
            f"sizes disagree: {', '.join(first_few(described))}; was the image replaced after it was labelled?"
        )
    return checked_size(*next(iter(sizes)))


def check_size(region: Mapping[str, Any], size: Sequence[int]) -> None:
    """Refuse a region that was drawn on an image of another size, where its pixels would be others.

    Args:
        size: (height, width) of the image.

    Raises:
        MaskError: it holds pixels of an image of another size, or coordinates of the image lying on its side.
    """
    stated, (height, width) = stated_size(region), size
    if stated is None or stated == (height, width):
        return
    sizes = (
        f"it was drawn on an image of {_pixels(stated[1])} x {_pixels(stated[0])} pixels, "
        f"this one is {width} x {height}"
    )
    value = region.get("value")
    if isinstance(value, Mapping) and is_raster(value):
        raise MaskError(f"{sizes}; was the image replaced after it was labelled? Draw it again on this one")
    if _is_enlarged(stated, (width, height)) and not _is_enlarged(stated, (height, width)):
        raise MaskError(f"{sizes}, and lies on its side (EXIF orientation?): draw it again on this one")


def _is_enlarged(stated: tuple[float, float], size: tuple[int, int]) -> bool:
    """Whether a size has the proportions of another one, but for the pixel by which sides are rounded."""
    scale = max(stated) / max(size)
    return all(abs(side - own * scale) <= max(scale, 1) for side, own in zip(stated, size, strict=True))


def _pixels(side: float) -> str:
    return f"{side:.0f}"
