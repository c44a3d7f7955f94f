"""Fields of annotations and their regions as Label Studio sends them, checked.

Imports and other clients of Label Studio may put anything there: a value of another type counts as missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_backend.errors import MaskError, shown

_MAXIMUM_SECONDS = 1e9


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


def number_in(value: Mapping[str, Any], key: str, low: float, high: float) -> float:
    """Return a number of a region's value.

    Raises:
        MaskError: it is missing, no number, or outside [low, high].
    """
    number = value.get(key)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not low <= number <= high:
        raise MaskError(f"its {key} is {shown(number)}, expected a number from {low} to {high}")
    return number
