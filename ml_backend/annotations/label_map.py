"""Label Studio's labelling configuration (XML) -> LabelMap: controls, class order, image, query control.

The XML is read with expat directly and not with the SDK's LabelInterface: that takes half a second to import,
which `/setup` does not have, and expands entities. Here a document type declaration, the only place where
entities can be declared, ends the parse at once. Expat also tells the byte at which each tag begins, so that
`with_palette` and `with_query_control` add to the text itself and leave every other character alone.
"""

from __future__ import annotations

import colorsys
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain, cycle
from typing import Any, Final, Literal
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from ml_backend.errors import LabelConfigError, few, shown

IGNORE_INDEX: Final = 255
BACKGROUND: Final = "background"
GEOMETRIES: Final = ("Brush", "Bitmask", "Polygon", "Ellipse", "Rectangle", "Vector")
"""Kinds of regions that are read as masks: `<BrushLabels>`, or `<Labels>` beside a bare `<Brush>`, and so on."""

_READABLE = {f"{geometry}Labels".lower(): f"{geometry}Labels" for geometry in GEOMETRIES} | {"labels": "Labels"}
_WRITABLE = ("BrushLabels", "BitmaskLabels", "PolygonLabels")
_QUERY_TAGS = ("rectanglelabels", "rectangle")

