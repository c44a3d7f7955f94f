"""Adds to the text of a labelling configuration: colours and hotkeys of labels, controls for questions and smart tools.

The tags and their places come from `config_xml`; all other characters stay as they are.
"""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, cycle
from typing import Final, Literal
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from PIL import ImageColor

from ml_backend.annotations.config_xml import Element, encoded, folded, label_tags, read_elements
from ml_backend.annotations.label_map import DRAWING, POINTS_CONTROL, LabelMap, parse_label_config
from ml_backend.errors import LabelConfigError, shown

Colour = tuple[int, int, int]
"""Red, green, blue, each from 0 to 255."""

# Sasha Trubetskoy's list of distinct colours, without those that cannot be seen on an image (white, black, greys).
_PALETTE = (
    *("#e6194b", "#3cb44b", "#4363d8", "#ffe119", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#469990"),
    *("#9a6324", "#800000", "#808000", "#000075", "#fabed4", "#dcbeff", "#aaffc3", "#ffd8b1", "#fffac8"),
)
_APART = (190.0, 95.0, 1.0)
"""How different colours are to be from those in use, as `_distance` measures: the greatest that leaves any."""
_MAXIMUM_COLOURS: Final = 4_000
_GOLDEN_ANGLE = 0.3819660112501051  # of a full turn: hues stay far apart however many there are
_QUERY_LABEL = "Please label"
SMART_TOOLS: Final = (
    ("smart-click", "KeyPointLabels", ("keypoint", "keypointlabels")),
    ("smart-box", "RectangleLabels", ("rectangle", "rectanglelabels")),
)
"""Controls of smart tools: name, tag, and kinds of tags that do the same, in lower case."""
_SMART_ATTRIBUTES = {
    "KeyPointLabels": 'strokeWidth="4" opacity="1"',
    "RectangleLabels": 'fillOpacity="0" strokeWidth="2" canRotate="false"',
}
_QUERY_COLOURS = ("#ffe119", "#f032e6", "#42d4f4")
_KEYS = "1234567890qwetasdfgzxcvbyiopjklnm"
"""Hotkeys that the editor gives to labels and choices without one, in the order of the configuration."""
_WITH_KEYS = ("label", "choice", "rating")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")


def labels_without_colours(xml: str) -> bool:
    """Whether any label has no `background` colour: Label Studio paints all such labels alike.

    Raises:
        LabelConfigError: malformed or hostile XML.
    """
    return any(element.tag == "label" and element.colour is None for element in read_elements(xml))


def with_palette(xml: str) -> str:
    """Return the configuration with a colour for every label.

    Labels of the same name get the same colour; the first 4,000 names get different colours, which stand apart from
    those that are there; those stay. Comments, order, quoting and white space stay as they are.

    Raises:
        LabelConfigError: malformed or hostile XML.
    """
    labels = [element for element in read_elements(xml) if element.tag == "label"]
    colours = {folded(label.result_name): label.colour for label in labels if label.colour is not None}
    free = _free_colours(element.colour for element in read_elements(xml))
    text, parts, copied = encoded(xml), [], 0
    for label in labels:
        if label.colour is None:
            name = folded(label.result_name)
            colour = colours.get(name) or colours.setdefault(name, next(free))
            start, end, added = _place_of(text, label, "background", colour)
            parts += [text[copied:start], added.encode()]
            copied = end
    return b"".join([*parts, text[copied:]]).decode("utf-8", "surrogatepass")


def label_colours(xml: str) -> dict[tuple[str, str], Colour]:
    """Return the colour that each label is shown in: its own, or one of the palette where it has none that is valid.

    Returns:
        (name of the control, label as results spell it) -> colour.

    Raises:
        LabelConfigError: malformed or hostile XML.
    """
    elements = read_elements(with_palette(xml))
    free = _free_colours(element.colour for element in elements)
    return {
        (element.name, label.result_name): colour_of(label.colour or "") or colour_of(next(free)) or (0, 0, 0)
        for element in elements
        for label in element.labels
    }


def colour_of(text: str) -> Colour | None:
    """Read a colour as style sheets write it; None where it is not valid.

    >>> colour_of("#ff0080"), colour_of("Red"), colour_of("reddish")
    ((255, 0, 128), (255, 0, 0), None)
    """
    try:
        red, green, blue = ImageColor.getrgb(text.strip())[:3]
    except ValueError:
        return None
    return red, green, blue


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
    colour = next(_free_colours((element.colour for element in elements), first=_QUERY_COLOURS))
    name, image = (quoteattr(text) for text in (query_control, label_map.image_name))
    control = (
        f'<RectangleLabels name={name} toName={image} fillOpacity="0" opacity="0" strokeWidth="3" canRotate="false"'
        f' smart="false"><Label value="{_QUERY_LABEL}" background="{colour}"/></RectangleLabels>'
    )
    return _with_last_tag(xml, control)


def with_smart_tools(xml: str, label_map: LabelMap) -> str:
    """Return the configuration with controls of smart tools as its last tags: one for clicks, one for boxes.

    Each has a label of every class that a suggestion can be written in, in the colour of the mask's label and without
    its hotkey: Label Studio takes the ordinary tool of a control whose label is chosen while another control's tool is
    active, so that one key for both would end the smart tool. Other controls get smart="false", unless they say which:
    Label Studio gives each a smart tool otherwise, such as a smart brush, whose strokes ask for nothing. All other text
    stays as it is. A configuration that has a smart tool of a kind keeps that one.

    Args:
        label_map: of that configuration.

    Raises:
        LabelConfigError: no control that a mask can be written with, or another tag of a control's name.
    """
    elements = read_elements(with_palette(xml))
    labels = {
        index: label for index, label in _labels_of_classes(elements, label_map).items() if label_map.writer_of(index)
    }
    if not labels:
        raise LabelConfigError(
            "a smart tool answers with a mask, and the labelling configuration has no control that one can be written "
            "with.",
            "Add BrushLabels, BitmaskLabels or PolygonLabels with the labels of the classes.",
        )
    there = {tag.kind for tag in label_map.tags if tag.is_smart}
    if all(not there.isdisjoint(kinds) for *_, kinds in SMART_TOOLS):
        return xml
    xml = _without_other_smart_tools(xml, label_map.image_name)
    tags = label_tags(labels.values(), keys=("value", "alias", "background"))
    for name, control, kinds in SMART_TOOLS:
        if not there.isdisjoint(kinds):
            continue
        if any(element.name == name for element in elements):
            raise LabelConfigError(
                f'the labelling configuration has a tag named {shown(name)} that is no {control} with smart="true": '
                "rename it"
            )
        start = f"<{control} name={quoteattr(name)} toName={quoteattr(label_map.image_name)}"
        more = _SMART_ATTRIBUTES[control]
        xml = _with_last_tag(xml, f'{start} smart="true" smartOnly="true" {more}>{tags}</{control}>')
    return xml


def _without_other_smart_tools(xml: str, image_name: str) -> str:
    """Return the configuration with smart="false" in each control of the image that does not say which."""
    text, parts, copied = encoded(xml), list[bytes](), 0
    for element in read_elements(xml):
        says = any(key.lower() in ("smart", "smartonly") for key in element.attributes)
        if element.is_control and element.tag in DRAWING and image_name in element.targets and not says:
            parts += [text[copied : element.name_end], b' smart="false"']
            copied = element.name_end
    return b"".join([*parts, text[copied:]]).decode("utf-8", "surrogatepass")


def _with_last_tag(xml: str, tag: str) -> str:
    """Return the configuration with another tag before its last closing one, on a line of its own where those are."""
    text, end = encoded(xml), _end_of_root(xml)
    before = text[:end].rstrip(b" \t")
    indent = b"  " if before.endswith(b"\n") else b""
    parts = [before, indent, tag.encode("utf-8", "surrogatepass"), b"\n" if indent else b"", text[len(before) :]]
    return b"".join(parts).decode("utf-8", "surrogatepass")


def with_points_control(xml: str, *, unpainted: Literal["background", "ignore"] = "background") -> str:
    """Return the configuration with a KeyPointLabels control for points, which has a label of each class.

    Labels have the colours and hotkeys of the mask controls' ones. Of labels with one hotkey in two controls the editor
    takes both, and the tool of the last of them: so the control stands before those of masks, whose tool annotators
    still get by a hotkey. Where a mask control's label has no hotkey, both get the one that the editor would give it.
    All other text stays as it is. A configuration that has such a control is returned unchanged.

    Raises:
        LabelConfigError: malformed or hostile XML, no control that holds a mask, or another tag of that name.
    """
    label_map = parse_label_config(xml, unpainted=unpainted)
    if label_map.points_control is not None:
        return xml
    if any(element.name == POINTS_CONTROL for element in read_elements(xml)):
        raise LabelConfigError(
            f"the labelling configuration has a tag named {shown(POINTS_CONTROL)} that is no KeyPointLabels of the "
            f"image {shown(label_map.image_name)} with labels of the mask: rename it"
        )
    xml = _with_hotkeys(xml, label_map)
    elements = read_elements(xml)
    labels = label_tags(_labels_of_classes(elements, label_map).values())
    if label_map.unpainted_index < len(label_map.classes) and not _has_label(label_map, label_map.unpainted_index):
        colour = next(_free_colours(element.colour for element in elements))
        labels += (
            f"<Label value={quoteattr(label_map.classes[label_map.unpainted_index])} background={quoteattr(colour)}/>"
        )
    name, image = (quoteattr(text) for text in (POINTS_CONTROL, label_map.image_name))
    attributes = f'name={name} toName={image} strokeWidth="3" opacity="1" smart="false"'
    control = f"<KeyPointLabels {attributes}>{labels}</KeyPointLabels>"
    text = encoded(xml)
    mask = label_map.controls[0]
    first = next(element for element in elements if (element.name, element.tag) == (mask.name, mask.tag.lower()))
    start = text.rindex(b"<", 0, first.name_end)
    indent = text[len(text[:start].rstrip()) : start]
    return (text[:start] + control.encode("utf-8", "surrogatepass") + indent + text[start:]).decode(
        "utf-8", "surrogatepass"
    )


def _has_label(label_map: LabelMap, index: int) -> bool:
    return any(label_map.spelling(control, index) is not None for control in label_map.controls)


def _labels_of_classes(elements: Iterable[Element], label_map: LabelMap) -> dict[int, Element]:
    """Return the first label of each class in the controls of masks, in the order of the configuration."""
    names, labels = {control.name for control in label_map.controls}, dict[int, Element]()
    for label in (label for element in elements if element.name in names for label in element.labels):
        if (index := label_map.index_of(label.result_name)) is not None:
            labels.setdefault(index, label)
    return labels


def _with_hotkeys(xml: str, label_map: LabelMap) -> str:
    """Give the labels of classes the hotkeys that the editor gives them while there is no other control."""
    elements = read_elements(xml)
    used = {element.attributes.get("hotkey", "").lower() for element in elements}
    free = (key for key in _KEYS if key not in used)
    ours = {label.name_end for label in _labels_of_classes(elements, label_map).values()}
    text, parts, copied = encoded(xml), list[bytes](), 0
    without = [one for one in elements if one.tag in _WITH_KEYS and not one.attributes.get("hotkey")]
    for element, key in zip(without, free, strict=False):
        if element.name_end in ours:
            start, end, added = _place_of(text, element, "hotkey", key)
            parts += [text[copied:start], added.encode()]
            copied = end
    return b"".join([*parts, text[copied:]]).decode("utf-8", "surrogatepass")


def _place_of(text: bytes, label: Element, name: str, value: str) -> tuple[int, int, str]:
    """Return where an attribute of a label goes: start and end of the bytes to replace, and their replacement."""
    position = label.name_end
    while attribute := _ATTRIBUTE.match(text, position):
        if attribute[1] == name.encode():  # an empty one, which is replaced: XML refuses an attribute twice
            return *attribute.span(2), f'"{value}"'
        position = attribute.end()
    return label.name_end, label.name_end, f' {name}="{value}"'


def _end_of_root(xml: str) -> int:
    """Return the position of the byte at which the last closing tag begins."""
    parser, ends = expat.ParserCreate(encoding="utf-8"), [0]
    parser.EndElementHandler = lambda _tag: ends.append(parser.CurrentByteIndex)
    parser.Parse(encoded(xml), True)
    return ends[-1]


def _free_colours(used: Iterable[str | None], first: Sequence[str] = ()) -> Iterator[str]:
    """Yield colours without end, in the order of the palette: those that stand apart from colours in use come first.

    Args:
        used: colours as they are written; None and what is no colour are left out.
        first: colours to try before those of the palette.
    """
    taken = {colour for text in used if text and (colour := colour_of(text)) is not None}
    given: set[str] = set()
    for apart in _APART:
        for text in chain(first, _colours()):
            colour = colour_of(text) or (0, 0, 0)
            if text not in given and all(_distance(colour, other) >= apart for other in taken):
                given.add(text)
                yield text
    yield from cycle(_PALETTE)


def _distance(one: Colour, other: Colour) -> float:
    """Return how different two colours look, from 0 to about 765: RGB weighted by how well eyes tell the channels."""
    red, green, blue = (a - b for a, b in zip(one, other, strict=True))
    mean_red = (one[0] + other[0]) / 2
    return math.sqrt((2 + mean_red / 256) * red**2 + 4 * green**2 + (2 + (255 - mean_red) / 256) * blue**2)


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
