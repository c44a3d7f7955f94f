"""The tags of a labelling configuration, read from its XML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.parsers import expat

from ml_backend.errors import LabelConfigError


@dataclass(frozen=True)
class Element:
    """One tag of the configuration, with the labels below it if it is a control."""

    tag: str  # in lower case: Label Studio's editor ignores the case of tags
    attributes: Mapping[str, str]
    name_end: int  # byte after the tag's name
    labels: list[Element]

    @property
    def name(self) -> str:
        """Its name; empty where it has none."""
        return self.attributes.get("name", "")

    @property
    def targets(self) -> list[str]:
        """Names of the tags that it labels."""
        return [target.strip() for target in self.attributes.get("toName", "").split(",") if target.strip()]

    @property
    def is_control(self) -> bool:
        """Whether it labels another tag."""
        return bool(self.name and self.targets)

    @property
    def result_name(self) -> str:
        """How results spell this label: its alias if it has one, else its value."""
        return self.attributes.get("alias") or self.attributes.get("value") or ""

    @property
    def colour(self) -> str | None:
        """Colour of this label, as written in the configuration."""
        return next((value for key, value in self.attributes.items() if key.lower() == "background" and value), None)


def encoded(xml: str) -> bytes:
    """Return the configuration as the UTF-8 bytes that positions of tags count in."""
    return xml.encode("utf-8", "surrogatepass")  # expat refuses lone surrogates, with the place where they are


def read_elements(xml: str) -> list[Element]:
    """All tags in document order; labels are also listed with the nearest control around them."""
    found: list[Element] = []
    controls: list[Element | None] = [None]  # the nearest control around the current tag, per level
    parser = expat.ParserCreate(encoding="utf-8")  # a str is decoded already, whatever its declaration says

    def start(tag: str, attributes: dict[str, str]) -> None:
        name_end = parser.CurrentByteIndex + 1 + len(encoded(tag))
        element = Element(tag.lower(), attributes, name_end, [])
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
        parser.Parse(encoded(xml), True)
    except expat.ExpatError as error:
        raise LabelConfigError(f"the labelling configuration is not valid XML: {error}") from error
    return found


def folded(label: str) -> str:
    """Return a label in the form in which labels are compared: without space around it, and whatever its case."""
    return label.strip().casefold()
