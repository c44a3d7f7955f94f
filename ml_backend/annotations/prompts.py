"""What a person tells a smart tool: clicks and boxes among the regions of a request.

A click is a key point. With Alt held it says where the class is not: `is_positive` of the region, not of its value, is
false or 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ml_backend.annotations.boxes import Box
from ml_backend.annotations.fields import labels_of
from ml_backend.annotations.key_points import pixel_of
from ml_backend.annotations.label_map import LabelMap
from ml_backend.annotations.query_regions import is_query, pixel_box
from ml_backend.annotations.regions import Region, is_point
from ml_backend.errors import MaskError, shown

_CLICKS: Final = ("keypoint", "keypointlabels")
_BOXES: Final = ("rectangle", "rectanglelabels")
_TOOLS = frozenset((*_CLICKS, *_BOXES, "labels"))

_Entry = Mapping[str, Any]


@dataclass(frozen=True)
class DrawnPrompt:
    """A click or a box of a person.

    Attributes:
        id: of its region.
        index: the class that it speaks of.
        is_positive: whether the class is there; False: it is not.
        box: its pixels; a point where it is a click.
    """

    id: str
    index: int
    is_positive: bool
    box: Box


def read_prompts(
    result: Sequence[object], label_map: LabelMap, size: tuple[int, int]
) -> tuple[tuple[DrawnPrompt, ...], tuple[str, ...]]:
    """Return the prompts in what an editor sends, in their order, and why others cannot be used.

    Points and rectangles of questions are none.

    Args:
        result: of the request; also key points and boxes of controls that the configuration has no longer.
        size: (height, width) of the image in pixels.
    """
    prompts, problems = dict[str, DrawnPrompt](), list[str]()
    entries = [entry for entry in result if isinstance(entry, Mapping) and str(entry.get("type")) in _TOOLS]
    for number, entry in enumerate(entries):
        value = entry.get("value")
        if not isinstance(value, Mapping) or "x" not in value:
            continue
        if is_point(entry, label_map) or is_query(entry, label_map):
            continue
        name = str(entry.get("id") or f"prompt-{number}")
        try:
            index = _class_of(entry, entries, label_map)
            prompts.setdefault(name, DrawnPrompt(name, index, _is_positive(entry), _place(entry, value, size)))
        except MaskError as error:
            problems.append(f"{'box' if _is_box(value) else 'click'} {shown(entry.get('id'))}: {error}")
    return tuple(prompts.values()), tuple(problems)


def _class_of(entry: _Entry, entries: Sequence[_Entry], label_map: LabelMap) -> int:
    """Return the class of the label of a prompt, which may stand in another entry of its id.

    Raises:
        MaskError: it has none, or one that is no class; a configuration of a single class needs none.
    """
    same = [entry, *(other for other in entries if other is not entry and other.get("id") == entry.get("id"))]
    labels = [label for one in same for label in _labels(one)]
    known = (label_map.index_of(label) for label in labels)
    index = next((index for index in known if index is not None), None)
    if index is not None:
        return index
    writable = [one for one in range(len(label_map.classes)) if label_map.writer_of(one) is not None]
    if not labels and len(writable) == 1:
        return writable[0]
    if not labels:
        raise MaskError("it has no label: choose one before you click")
    raise MaskError(
        f"its label {shown(labels[0])} is no class of {label_map.controls[0].tag} {shown(label_map.controls[0].name)}:"
        " choose another label, or add that one there"
    )


def _labels(entry: _Entry) -> list[str]:
    """Return the labels of an entry; a smart tool's key points repeat theirs under `labels`."""
    value = entry["value"] if isinstance(entry.get("value"), Mapping) else {}
    repeated = value.get("labels")
    both = [*labels_of(entry), *(repeated if isinstance(repeated, list) else [])]
    return [label for label in both if isinstance(label, str)]


def _is_positive(entry: _Entry) -> bool:
    positive = entry.get("is_positive")
    return True if positive is None else str(positive).strip().casefold() not in ("0", "0.0", "false", "")


def _is_box(value: _Entry) -> bool:
    return "height" in value


def _place(entry: _Entry, value: _Entry, size: tuple[int, int]) -> Box:
    """Return the pixels of a prompt.

    Raises:
        MaskError: its coordinates are no numbers, or outside of the image.
    """
    return pixel_box(entry, size) if _is_box(value) else Box.point(*pixel_of(Region(entry, None), size))
