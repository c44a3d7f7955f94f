"""annotators: ask Label Studio for the names of those who labelled, once for all of them."""

from __future__ import annotations

import logging

from ml_backend.annotations.fields import printable
from ml_backend.errors import LabelStudioError, LabelStudioRefused
from ml_backend.projects.unchanged import annotator_names, keep_annotator_names, unnamed
from ml_backend.worker.look import Look

logger = logging.getLogger(__name__)


def name_annotators(look: Look) -> None:
    """Ask for the names of all users where somebody labelled whose name was never asked for.

    Whoever is not among them is not asked for again: they were deleted, or the token may not list users. Their labels
    count all the same. Nothing is to be asked where no task changed since the last look.
    """
    key, changes = f"annotators_named_{look.project_id}", str(look.store.changes(look.project_id))
    if look.store.value(key) == changes:
        return
    new = unnamed(look.store, look.store.labels_of_annotators(look.project_id))
    if not new:
        look.store.set_value(key, changes)
        return
    try:
        users = look.client.users()
    except LabelStudioRefused as error:
        logger.warning("project=%s the names of annotators cannot be had: %s", look.project_id, error)
        users = []
    except LabelStudioError as error:  # the next look asks again
        logger.info("project=%s the names of annotators cannot be had now: %s", look.project_id, error)
        return
    named = {user["id"]: printable(_name(user)) for user in users if isinstance(user.get("id"), int)}
    keep_annotator_names(look.store, annotator_names(look.store) | dict.fromkeys(new, "") | named)


def _name(user: dict[str, object]) -> str:
    """Return how people know a user: the name that was entered, or else the address."""
    full = " ".join(str(user.get(part) or "") for part in ("first_name", "last_name")).strip()
    return full or str(user.get("email") or user.get("username") or "")