# Sasha Trubetskoy's list of distinct colours without the ones that vanish on an image (white, black, greys).
_PALETTE = (
    *("#e6194b", "#3cb44b", "#4363d8", "#ffe119", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#469990"),
    *("#9a6324", "#800000", "#808000", "#000075", "#fabed4", "#dcbeff", "#aaffc3", "#ffd8b1", "#fffac8"),
)
_QUERY_LABEL = "Please label"
_QUERY_COLOURS = ("#ffe119", "#f032e6", "#42d4f4")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")
_MOST_COLOURS: Final = 4_000
_GOLDEN_ANGLE = 0.3819660112501051  # of a full turn: hues stay far apart however many there are


@dataclass(frozen=True)
class Control:
    """A labelling control whose regions are read as masks.

    Attributes:
        name: its name, `from_name` in results.
        to_name: name of the image it labels.
        tag: "BrushLabels", "BitmaskLabels", "PolygonLabels", "EllipseLabels", "RectangleLabels", "VectorLabels", or
            "Labels" when its regions are drawn with bare tools (`<Brush>`, `<Polygon>`, …) beside it.
        labels: as results spell them: a label's alias if it has one, else its value.
    """

    name: str
    to_name: str
    tag: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class LabelMap:
    """How results of one project and masks of class indices translate into each other.

    Attributes:
        classes: index -> name; an implicit background is `classes[0]`.
        unpainted_index: value of pixels that no region covers: a class index, or IGNORE_INDEX.
        controls: the controls of the image that are read, in the order of the configuration.
        image_name: name of the image tag, `to_name` in results.
        image_variable: where the image's address is in a task's data, such as "image" or "page.url".
        query_control: name of the rectangles that mark queried regions, never read as masks; None without.
        query_label: the label that those carry; empty for bare rectangles, and without such a control.
        names: every spelling of a class, in lower case (values, aliases, `predicted_values`), with its index.
    """

    classes: tuple[str, ...]
    unpainted_index: int
    controls: tuple[Control, ...]
    image_name: str
    image_variable: str
    query_control: str | None
    names: tuple[tuple[str, int], ...]
    query_label: str = ""

    @cached_property
    def digest(self) -> str:
        """Hexadecimal digest that changes with anything that alters how masks are read or written."""
        fields = asdict(self)
        if not self.query_label:
            del fields["query_label"]  # digests of models that were trained before there were such labels stay
        text = json.dumps(fields, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def training_digest(self) -> str:
        """The digest without the query control: a network learns the same with and without one."""
        return replace(self, query_control=None, query_label="").digest

    @cached_property
    def _index(self) -> Mapping[str, int]:
        return dict(self.names)

    def index_of(self, label: str) -> int | None:
        """Class index of a label in any spelling, whatever its case; None when there is no such class."""
        return self._index.get(_folded(label))

    def writer_of(self, index: int) -> Control | None:
        """Control that predictions of a class are written with: the first brush, bitmask or polygon control with it.

        None for the unpainted class and for classes that only other controls have.
        """
        if index == self.unpainted_index:
            return None
        candidates = (control for control in self.controls if control.tag in _WRITABLE)
        return next((control for control in candidates if self.spelling(control, index) is not None), None)

    def spelling(self, control: Control, index: int) -> str | None:
        """The label by which a control knows a class: Label Studio refuses a prediction that spells it otherwise."""
        return next((label for label in control.labels if self.index_of(label) == index), None)

    def image_reference(self, data: Mapping[str, Any]) -> str | None:
        """The image's address in a task's data; None when the task has none."""
        value: Any = data.get(self.image_variable)
        if value is None:
            value = data
            for key in self.image_variable.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
        return value if isinstance(value, str) and value else None


def parse_label_config(
    xml: str, *, unpainted: Literal["background", "ignore"] = "background", query_control: str = "query"
) -> LabelMap:
    """Read a labelling configuration.

    The image is the one that the first segmentation control points to; controls of other images are left out.

    Args:
        xml: the project's `label_config`.
        unpainted: what pixels outside all regions are: the class called "background" (whatever its case), which
            becomes class 0 when the configuration has none, or ignored.
        query_control: name of the rectangle control that marks queried regions.

    Raises:
        LabelConfigError: malformed or hostile XML, no control that holds a mask, no image, too many classes.
    """
    elements = _elements(xml)
    candidates = [element for element in elements if element.is_control and element.name != query_control]
    images = {element.name: element for element in elements if element.tag == "image" and element.name}
    chosen, image_name = _chosen(candidates, images)
    if image_name is None:
        raise LabelConfigError(_nothing_found(elements, query_control))
    controls = tuple(_control(element, image_name) for element in chosen)
    classes, unpainted_index = _classes(controls, unpainted)
    query = next(
        (
            element
            for element in elements
            if element.tag in _QUERY_TAGS and element.name == query_control and image_name in element.targets
        ),
        None,
    )
    return LabelMap(
        classes=classes,
        unpainted_index=unpainted_index,
        controls=controls,
        image_name=image_name,
        image_variable=_variable(images[image_name]),
        query_control=query_control if query else None,
        names=_names(classes, chosen),
        query_label=_first_label(query) if query else "",
    )


def labels_without_colours(xml: str) -> bool:
    """Whether a label has no `background` colour: Label Studio paints all of those alike."""
    return any(element.tag == "label" and element.colour is None for element in _elements(xml))


def with_palette(xml: str) -> str:
    """The same configuration in which every label has a colour.

    Labels of one name get one colour, no colour is used for two names (of the first thousands), and one that is there
    stays. Nothing else is touched: comments, order, quoting and white space stay as they are.

    Raises:
        LabelConfigError: malformed or hostile XML.
    """
    labels = [element for element in _elements(xml) if element.tag == "label"]
    colours = {_folded(label.result_name): label.colour for label in labels if label.colour is not None}
    taken = {colour.lower() for colour in colours.values()}
    free = chain((colour for colour in _colours() if colour not in taken), cycle(_PALETTE))
    text, parts, copied = _encoded(xml), [], 0
    for label in labels:
        if label.colour is None:
            name = _folded(label.result_name)
            colour = colours.get(name) or colours.setdefault(name, next(free))
            start, end, added = _place_of_colour(text, label, colour)
            parts += [text[copied:start], added.encode()]
            copied = end
    return b"".join([*parts, text[copied:]]).decode("utf-8", "surrogatepass")


def label_colours(xml: str) -> dict[str, tuple[str, ...]]:
    """Labels, as results spell them, with the colours that they may be shown in: their own, if any, then a palette's.

    Raises:
        LabelConfigError: malformed or hostile XML.
    """
    labels: dict[str, _Element] = {}
    for element in _elements(with_palette(xml)):
        if element.tag == "label" and element.result_name:
            labels.setdefault(element.result_name, element)
    own = {element.colour.lower() for element in labels.values() if element.colour is not None}
    free = (colour for colour in _colours() if colour not in own)
    return {
        name: (*((element.colour,) if element.colour is not None else ()), next(free))
        for name, element in labels.items()
    }


def with_query_control(xml: str, *, query_control: str = "query") -> str:
    """The same configuration with a control for the rectangles that mark queried regions, as its last one.

    Their outline is drawn and nothing else, so that the image stays to be seen; they cannot be turned. Nothing else is
    touched, and neither is a configuration that has such a control.

    Raises:
        LabelConfigError: malformed or hostile XML, no control that holds a mask, or a control of that name that holds
            no rectangles.
    """
    label_map = parse_label_config(xml, query_control=query_control)
    if label_map.query_control is not None:
        return xml
    elements = _elements(xml)
    if any(element.name == query_control for element in elements):
        raise LabelConfigError(
            f"the labelling configuration has a tag named {shown(query_control)} that is no RectangleLabels of the "
            f"image {shown(label_map.image_name)}: rename it, or choose another name with NEXTMASK_QUERY_CONTROL"
        )
    colours = {element.colour.lower() for element in elements if element.colour}
    colour = next((one for one in chain(_QUERY_COLOURS, _colours()) if one not in colours), _QUERY_COLOURS[0])
    name, image = (quoteattr(text) for text in (query_control, label_map.image_name))
    control = (
        f'<RectangleLabels name={name} toName={image} fillOpacity="0" opacity="0" strokeWidth="3" canRotate="false">'
        f'<Label value="{_QUERY_LABEL}" background="{colour}"/></RectangleLabels>'
    )
    text, end = _encoded(xml), _end_of_root(xml)
    before = text[:end].rstrip(b" \t")
    indent = b"  " if before.endswith(b"\n") else b""
    parts = [before, indent, control.encode(), b"\n" if indent else b"", text[len(before) :]]
    return b"".join(parts).decode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class _Element:
    """One tag of the configuration, with the labels below it if it is a control."""

    tag: str  # in lower case: Label Studio's editor ignores the case of tags
    attributes: Mapping[str, str]
    name_end: int  # byte after the tag's name
    labels: list[_Element]

    @property
    def name(self) -> str:
        return self.attributes.get("name", "")

    @property
    def targets(self) -> list[str]:
        return [target.strip() for target in self.attributes.get("toName", "").split(",") if target.strip()]

    @property
    def is_control(self) -> bool:
        return bool(self.name and self.targets)

    @property
    def result_name(self) -> str:
        return self.attributes.get("alias") or self.attributes.get("value") or ""

    @property
    def colour(self) -> str | None:
        return next((value for key, value in self.attributes.items() if key.lower() == "background" and value), None)


def _encoded(xml: str) -> bytes:
    return xml.encode("utf-8", "surrogatepass")  # expat refuses lone surrogates, with the place where they are


def _elements(xml: str) -> list[_Element]:
    """All tags in document order; labels are also listed with the nearest control around them."""
    found: list[_Element] = []
    controls: list[_Element | None] = [None]  # the nearest control around the current tag, per level
    parser = expat.ParserCreate(encoding="utf-8")  # a str is decoded already, whatever its declaration says

    def start(tag: str, attributes: dict[str, str]) -> None:
        name_end = parser.CurrentByteIndex + 1 + len(_encoded(tag))
        element = _Element(tag.lower(), attributes, name_end, [])
        found.append(element)
        around = controls[-1]
        if element.tag == "label" and element.result_name and around is not None:
            around.labels.append(element)
        controls.append(element if element.is_control else around)

    def end(_tag: str) -> None:
        controls.pop()

    def refuse(*_declaration: object) -> None:
        raise LabelConfigError("the labelling configuration has a document type declaration (<!DOCTYPE …>): remove it")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(_encoded(xml), True)
    except expat.ExpatError as error:
        raise LabelConfigError(f"the labelling configuration is not valid XML: {error}") from error
    return found


def _place_of_colour(text: bytes, label: _Element, colour: str) -> tuple[int, int, str]:
    """Return the bytes of a label's tag that give way to its colour, from and to, and what takes their place."""
    position = label.name_end
    while found := _ATTRIBUTE.match(text, position):
        if found[1] == b"background":  # it is there, and empty: an attribute may not be there twice
            return *found.span(2), f'"{colour}"'
        position = found.end()
    return label.name_end, label.name_end, f' background="{colour}"'


def _end_of_root(xml: str) -> int:
    """The byte at which the last closing tag begins."""
    parser, ends = expat.ParserCreate(encoding="utf-8"), [0]
    parser.EndElementHandler = lambda _tag: ends.append(parser.CurrentByteIndex)
    parser.Parse(_encoded(xml), True)
    return ends[-1]


def _first_label(control: _Element) -> str:
    return control.labels[0].result_name if control.labels else ""


def _chosen(candidates: list[_Element], images: Mapping[str, _Element]) -> tuple[list[_Element], str | None]:
    """The readable controls of the first image that has one, and that image's name."""
    tools = {geometry.lower() for geometry in GEOMETRIES}
    drawn_on = {target for element in candidates if element.tag in tools for target in element.targets}
    image_name: str | None = None
    chosen: list[_Element] = []
    for element in candidates:
        target = next((target for target in element.targets if target in images), None)
        has_tool = element.tag != "labels" or target in drawn_on
        readable = element.tag in _READABLE and element.labels and has_tool
        if readable and target is not None and image_name in (None, target):
            image_name = target
            chosen.append(element)
    return chosen, image_name


def _control(element: _Element, image_name: str) -> Control:
    labels = tuple(label.result_name for label in element.labels)
    return Control(element.name, image_name, _READABLE[element.tag], labels)


def _nothing_found(elements: list[_Element], query_control: str) -> str:
    found = [_description(element, query_control) for element in elements if element.is_control]
    wanted = ", ".join(f"<{tag}>" for tag in _READABLE.values() if tag != "Labels")
    return (
        "the labelling configuration has no control that holds a segmentation mask; "
        f"found: {', '.join(few(found)) or 'none'}. Wanted: {wanted} with <Label> tags inside "
        "and toName pointing to an <Image>; predictions need BrushLabels, BitmaskLabels or PolygonLabels"
    )


def _description(element: _Element, query_control: str) -> str:
    remark = ""
    if element.name == query_control:
        remark = ", set aside for queried regions"
    elif element.tag in _READABLE and not element.labels:
        remark = ", without labels of its own"
    return f"<{shown(element.tag)[1:-1]}> {shown(element.name)} for {shown(element.attributes['toName'])}{remark}"


def _variable(image: _Element) -> str:
    if image.attributes.get("valueList"):
        raise LabelConfigError(
            f"image {shown(image.name)} shows several pages (valueList); nextmask needs one image per task: use value"
        )
    value = image.attributes.get("value", "").strip()
    variable = value[1:]
    if not value.startswith("$") or not variable or any(sign in variable for sign in "$/: "):
        raise LabelConfigError(
            f"image {shown(image.name)} has value={shown(value)}; nextmask needs one variable of the task, such as "
            'value="$image"'
        )
    return variable


def _classes(controls: tuple[Control, ...], unpainted: str) -> tuple[tuple[str, ...], int]:
    """Class names in the order of the configuration, and what unpainted pixels are."""
    labels = {_folded(label): label for control in reversed(controls) for label in reversed(control.labels)}
    order = dict.fromkeys(_folded(label) for control in controls for label in control.labels)
    classes = [labels[name] for name in order]
    unpainted_index = IGNORE_INDEX
    if unpainted == "background":
        if BACKGROUND not in order:
            classes.insert(0, BACKGROUND)
        unpainted_index = [_folded(name) for name in classes].index(BACKGROUND)
    if len(classes) > IGNORE_INDEX:
        raise LabelConfigError(
            f"the labelling configuration has {len(classes)} classes; at most {IGNORE_INDEX} fit into a mask"
        )
    return tuple(classes), unpainted_index


def _names(classes: tuple[str, ...], controls: list[_Element]) -> tuple[tuple[str, int], ...]:
    """Spellings with their class; a class's own name wins over another's alias, value or `predicted_values`."""
    own = {_folded(name): index for index, name in enumerate(classes)}
    names = dict(own)
    for label in (label for control in controls for label in control.labels):
        synonyms = [label.attributes.get("value", ""), *label.attributes.get("predicted_values", "").split(",")]
        for synonym in filter(None, map(_folded, synonyms)):
            names.setdefault(synonym, own[_folded(label.result_name)])
    return tuple(names.items())


def _folded(label: str) -> str:
    return label.strip().casefold()


def _colours() -> Iterator[str]:
    """Distinct colours: a categorical palette, then hues by the golden angle; some thousands, and then no more."""
    yield from _PALETTE
    seen = set(_PALETTE)
    for number in range(_MOST_COLOURS):
        lightness, saturation = (0.45, 0.62)[number % 2], (0.9, 0.65)[number // 2 % 2]
        red, green, blue = colorsys.hls_to_rgb(number * _GOLDEN_ANGLE % 1, lightness, saturation)
        colour = f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
        if colour not in seen:
            seen.add(colour)
            yield colour
