"""Label Studio's labelling configuration (XML) -> LabelMap: controls, class order, image, controls of questions.

`config_xml` reads the tags; `config_edits` adds colours, a query control and a points control to the text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Final, Literal

from ml_backend.annotations.config_xml import Element, folded, mask_control, read_elements
from ml_backend.annotations.fields import labels_of
from ml_backend.errors import LabelConfigError, first_few, shown
from ml_backend.settings import Settings

IGNORE_INDEX: Final = 255
"""Value of mask pixels that belong to no class and are neither learned nor measured."""
BACKGROUND: Final = "background"
"""Name, in any case, of the class that unpainted pixels have unless they are ignored."""
POINTS_CONTROL: Final = "points"
"""Name of the KeyPointLabels whose points are labels: each says the class of the pixel under it."""
GEOMETRIES: Final = ("Brush", "Bitmask", "Polygon", "Ellipse", "Rectangle", "Vector")
"""Kinds of regions that are read as masks: `<BrushLabels>`, or `<Labels>` beside a bare `<Brush>`, and so on."""

READABLE: Final = {f"{geometry}Labels".lower(): f"{geometry}Labels" for geometry in GEOMETRIES} | {"labels": "Labels"}
"""Kinds of controls whose regions can be read: in lower case -> as they are written."""

_WRITABLE = ("BrushLabels", "BitmaskLabels", "PolygonLabels")
_QUERY_TAGS = ("rectanglelabels", "rectangle")
_KEY_POINTS = ("keypoint", "keypointlabels")
_BOXES = ("rectangle", "rectanglelabels", "ellipse", "ellipselabels")
_OUTLINING = tuple(
    f"{tool}{labels}" for tool in ("brush", "bitmask", "polygon", "vector", "magicwand") for labels in ("", "labels")
)
"""Tags with which the outline of a thing is drawn, or its pixels are painted."""
DRAWING: Final = frozenset((*_KEY_POINTS, *_BOXES, *_OUTLINING))
"""Tags of controls that draw on an image, in lower case."""


@dataclass(frozen=True)
class Control:
    """A labelling control whose regions are read as masks, or whose points are.

    Attributes:
        name: its name, `from_name` in results.
        to_name: name of the image it labels.
        tag: "BrushLabels", "BitmaskLabels", "PolygonLabels", "EllipseLabels", "RectangleLabels", "VectorLabels",
            "KeyPointLabels", or "Labels" when its regions are drawn with bare tools (`<Brush>`, …) beside it.
        labels: as results spell them: the alias of a label, or its value when it has no alias.
    """

    name: str
    to_name: str
    tag: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Tag:
    """A tag of the configuration that is none of its mask controls.

    Attributes:
        name: its name.
        kind: in lower case: "image", "keypointlabels", "choices", …
        is_smart: whether what is drawn with it is a prompt of a smart tool: it asks for a suggestion, and is no mask.
    """

    name: str
    kind: str
    is_smart: bool = False


@dataclass(frozen=True)
class LabelMap:
    """Translates between Label Studio results of a project and masks of class indices.

    Attributes:
        classes: index -> name. A background that the configuration does not have is `classes[0]`.
        unpainted_index: value of pixels outside all regions: a class index, or IGNORE_INDEX.
        controls: the controls whose regions are read, in the order of the configuration.
        image_name: name of the image tag, `to_name` in results.
        image_variable: key or path of the image's address in a task's data: "image", "page.url", "images[0]".
        query_control: name of the control for query rectangles, which are never read as masks; None without.
        query_label: label of query rectangles; empty for rectangles without labels, and without such a control.
        names: every spelling of a class, in lower case (values, aliases, `predicted_values`), with its index.
        tags: all other tags that have a name.
        points_control: the control whose points say the class of single pixels; None without. Its labels that are no
            class are left out.
    """

    classes: tuple[str, ...]
    unpainted_index: int
    controls: tuple[Control, ...]
    image_name: str
    image_variable: str
    query_control: str | None
    names: tuple[tuple[str, int], ...]
    query_label: str = ""
    tags: tuple[Tag, ...] = ()
    points_control: Control | None = None

    @cached_property
    def digest(self) -> str:
        """Hexadecimal digest that changes with anything that alters how masks are read or written."""
        fields = asdict(self)
        del fields["tags"]  # they say which regions are no masks, and nothing about those that are
        # Digests of models that were trained before there were such controls stay.
        if not self.query_label:
            del fields["query_label"]
        if self.points_control is None:
            del fields["points_control"]
        text = json.dumps(fields, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def training_digest(self) -> str:
        """The digest without the controls of questions, which change nothing that a network learns."""
        return replace(self, query_control=None, query_label="", points_control=None).digest

    @cached_property
    def _index(self) -> Mapping[str, int]:
        return dict(self.names)

    @property
    def smart_tools(self) -> tuple[str, ...]:
        """Names of the smart tools' controls: what is drawn with them asks for a suggestion."""
        return tuple(tag.name for tag in self.tags if tag.is_smart)

    def tag(self, name: object) -> Tag | None:
        """Return the tag of a name; None for mask controls, and where there is none of that name."""
        return next((tag for tag in self.tags if tag.name == name), None)

    def index_of(self, label: str) -> int | None:
        """Return the class index of a label in any spelling and case; None when there is no such class."""
        return self._index.get(folded(label))

    def class_of(self, region: Mapping[str, Any]) -> int | None:
        """Return the class index of the first known label of a region; None when no label of it is known."""
        indices = (self.index_of(label) for label in labels_of(region) if isinstance(label, str))
        return next((index for index in indices if index is not None), None)

    def writer_of(self, index: int) -> Control | None:
        """Return the first brush, bitmask or polygon control that has a class: predictions are written with it.

        Returns:
            None for the unpainted class, and for a class that only controls of other kinds have.
        """
        if index == self.unpainted_index:
            return None
        candidates = (control for control in self.controls if control.tag in _WRITABLE)
        return next((control for control in candidates if self.spelling(control, index) is not None), None)

    def spelling(self, control: Control, index: int) -> str | None:
        """Return a class as a control spells it, the only spelling that Label Studio accepts; None when it has none."""
        return next((label for label in control.labels if self.index_of(label) == index), None)

    def image_reference(self, data: Mapping[str, Any]) -> str | None:
        """Return the image's address in a task's data; None when it has none."""
        value: Any = data.get(self.image_variable)
        if value is None:
            value = data
            for key in _keys(self.image_variable):
                value = _entry(value, key)
        return value if isinstance(value, str) and value else None


