"""Data Manager queries: which tasks Label Studio lists, and in which order.

Long lists are read by keys (`updated_at`, `id`) and not by page numbers, since pages move when tasks change or are
deleted meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

TASK_FIELDS = ("id", "data", "updated_at", "total_annotations", "cancelled_annotations", "annotations")
# Label Studio applies the list of fields to tasks and to their annotations alike.
ANNOTATION_FIELDS = (
    "result",
    "was_cancelled",
    "ground_truth",
    "lead_time",
    "created_at",
    "parent_prediction",
    "completed_by",
)
BEGINNING = "1970-01-01T00:00:00.000000Z"


def condition(column: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    """Return a filter, such as condition("id", "greater", "Number", 7)."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def query(conditions: Sequence[dict[str, Any]], order_by: str) -> str:
    """Return the `query` parameter for tasks that meet all conditions, in ascending order of a column."""
    filters = {"conjunction": "and", "items": list(conditions)}
    return json.dumps({"filters": filters, "ordering": [f"tasks:{order_by}"]})


def host_time(moment: str) -> str:
    """Return an ISO time in the form that Label Studio's filters require: UTC, six decimals and a Z.

    Other forms cause an internal server error there, even those of its own answers without decimals.

    Raises:
        ValueError: `moment` is no ISO date and time.
    """
    parsed = datetime.fromisoformat(moment.strip().replace("Z", "+00:00"))
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=timezone.utc)
    return parsed.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
