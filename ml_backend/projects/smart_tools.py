"""Smart tools that ask nobody: whether a project's registration is interactive, kept for status and dashboard.

Label Studio lets its editor ask a model only where `is_interactive` is set on the registration; people can unset it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_backend.annotations.label_map import label_map_of
from ml_backend.errors import LabelConfigError
from ml_backend.settings import Settings
from ml_backend.store import Project, Store

NO_AUTO_ANNOTATION = "The editor offers no Auto-Annotation."


def keep_interactive(store: Store, project_id: int, registrations: Iterable[Mapping[str, Any]]) -> None:
    """Keep whether one of nextmask's registrations in a project is interactive; nothing is known without any."""
    answers = [bool(row.get("is_interactive")) for row in registrations]
    text = ("yes" if any(answers) else "no") if answers else ""
    if text != (store.value(_key(project_id)) or ""):
        store.set_value(_key(project_id), text)


def silent_text(tools: Sequence[str]) -> str:
    """Say that smart tools, at least one, are there and the registration is not interactive."""
    names = ", ".join(map(repr, tools))
    return f"The labelling configuration has smart tools ({names}), and the model is not interactive"


def smart_tools_hint(store: Store, project: Project, settings: Settings) -> str:
    """Say that a project's smart tools ask nobody, and what to do; empty where they do, or where there are none.

    Args:
        settings: of the project.
    """
    if store.value(_key(project.id)) != "no":
        return ""
    try:
        tools = label_map_of(project.label_config, settings).smart_tools
    except LabelConfigError:
        return ""
    return f"{silent_text(tools)}. {NO_AUTO_ANNOTATION} Run: nextmask connect {project.id}" if tools else ""


def _key(project_id: int) -> str:
    return f"interactive_{project_id}"