def _keys(path: str) -> list[str]:
    """Return the steps of a path, as Label Studio's editor follows it."""
    return re.findall(r"[^.\[\]]+", path)


def _entry(value: object, key: str) -> Any:
    """Return what a step of a path leads to; None where there is nothing."""
    if isinstance(value, Mapping):
        return value.get(key)
    if isinstance(value, list) and key.isascii() and key.isdigit():
        return value[int(key)] if int(key) < len(value) else None
    return None


def label_map_of(xml: str, settings: Settings) -> LabelMap:
    """Read a labelling configuration with a project's settings. The last 64 results are cached.

    Args:
        xml: the project's `label_config`.

    Raises:
        LabelConfigError: see `parse_label_config`.
    """
    return _cached_label_map(xml, settings.unpainted, settings.query_control)


@lru_cache(maxsize=64)
def _cached_label_map(xml: str, unpainted: Literal["background", "ignore"], query_control: str) -> LabelMap:
    return parse_label_config(xml, unpainted=unpainted, query_control=query_control)


def parse_label_config(
    xml: str, *, unpainted: Literal["background", "ignore"] = "background", query_control: str = "query"
) -> LabelMap:
    """Read a labelling configuration.

    The first segmentation control decides the image; controls of other images are left out.

    Args:
        xml: the project's `label_config`.
        unpainted: "background": pixels outside all regions have the class of that name, which becomes class 0 when
            the configuration has none. "ignore": they are ignored.
        query_control: name of the rectangle control that marks query regions.

    Raises:
        LabelConfigError: malformed or hostile XML, no control that holds a mask, no image, or over 255 classes.
    """
    elements = read_elements(xml)
    controls = [element for element in elements if element.is_control and element.name != query_control]
    prompts = _prompts(controls)
    candidates = [element for element in controls if element.name not in prompts]
    images = {element.name: element for element in elements if element.tag == "image" and element.name}
    chosen, image_name = _chosen(candidates, images)
    if image_name is None:
        raise _no_control(elements, query_control)
    masking = tuple(_control(element, image_name) for element in chosen)
    classes, unpainted_index = _classes(masking, unpainted)
    query = next(
        (
            element
            for element in elements
            if element.tag in _QUERY_TAGS and element.name == query_control and image_name in element.targets
        ),
        None,
    )
    names = _names(classes, chosen)
    points = _points_control(controls, image_name, dict(names))
    used = {control.name for control in (*masking, *([points] if points else []))}
    return LabelMap(
        classes=classes,
        unpainted_index=unpainted_index,
        controls=masking,
        image_name=image_name,
        image_variable=_variable(images[image_name]),
        query_control=query_control if query else None,
        names=names,
        query_label=_first_label(query) if query else "",
        tags=tuple(
            Tag(element.name, element.tag, element.name in prompts and _is_smart(element))
            for element in elements
            if element.name and element.name not in used
        ),
        points_control=points,
    )


