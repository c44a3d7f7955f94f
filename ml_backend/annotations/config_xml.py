"""Reads the tags of a labelling configuration from its XML.

Expat is used directly and not the SDK's LabelInterface: that takes half a second to import, which `/setup` does not
have, and expands entities. Here a document type declaration, the only place where entities can be declared, ends the
parse. Expat also tells the byte at which each tag begins, so that `config_edits` can add text and leave every other
character alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from ml_backend.errors import LabelConfigError


@dataclass(frozen=True)
class Element:
    """A tag of the configuration.

    Attributes:
        tag: its kind in lower case, since Label Studio's editor ignores the case of tags.
        attributes: name -> value, names as they are written.
        name_end: position, in the UTF-8 text, of the byte after the kind.
        labels: the `<Label>` tags inside it, if it is a control.
    """

    tag: str
    attributes: Mapping[str, str]
    name_end: int
    labels: list[Element]

    @property
    def name(self) -> str:
        """The attribute `name`; empty when it is missing."""
        return self.attributes.get("name", "")

    @property
    def targets(self) -> list[str]:
        """Names of the tags that it labels: the entries of `toName`."""
        return [target.strip() for target in self.attributes.get("toName", "").split(",") if target.strip()]

    @property
    def is_control(self) -> bool:
        """Whether it labels another tag."""
        return bool(self.name and self.targets)

    @property
    def is_dynamic(self) -> bool:
        """Whether it is a control that takes labels from each task: `value="$labels"`."""
        return self.is_control and self.attributes.get("value", "").strip().startswith("$")

    @property
    def result_name(self) -> str:
        """This label as results spell it: its alias, or its value when it has no alias."""
        return self.attributes.get("alias") or self.attributes.get("value") or ""

    @property
    def colour(self) -> str | None:
        """Colour of this label as it is written; None when it has none."""
        return next((value for key, value in self.attributes.items() if key.lower() == "background" and value), None)


def encoded(xml: str) -> bytes:
    """Return the configuration as UTF-8; `Element.name_end` is a position in it."""
    return xml.encode("utf-8", "surrogatepass")  # expat refuses lone surrogates, with the place where they are


def read_elements(xml: str) -> list[Element]:
    """Return all tags in document order; a label is also listed in the nearest control around it.

    Raises:
        LabelConfigError: the XML is malformed, or has a document type declaration.
    """
    elements: list[Element] = []
    controls: list[Element | None] = [None]  # the nearest control around the current tag, per level
    parser = expat.ParserCreate(encoding="utf-8")  # a str is decoded already, whatever its declaration says

    def start(tag: str, attributes: dict[str, str]) -> None:
        name_end = parser.CurrentByteIndex + 1 + len(encoded(tag))
        element = Element(tag.lower(), attributes, name_end, [])
        elements.append(element)
        control = controls[-1]
        if element.tag == "label" and element.result_name and control is not None:
            control.labels.append(element)
        controls.append(element if element.is_control else control)

    def end(_tag: str) -> None:
        controls.pop()

    def refuse(*_declaration: object) -> None:
        raise LabelConfigError("the labelling configuration has a document type declaration (<!DOCTYPE …>): remove it")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(encoded(xml), True)
    except expat.ExpatError as error:
        raise LabelConfigError(f"the labelling configuration is not valid XML: {error}") from error
    return elements


def mask_control(labels: Iterable[Element], image_name: str, elements: Iterable[Element]) -> str:
    """Return the text of a control that predicted masks can be written with, for people to paste.

    Args:
        labels: that it is to have; without any, one that is to be renamed.
        image_name: `toName` of the control.
        elements: all tags of the configuration; the control's name is none of theirs.
    """
    taken = {element.name for element in elements}
    name = next(name for number in count(1) if (name := "mask" if number == 1 else f"mask{number}") not in taken)
    tags = label_tags(labels) or '<Label value="object"/>'
    return f"<BrushLabels name={quoteattr(name)} toName={quoteattr(image_name)}>{tags}</BrushLabels>"


def label_tags(labels: Iterable[Element], keys: tuple[str, ...] = ("value", "alias", "background", "hotkey")) -> str:
    """Return the text of labels like those, for another control.

    Args:
        keys: the attributes that are the same: name, colour and hotkey.
    """
    spelt = (
        "".join(f" {key}={quoteattr(label.attributes[key])}" for key in keys if label.attributes.get(key))
        for label in labels
    )
    return "".join(f"<Label{text}/>" for text in spelt)


def folded(label: str) -> str:
    """Return a label without surrounding space and case: labels are compared in this form."""
    return label.strip().casefold()
