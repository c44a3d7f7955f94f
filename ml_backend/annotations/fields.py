"""Fields of annotations and their regions as Label Studio sends them, checked.

Imports and other clients of Label Studio may put anything there: a value of another type counts as missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_backend.errors import MaskError, shown

_MAXIMUM_SECONDS = 1e9
_LARGEST_ID = 2**31
_LONGEST_SIDE = 1e9  # in pixels: more is no size of an image


def regions_of(row: Mapping[str, Any]) -> list[Any]:
    """Return the `result` of an annotation or prediction; an empty list when it has none."""
    result = row.get("result")
    return result if isinstance(result, list) else []


def labels_of(region: Mapping[str, Any]) -> list[Any]:
    """Return the labels in a region's value; an empty list when it has none."""
    value = region.get("value")
    labels = value.get(str(region.get("type"))) if isinstance(value, Mapping) else None
    return list(labels) if isinstance(labels, Sequence) and not isinstance(labels, str) else []


def lead_time_of(annotation: Mapping[str, Any]) -> float | None:
    """Return the seconds that an annotation took, in [0, 1e9); None when they are missing or outside."""
    seconds = annotation.get("lead_time")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < _MAXIMUM_SECONDS:
        return None
    return float(seconds)


def annotator_of(annotation: Mapping[str, Any]) -> int | None:
    """Return the id of the user who made an annotation; None where it names none.

    The host sends the number or an object with it, by the call, and null once the user is deleted.

    >>> [annotator_of({"completed_by": user}) for user in (7, {"id": 7}, None)]
    [7, 7, None]
    """
    user = annotation.get("completed_by")
    number = user.get("id") if isinstance(user, Mapping) else user
    is_id = isinstance(number, int) and not isinstance(number, bool) and 0 < number < _LARGEST_ID
    return number if is_id else None


def stated_size(region: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the (height, width) that a region states as those of its image; None where it states none.

    Importers write null, 0 or nothing where they do not know it.
    """
    sides = [_number(region.get(f"original_{side}")) for side in ("height", "width")]
    height, width = (side if side is not None and 1 <= side <= _LONGEST_SIDE else 0.0 for side in sides)
    return (height, width) if height and width else None


def number_in(value: Mapping[str, Any], key: str, low: float, high: float) -> float:
    """Return a number of a region's value, written as a number or as text.

    Raises:
        MaskError: it is missing, no number, or outside [low, high].
    """
    number = _number(value.get(key))
    if number is None or not low <= number <= high:
        raise MaskError(f"its {key} is {shown(value.get(key))}, expected a number from {low} to {high}")
    return number


def _number(value: object) -> float | None:
    """Return a number, or the number that a text says; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return None


def printable(value: object) -> str:
    """Return what people entered as a database can keep it: JSON may hold halves of surrogate pairs, and zeros."""
    text = value if isinstance(value, str) else shown(value)
    return text.encode("utf-8", "replace").decode().replace("\0", "?")