def is_points_control(element: Element, image_name: str) -> bool:
    """Whether a control has the name and kind of one whose points are labels, whatever its labels are."""
    is_named = element.tag == "keypointlabels" and element.name == POINTS_CONTROL
    return is_named and image_name in element.targets and not _is_smart(element)


def _points_control(controls: list[Element], image_name: str, names: Mapping[str, int]) -> Control | None:
    """The control whose points are labels: it has at least one label that is a class."""
    for element in controls:
        if is_points_control(element, image_name):
            labels = (label.result_name for label in element.labels)
            known = tuple(label for label in labels if folded(label) in names)
            return Control(element.name, image_name, "KeyPointLabels", known) if known else None
    return None


def _first_label(control: Element) -> str:
    return control.labels[0].result_name if control.labels else ""


def _prompts(controls: list[Element]) -> set[str]:
    """The names of controls whose regions are prompts of smart tools.

    Key points are no masks anyway. A box with `smart="true"` is a prompt where its image has a control that can hold
    the outline that the smart tool answers with; alone it is a mask, which is as much as can be drawn there.
    """
    outlined = {target for element in controls if element.tag in _OUTLINING for target in element.targets}
    return {
        element.name
        for element in controls
        if element.tag in _KEY_POINTS
        or (element.tag in _BOXES and _is_smart(element) and not outlined.isdisjoint(element.targets))
    }


def _is_smart(element: Element) -> bool:
    return any(key.lower() == "smart" and value.strip().lower() == "true" for key, value in element.attributes.items())


def _chosen(candidates: list[Element], images: Mapping[str, Element]) -> tuple[list[Element], str | None]:
    """The readable controls of the first image that has any, and the name of that image."""
    tools = {geometry.lower() for geometry in GEOMETRIES}
    drawn_on = {target for element in candidates if element.tag in tools for target in element.targets}
    image_name: str | None = None
    chosen: list[Element] = []
    for element in candidates:
        target = next((target for target in element.targets if target in images), None)
        has_tool = element.tag != "labels" or target in drawn_on
        readable = element.tag in READABLE and element.labels and has_tool
        if readable and target is not None and image_name in (None, target):
            image_name = target
            chosen.append(element)
    return chosen, image_name


def _control(element: Element, image_name: str) -> Control:
    labels = tuple(label.result_name for label in element.labels)
    return Control(element.name, image_name, READABLE[element.tag], labels)


