"""Sorts out the results of an annotation: which are masks, which ought to be and cannot be understood, which are not.

An entry of a result is

    a mask       drawn with a control of the label map, with a label of it
    a point      of the points control: it says the class of one pixel
    not usable   it looks like a mask, and control, image, label or shape say nothing: a problem, never background
    another      drawn, and no mask: another key point, a prompt of a smart tool, a region of another image
    no region    choices, texts, ratings, relations, also those of a region; query rectangles; spans of a text

Where a label stands in an entry of its own (`<Labels>` beside a bare `<Brush>`), entries of one id belong together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ml_backend.annotations.fields import labels_of
from ml_backend.annotations.label_map import READABLE, LabelMap, Tag
from ml_backend.annotations.shapes import has_shape
from ml_backend.errors import shown

MASK_TYPES: Final = frozenset(READABLE)
"""Types of regions that carry a label and can be masks."""
_OUTLINES = frozenset(("brush", "magicwand", "bitmask", "polygon", "vector"))
_BOXES = frozenset(("rectangle", "ellipse"))
_KEY_POINTS = frozenset(("keypoint", "keypointlabels"))
_OTHERS = frozenset(("videorectangle", "cuboid", "cuboidlabels")) | _KEY_POINTS
_DESCRIBING = frozenset(
    ("choices", "textarea", "rating", "number", "datetime", "taxonomy", "ranker", "pairwise", "relation", "relations")
)
"""Types of what is said about a region or an image; in the first case the value repeats the region's shape."""

_Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Region:
    """A region that is a mask or a point, or looks like one.

    Attributes:
        entry: as in the result; its value has shape and label, also where these stand in two entries.
        index: its class; None where it has none that is known.
        problem: why it cannot be used; empty when it can.
        is_point: whether it is a point, which says the class of a single pixel.
    """

    entry: _Entry
    index: int | None
    problem: str = ""
    is_point: bool = False

    @property
    def value(self) -> _Entry:
        """Its value; empty where it has none."""
        return _value(self.entry)

    def described(self, problem: str) -> str:
        """Return what is wrong with it, with its id and control."""
        kind = "point" if self.is_point else "region"
        return f"{kind} {shown(self.entry.get('id'))} of {shown(self.entry.get('from_name'))}: {problem}"


@dataclass(frozen=True)
class Regions:
    """The regions of a result.

    Attributes:
        drawn: masks and points and what looks like them, in the order of the result.
        others: what else is drawn, described.
    """

    drawn: tuple[Region, ...]
    others: tuple[str, ...]


def sort_out(result: Sequence[object], label_map: LabelMap) -> Regions:
    """Return the regions of a result."""
    entries = [entry for entry in result if isinstance(entry, Mapping)]
    same_id: dict[str, list[_Entry]] = defaultdict(list)
    for entry in entries:
        if entry.get("id") is not None:
            same_id[str(entry["id"])].append(entry)
    drawn: list[Region] = []
    others: dict[str, None] = {}
    for entry in entries:
        beside = [other for other in same_id[str(entry.get("id"))] if other is not entry]
        found = _sorted(entry, beside, label_map)
        if isinstance(found, Region):
            drawn.append(found)
        elif found:
            others.setdefault(found)
    return Regions(tuple(drawn), tuple(others))


def mask_regions(result: Sequence[object], label_map: LabelMap) -> list[_Entry]:
    """Return the regions that are masks of a known class, each with its shape and label in one value, in order."""
    drawn = sort_out(result, label_map).drawn
    return [region.entry for region in drawn if not region.problem and not region.is_point]


def is_point(entry: object, label_map: LabelMap) -> bool:
    """Whether an entry of a result is a point of the points control."""
    if label_map.points_control is None or not isinstance(entry, Mapping):
        return False
    return entry.get("from_name") == label_map.points_control.name and entry.get("type") in _KEY_POINTS


def _sorted(entry: _Entry, beside: Sequence[_Entry], label_map: LabelMap) -> Region | str | None:
    """Return a region, what it is instead of a mask, or None where it is no region."""
    kind, control = str(entry.get("type")), label_map.tag(entry.get("from_name"))
    queried = label_map.query_control is not None and entry.get("from_name") == label_map.query_control
    if queried or kind in _DESCRIBING or not _is_drawn(entry, kind):
        return None
    if is_point(entry, label_map):
        index = label_map.class_of(entry)
        return Region(entry, index, _problem_of_point(entry, index, label_map), is_point=True)
    if other := _other(entry, kind, beside, label_map):
        return other
    target = label_map.tag(entry.get("to_name"))
    if target is not None and target.name != label_map.image_name:
        on_image = f"{kind} on {shown(target.name)}, while masks are read of {shown(label_map.image_name)}"
        return on_image if target.kind == "image" else None
    if kind not in MASK_TYPES:
        if any(_has_label_of(other, entry) for other in beside):
            return None
        if kind in _BOXES and control is not None and not _labels_apart(label_map):
            return f"{kind} of {shown(control.name)}, which has no labels"
    region = _with_shape_and_label(entry, beside, label_map)
    return Region(region.entry, region.index, _problem(region, kind, control, label_map))


