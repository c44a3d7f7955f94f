"""What tells nextmask's backends and webhooks in Label Studio from others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

BACKEND_TITLE: Final = "nextmask"


SECRET_HEADER: Final = "X-Nextmask-Secret"


UNCERTAINTY_SAMPLING: Final = "Uncertainty sampling"


WEBHOOK_ACTIONS: Final = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
    "PROJECT_UPDATED",
)


def same_address(url: object, other: str) -> bool:
    """Whether two addresses are one, as Label Studio and people write them."""
    return str(url or "").rstrip("/") == other.rstrip("/")


def is_ours(row: Mapping[str, Any]) -> bool:
    """Whether a backend or webhook was made by `connect`, wherever it leads."""
    return row.get("title") == BACKEND_TITLE or SECRET_HEADER in (row.get("headers") or {})