def _no_control(elements: list[Element], query_control: str) -> LabelConfigError:
    images = [element for element in elements if element.tag == "image" and element.name]
    controls = [element for element in elements if element.is_control]
    if not images:
        others = [_named(element) for element in elements if element.name and not element.is_control]
        return LabelConfigError(
            f"the labelling configuration has no <Image>, and masks are learned of images; found: {_listed(others)}.",
            'Use one with <Image name="image" value="$image"/> and BrushLabels.',
        )
    if all(map(_is_repeated, images)):
        return _repeated()
    found = [_description(element, query_control) for element in controls]
    wanted = ", ".join(f"<{tag}>" for tag in READABLE.values() if tag != "Labels")
    labels = {folded(label.result_name): label for control in controls for label in control.labels}
    control = mask_control(labels.values(), images[0].name, elements)
    return LabelConfigError(
        f"the labelling configuration has no control that holds a segmentation mask; found: {_listed(found)}. "
        f"Wanted: {wanted} with <Label> tags inside and toName pointing to an <Image>; predictions need BrushLabels, "
        "BitmaskLabels or PolygonLabels.",
        f"Add, for example, before the last </View>: {control}",
    )


def _is_repeated(image: Element) -> bool:
    return "{{" in image.name + image.attributes.get("value", "")


def _repeated() -> LabelConfigError:
    return LabelConfigError(
        "the labelling configuration repeats its image (<Repeater>), and nextmask needs one image per task.",
        "Import each image as a task of its own, and leave the Repeater out.",
    )


def _listed(descriptions: list[str]) -> str:
    return ", ".join(first_few(descriptions)) or "none"


def _named(element: Element) -> str:
    return f"<{shown(element.tag)[1:-1]}> {shown(element.name)}"


def _description(element: Element, query_control: str) -> str:
    remark = ""
    if element.name == query_control:
        remark = ", set aside for queried regions"
    elif element.tag in READABLE and not element.labels:
        remark = ", without labels of its own"
        if element.is_dynamic:
            remark += f" (they come from each task: {shown(element.attributes['value'])[1:-1]})"
    return f"{_named(element)} for {shown(element.attributes['toName'])}{remark}"


def _variable(image: Element) -> str:
    if image.attributes.get("valueList"):
        raise LabelConfigError(
            f"image {shown(image.name)} shows several pages (valueList), and nextmask needs one image per task.",
            "Import each page as a task of its own, with value in place of valueList.",
        )
    if _is_repeated(image):
        raise _repeated()
    value = image.attributes.get("value", "").strip()
    variable = value[1:]
    if not value.startswith("$") or not _keys(variable) or any(sign in variable for sign in "$/:{ "):
        raise LabelConfigError(
            f"image {shown(image.name)} has value={shown(value)}; nextmask needs one variable of the task, such as "
            'value="$image"'
        )
    return variable


def _classes(controls: tuple[Control, ...], unpainted: str) -> tuple[tuple[str, ...], int]:
    """Class names in the order of the configuration, and the value of unpainted pixels."""
    labels = {folded(label): label for control in reversed(controls) for label in reversed(control.labels)}
    order = dict.fromkeys(folded(label) for control in controls for label in control.labels)
    classes = [labels[name] for name in order]
    unpainted_index = IGNORE_INDEX
    if unpainted == "background":
        if BACKGROUND not in order:
            classes.insert(0, BACKGROUND)
        unpainted_index = [folded(name) for name in classes].index(BACKGROUND)
    if len(classes) > IGNORE_INDEX:
        raise LabelConfigError(
            f"the labelling configuration has {len(classes)} classes; at most {IGNORE_INDEX} fit into a mask"
        )
    return tuple(classes), unpainted_index


def _names(classes: tuple[str, ...], controls: list[Element]) -> tuple[tuple[str, int], ...]:
    """Spellings with their class. The name of a class wins over an alias, value or `predicted_values` of another."""
    own = {folded(name): index for index, name in enumerate(classes)}
    names = dict(own)
    for label in (label for control in controls for label in control.labels):
        synonyms = [label.attributes.get("value", ""), *label.attributes.get("predicted_values", "").split(",")]
        for synonym in filter(None, map(folded, synonyms)):
            names.setdefault(synonym, own[folded(label.result_name)])
    return tuple(names.items())
