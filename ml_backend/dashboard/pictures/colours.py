"""The colours that classes have in Label Studio, as a picture needs them."""

from __future__ import annotations

from functools import lru_cache

from PIL import ImageColor

from ml_backend.annotations.label_map import LabelMap, label_colours

Colour = tuple[int, int, int]

_UNPAINTED: Colour = (128, 128, 128)
"""Of a class that no label is of: an implicit background, which pictures leave transparent."""


@lru_cache(maxsize=64)
def class_colours(xml: str, label_map: LabelMap) -> tuple[Colour, ...]:
    """Return the colour (red, green, blue) of each class, by its index.

    Labels without a colour, or with one that is none, get those of the palette that `nextmask connect` gives.

    Args:
        xml: the labelling configuration that the label map was read from.
    """
    found: dict[int, Colour] = {}
    for name, texts in label_colours(xml).items():
        index = label_map.index_of(name)
        if index is not None:
            found.setdefault(index, next(colour for text in texts if (colour := _parsed(text)) is not None))
    return tuple(found.get(index, _UNPAINTED) for index in range(len(label_map.classes)))


def hex_colour(colour: Colour) -> str:
    """Return a colour as web pages write it.

    >>> hex_colour((255, 0, 128))
    '#ff0080'
    """
    red, green, blue = colour
    return f"#{red:02x}{green:02x}{blue:02x}"


def _parsed(text: str) -> Colour | None:
    """Read a colour as style sheets write it; None where it is none that is known."""
    try:
        red, green, blue = ImageColor.getrgb(text.strip())[:3]
    except ValueError:
        return None
    return red, green, blue
