"""Predictions of others in a connected project: Label Studio shows one model version at a time, and that is nextmask's.

They are never changed or deleted; what is kept here is how many there are, for status and dashboard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ml_backend.errors import shown
from ml_backend.label_studio.predictions import is_own
from ml_backend.store import Store

_SHOWN = 5
_UNNAMED = "null"  # Label Studio lists predictions without a version under this name, and counts them as 0


def of_others(counts: Mapping[str, int]) -> dict[str, int]:
    """Return how many predictions there are of each version that is not nextmask's.

    Args:
        counts: of `LabelStudio.model_versions`.
    """
    return {
        version: count for version, count in counts.items() if not is_own(version) and (count or version == _UNNAMED)
    }


def hidden_predictions(store: Store, project_id: int) -> dict[str, int]:
    """Return the predictions of others as they were counted last, by version."""
    return dict(json.loads(store.value(_key(project_id)) or "{}"))


def keep_hidden_predictions(store: Store, project_id: int, counts: Mapping[str, int]) -> str:
    """Keep how many predictions of others there are; return a sentence about them if there are versions that are new.

    Args:
        counts: of `LabelStudio.model_versions`.
    """
    before, now = hidden_predictions(store, project_id), of_others(counts)
    if now != before:
        store.set_value(_key(project_id), json.dumps(now))
    return hidden_text(now, project_id) if now.keys() - before.keys() else ""


def hidden_text(hidden: Mapping[str, int], project_id: int) -> str:
    """Say which predictions, at least one, annotators do not see, and how to see them again."""
    versions = sorted(hidden, key=lambda version: (-hidden[version], version))
    named = [_named(version, hidden[version]) for version in versions[:_SHOWN]]
    more = f" and {len(versions) - _SHOWN} more versions" if len(versions) > _SHOWN else ""
    return (
        f"Predictions that others imported are hidden from annotators: {', '.join(named)}{more}. Label Studio shows "
        "one version at a time, here nextmask's. They stay as they are; to see them again: nextmask disconnect "
        f"{project_id}"
    )


def _named(version: str, count: int) -> str:
    return f"{count or 'some'} {f'of {shown(version)}' if version not in ('', _UNNAMED) else 'without a version'}"


def _key(project_id: int) -> str:
    return f"hidden_predictions_{project_id}"
