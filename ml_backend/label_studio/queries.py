"""Data Manager queries: which tasks Label Studio shall list, and in which order.

Lists are walked by keys (`updated_at`, `id`), never by page numbers: tasks that change or go while a list is walked
move the pages under the reader's feet.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

TASK_FIELDS = ("id", "data", "updated_at", "total_annotations", "cancelled_annotations", "annotations")
# The host applies the list of fields to tasks and to the annotations in them alike.
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
    """Return one filter, such as condition("id", "greater", "Number", 7)."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def query(conditions: Sequence[dict[str, Any]], order_by: str) -> str:
    """Return the `query` parameter: all conditions hold, in ascending order of one column."""
    filters = {"conjunction": "and", "items": list(conditions)}
    return json.dumps({"filters": filters, "ordering": [f"tasks:{order_by}"]})


def host_time(moment: str) -> str:
    """Return an ISO moment in the one form that the host's filters understand: UTC, six decimals and a Z.

    Any other form, the host's own answers without decimals among them, is an internal server error there.

    Raises:
        ValueError: it is no ISO date and time.
    """
    parsed = datetime.fromisoformat(moment.strip().replace("Z", "+00:00"))
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=timezone.utc)
    return parsed.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
