"""Adds to the text of a labelling configuration: colours for labels, and a control for query regions.

The tags and their places come from `config_xml`; all other characters stay as they are.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterator
from itertools import chain, cycle
from typing import Final
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from ml_backend.annotations.config_xml import Element, encoded, folded, read_elements
from ml_backend.annotations.label_map import parse_label_config
from ml_backend.errors import LabelConfigError, shown

# Sasha Trubetskoy's list of distinct colours, without those that cannot be seen on an image (white, black, greys).
_PALETTE = (
    *("#e6194b", "#3cb44b", "#4363d8", "#ffe119", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#469990"),
    *("#9a6324", "#800000", "#808000", "#000075", "#fabed4", "#dcbeff", "#aaffc3", "#ffd8b1", "#fffac8"),
)
_MAXIMUM_COLOURS: Final = 4_000
_GOLDEN_ANGLE = 0.3819660112501051  # of a full turn: hues stay far apart however many there are
_QUERY_LABEL = "Please label"
_QUERY_COLOURS = ("#ffe119", "#f032e6", "#42d4f4")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")


def labels_without_colours(xml: str) -> bool:
    """Whether any label has no `background` colour: Label Studio paints all such labels alike.

    Raises:
        LabelConfigError: malformed or hostile XML.
    """
    return any(element.tag == "label" and element.colour is None for element in read_elements(xml))


def with_palette(xml: str) -> str:
    """Return the configuration with a colour for every label.

    Labels of the same name get the same colour; the first 4,000 names get different colours; colours that are there
    stay. Comments, order, quoting and white space stay as they are.

    Raises:
        LabelConfigError: malformed or hostile XML.
    """
    labels = [element for element in read_elements(xml) if element.tag == "label"]
    colours = {folded(label.result_name): label.colour for label in labels if label.colour is not None}
    taken = {colour.lower() for colour in colours.values()}
    free = chain((colour for colour in _colours() if colour not in taken), cycle(_PALETTE))
    text, parts, copied = encoded(xml), [], 0
    for label in labels:
        if label.colour is None:
            name = folded(label.result_name)
            colour = colours.get(name) or colours.setdefault(name, next(free))
            start, end, added = _place_of_colour(text, label, colour)
            parts += [text[copied:start], added.encode()]
            copied = end
    return b"".join([*parts, text[copied:]]).decode("utf-8", "surrogatepass")


def label_colours(xml: str) -> dict[str, tuple[str, ...]]:
    """Return the colours that each label may be shown in: its own, if it has one, then a colour of the palette.

    Returns:
        Label as results spell it -> colours as they are written.

    Raises:
        LabelConfigError: malformed or hostile XML.
    """
    labels: dict[str, Element] = {}
    for element in read_elements(with_palette(xml)):
        if element.tag == "label" and element.result_name:
            labels.setdefault(element.result_name, element)
    own = {element.colour.lower() for element in labels.values() if element.colour is not None}
    free = (colour for colour in _colours() if colour not in own)
    return {
        name: (*((element.colour,) if element.colour is not None else ()), next(free))
        for name, element in labels.items()
    }


def with_query_control(xml: str, *, query_control: str = "query") -> str:
    """Return the configuration with a rectangle control for query regions as its last tag.

    Only the outline of the rectangles is drawn, so that the image stays visible, and they cannot be turned. All other
    text stays as it is. A configuration that has such a control is returned unchanged.

    Raises:
        LabelConfigError: malformed or hostile XML, no control that holds a mask, or another tag of that name.
    """
    label_map = parse_label_config(xml, query_control=query_control)
    if label_map.query_control is not None:
        return xml
    elements = read_elements(xml)
    if any(element.name == query_control for element in elements):
        raise LabelConfigError(
            f"the labelling configuration has a tag named {shown(query_control)} that is no RectangleLabels of the "
            f"image {shown(label_map.image_name)}: rename it, or choose another name with NEXTMASK_QUERY_CONTROL"
        )
    colours = {element.colour.lower() for element in elements if element.colour}
    free = (colour for colour in chain(_QUERY_COLOURS, _colours()) if colour not in colours)
    colour = next(free, _QUERY_COLOURS[0])
    name, image = (quoteattr(text) for text in (query_control, label_map.image_name))
    control = (
        f'<RectangleLabels name={name} toName={image} fillOpacity="0" opacity="0" strokeWidth="3" canRotate="false">'
        f'<Label value="{_QUERY_LABEL}" background="{colour}"/></RectangleLabels>'
    )
    text, end = encoded(xml), _end_of_root(xml)
    before = text[:end].rstrip(b" \t")
    indent = b"  " if before.endswith(b"\n") else b""
    parts = [before, indent, control.encode(), b"\n" if indent else b"", text[len(before) :]]
    return b"".join(parts).decode("utf-8", "surrogatepass")


def _place_of_colour(text: bytes, label: Element, colour: str) -> tuple[int, int, str]:
    """Return where the colour of a label goes: start and end of the bytes to replace, and their replacement."""
    position = label.name_end
    while attribute := _ATTRIBUTE.match(text, position):
        if attribute[1] == b"background":  # an empty one, which is replaced: XML refuses an attribute twice
            return *attribute.span(2), f'"{colour}"'
        position = attribute.end()
    return label.name_end, label.name_end, f' background="{colour}"'


def _end_of_root(xml: str) -> int:
    """Return the position of the byte at which the last closing tag begins."""
    parser, ends = expat.ParserCreate(encoding="utf-8"), [0]
    parser.EndElementHandler = lambda _tag: ends.append(parser.CurrentByteIndex)
    parser.Parse(encoded(xml), True)
    return ends[-1]


def _colours() -> Iterator[str]:
    """Yield distinct colours: a categorical palette, then hues by the golden angle; some thousands in all."""
    yield from _PALETTE
    seen = set(_PALETTE)
    for number in range(_MAXIMUM_COLOURS):
        lightness, saturation = (0.45, 0.62)[number % 2], (0.9, 0.65)[number // 2 % 2]
        red, green, blue = colorsys.hls_to_rgb(number * _GOLDEN_ANGLE % 1, lightness, saturation)
        colour = f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
        if colour not in seen:
            seen.add(colour)
            yield colour
