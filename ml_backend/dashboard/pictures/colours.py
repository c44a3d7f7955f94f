"""The colours that classes have in Label Studio, as a picture needs them."""

from __future__ import annotations

from functools import lru_cache

from PIL import ImageColor

from ml_backend.annotations.config_edits import label_colours
from ml_backend.annotations.label_map import LabelMap

Colour = tuple[int, int, int]

_UNPAINTED: Colour = (128, 128, 128)
"""Colour of a class without a label: an implicit background, which pictures leave transparent."""


@lru_cache(maxsize=64)
def class_colours(xml: str, label_map: LabelMap) -> tuple[Colour, ...]:
    """Return the colour (red, green, blue) of each class, by its index.

    Labels without a valid colour get those of the palette that `nextmask connect` gives.

    Args:
        xml: the labelling configuration that the label map was read from.
    """
    colours: dict[int, Colour] = {}
    for name, texts in label_colours(xml).items():
        index = label_map.index_of(name)
        if index is not None:
            colours.setdefault(index, next(colour for text in texts if (colour := _parsed(text)) is not None))
    return tuple(colours.get(index, _UNPAINTED) for index in range(len(label_map.classes)))


def hex_colour(colour: Colour) -> str:
    """Return a colour as web pages write it.

    >>> hex_colour((255, 0, 128))
    '#ff0080'
    """
    red, green, blue = colour
    return f"#{red:02x}{green:02x}{blue:02x}"


def _parsed(text: str) -> Colour | None:
    """Read a colour as style sheets write it; None where it is not valid."""
    try:
        red, green, blue = ImageColor.getrgb(text.strip())[:3]
    except ValueError:
        return None
    return red, green, blue
