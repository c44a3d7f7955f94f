"""The colours that classes have in Label Studio, as a picture needs them."""

from __future__ import annotations

from functools import lru_cache

from ml_backend.annotations.config_edits import Colour, label_colours
from ml_backend.annotations.label_map import LabelMap

_UNPAINTED: Colour = (128, 128, 128)
"""Colour of a class without a label: an implicit background, which pictures leave transparent."""


@lru_cache(maxsize=64)
def class_colours(xml: str, label_map: LabelMap) -> tuple[Colour, ...]:
    """Return the colour of each class, by its index, in pictures, legends and curves alike.

    It is that of the control which predicted masks are written with: people see them beside each other in Label Studio.

    Args:
        xml: the labelling configuration that the label map was read from.
    """
    shown = label_colours(xml)

    def colour(index: int) -> Colour:
        writer = label_map.writer_of(index)
        for control in (*([writer] if writer else []), *label_map.controls):
            spelling = label_map.spelling(control, index)
            if spelling is not None:
                return shown[control.name, spelling]
        return _UNPAINTED

    return tuple(map(colour, range(len(label_map.classes))))


def hex_colour(colour: Colour) -> str:
    """Return a colour as web pages write it.

    >>> hex_colour((255, 0, 128))
    '#ff0080'
    """
    red, green, blue = colour
    return f"#{red:02x}{green:02x}{blue:02x}"