def _is_drawn(entry: _Entry, kind: str) -> bool:
    """Whether an entry is drawn on an image; spans of a text or a sound have a start."""
    value = _value(entry)
    return (kind in MASK_TYPES | _OUTLINES | _BOXES | _OTHERS and "start" not in value) or has_shape(value)


def _other(entry: _Entry, kind: str, beside: Sequence[_Entry], label_map: LabelMap) -> str:
    """Say what a region is that can be no mask; empty where it can."""
    tools = [one for one in beside if str(one.get("type")) in _BOXES | _KEY_POINTS] if kind == "labels" else []
    for one in (entry, *tools):
        tag = label_map.tag(one.get("from_name"))
        if tag is not None and tag.is_smart:
            return f'{one.get("type")} of {shown(tag.name)}, a prompt of a smart tool (smart="true")'
        if str(one.get("type")) in _OTHERS:
            return f"{one['type']} of {shown(one.get('from_name'))}"
    return ""


def _has_label_of(other: _Entry, entry: _Entry) -> bool:
    """Whether another entry is the label of a region: of the same shape, or without one. Importers repeat ids."""
    value, own = _value(other), {key: part for key, part in _value(entry).items() if key != entry.get("type")}
    repeats = all(value.get(key) == part for key, part in own.items())
    return str(other.get("type")) in MASK_TYPES and bool(labels_of(other)) and (repeats or not has_shape(value))


def _value(entry: _Entry) -> _Entry:
    value = entry.get("value")
    return value if isinstance(value, Mapping) else {}


def _labels_apart(label_map: LabelMap) -> bool:
    """Whether boxes drawn with bare tools are masks: their labels come from `<Labels>`."""
    return any(control.tag == "Labels" for control in label_map.controls)


def _with_shape_and_label(entry: _Entry, beside: Sequence[_Entry], label_map: LabelMap) -> Region:
    """Complete a region with the shape or the label that an entry of the same id has."""
    value = _value(entry)
    if not has_shape(value):
        bare = (_value(other) for other in beside if not labels_of(other))
        value = {**next((shape for shape in bare if has_shape(shape)), {}), **value}
    if not labels_of(entry):
        labels = next((labels_of(other) for other in beside if _has_label_of(other, entry)), [])
        value = {**value, str(entry.get("type")): labels}
    complete = {**entry, "value": value}
    return Region(complete, label_map.class_of(complete))


def _problem(region: Region, kind: str, control: Tag | None, label_map: LabelMap) -> str:
    """Say why a region cannot be read as a mask, before its shape is looked at; empty where nothing is wrong."""
    entry, wanted = region.entry, _wanted(label_map)
    is_ours = any(entry.get("from_name") == ours.name for ours in label_map.controls)
    if entry.get("to_name") != label_map.image_name:
        return (
            f"the labelling configuration has no image {shown(entry.get('to_name'))}; masks are read of "
            f"{shown(label_map.image_name)}: draw it there, or import it with that to_name"
        )
    if not has_shape(region.entry["value"]):
        return f"its value has no shape that is read as a mask: delete it, or draw it again with {wanted}"
    if not is_ours and control is None:
        return (
            "the labelling configuration has no such control that is read as masks; "
            f"it has {wanted}: draw it again with that, or import it with that from_name"
        )
    if kind not in MASK_TYPES | _OUTLINES | _BOXES:
        return f"its type {shown(kind)} is none that is read as a mask; {wanted} is: draw it again with that"
    labels = labels_of(entry)
    if region.index is None and labels:
        return (
            f"its label {shown(labels[0])} is not in the labelling configuration: "
            f"add it there, or choose another label of {wanted}"
        )
    if region.index is None:
        return f"it has no label (type {shown(kind)}): select it in Label Studio and choose a label of {wanted}"
    if not is_ours and kind in MASK_TYPES:
        return f"{shown(entry.get('from_name'))} is no control that is read as masks; {wanted} is"
    return ""


def _problem_of_point(entry: _Entry, index: int | None, label_map: LabelMap) -> str:
    """Say why a point says nothing, before its place is looked at; empty where nothing is wrong."""
    labels = labels_of(entry)
    if entry.get("to_name") != label_map.image_name:
        return f"it is on {shown(entry.get('to_name'))}, while masks are read of {shown(label_map.image_name)}"
    if not labels:
        return "it was not answered: select it in Label Studio and choose a label, or delete it"
    if index is None:
        return (
            f"its label {shown(labels[0])} is no class of {_wanted(label_map)}: choose another label, "
            "or add that one there"
        )
    known = {label: label_map.index_of(label) for label in labels if isinstance(label, str)}
    if len({one for one in known.values() if one is not None}) > 1:
        return f"it has several classes, {', '.join(map(shown, known))}: choose one of them in Label Studio"
    return ""


def _wanted(label_map: LabelMap) -> str:
    control = label_map.controls[0]
    return f"{control.tag} {shown(control.name)}"
