"""What tells nextmask's backends and webhooks in Label Studio from others."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final

from ml_backend.settings import Settings
from ml_backend.store import Store

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


def webhook_secret(settings: Settings, store: Store) -> str:
    """Return the secret of our webhooks: the setting, or the one made at the first start."""
    given = settings.webhook_secret.get_secret_value()
    return given or store.set_default("webhook_secret", secrets.token_urlsafe(32))
