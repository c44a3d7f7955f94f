"""The tabs of the Data Manager that show the queue and what was passed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ml_backend.label_studio import LabelStudio
from ml_backend.label_studio.predictions import MARKER

TAB_TITLE: Final = "Priority queue"
PASSED_TAB_TITLE: Final = "Passed over"

_VERSIONS: Final = "filter:tasks:predictions_model_versions"
_DETAILS: Final = (
    *("inner_id", "annotations_results", "annotations_ids", "predictions_model_versions", "predictions_results"),
    *("file_upload", "storage_filename", "created_at", "updated_at", "updated_by", "avg_lead_time", "draft_exists"),
)
"""Columns that Label Studio's own first tab hides; a tab that hides nothing shows no image without scrolling."""
_OF_LABELLED_TASKS: Final = (
    *("completed_at", "total_annotations", "cancelled_annotations", "total_predictions", "annotators"),
)


# -- adding and removing ----------------------------------------------------------------------------------------------
def show_queue(client: LabelStudio, project_id: int) -> tuple[list[str], int | None]:
    """Give the queue its tab, or put that in order again.

    Returns:
        What was changed, and the id of a tab of all tasks where one had to be added: Label Studio no longer makes it
        by itself once ours is there, and labelled tasks would be on no tab.
    """
    tab, views = queue_tab(), client.views(project_id)
    ours = [view for view in views if title_of(view) == TAB_TITLE]
    if not ours:
        client.add_view(project_id, tab)
        all_tasks = None if views else int(client.add_view(project_id, all_tasks_tab())["id"])
        return [f"added the tab {TAB_TITLE!r}"], all_tasks
    if ours[0]["data"].get("ordering") != tab["ordering"]:
        client.update_view(int(ours[0]["id"]), project_id, {**ours[0]["data"], **tab})
        return [f"put the tab {TAB_TITLE!r} in order again"], None
    return [], None


def show_passed_over(client: LabelStudio, project_id: int) -> list[str]:
    """Give passed-over tasks a tab of their own instead of the queue's; return what was changed."""
    changes, views = [], client.views(project_id)
    if not any(title_of(view) == PASSED_TAB_TITLE for view in views):
        client.add_view(project_id, passed_over_tab())
        changes.append(f"added the tab {PASSED_TAB_TITLE!r}")
    unmarked = {"filter": _VERSIONS, "operator": "not_contains", "type": "List", "value": [MARKER]}
    for view in views:
        filters = dict(view["data"].get("filters") or {"conjunction": "and", "items": []})
        named = [str(item.get("filter")) for item in filters.get("items", [])]
        if title_of(view) == TAB_TITLE and _VERSIONS not in named:
            filters["items"] = [*filters.get("items", []), unmarked]
            client.update_view(int(view["id"]), project_id, {**view["data"], "filters": filters})
            changes.append(f"left passed-over tasks out of the tab {TAB_TITLE!r}")
    return changes


def remove_tabs(client: LabelStudio, project_id: int, *, all_tasks: object) -> list[str]:
    """Remove our tabs; return what was changed.

    Args:
        all_tasks: id of the tab of all tasks that `show_queue` added; it stays where somebody has changed it.
    """
    changes = []
    for view in client.views(project_id):
        is_untouched = view["id"] == all_tasks and view["data"] == all_tasks_tab()
        if title_of(view) in (TAB_TITLE, PASSED_TAB_TITLE) or is_untouched:
            client.delete_view(int(view["id"]))
            changes.append(f"removed the tab {title_of(view)!r}")
    return changes


# -- what they show ---------------------------------------------------------------------------------------------------
def queue_tab() -> dict[str, Any]:
    """Return the Data Manager tab that shows the queue: unlabelled and not skipped, next one first."""
    empty = {"operator": "equal", "type": "Number", "value": 0}
    items = [
        {"filter": "filter:tasks:total_annotations", **empty},
        {"filter": "filter:tasks:cancelled_annotations", **empty},
    ]
    return {
        "title": TAB_TITLE,
        "type": "list",
        "target": "tasks",
        "ordering": ["tasks:predictions_score"],
        "hiddenColumns": _hidden(*_DETAILS, *_OF_LABELLED_TASKS),
        "filters": {"conjunction": "and", "items": items},
    }


def passed_over_tab() -> dict[str, Any]:
    """Return the Data Manager tab that shows what a stream passed over and nobody labelled or skipped, by id."""
    tab = queue_tab()
    marked = {"filter": _VERSIONS, "operator": "contains", "type": "List", "value": [MARKER]}
    return {
        **tab,
        "title": PASSED_TAB_TITLE,
        "ordering": ["tasks:id"],
        "hiddenColumns": _hidden(*_DETAILS, *_OF_LABELLED_TASKS, "predictions_score"),
        "filters": {"conjunction": "and", "items": [*tab["filters"]["items"], marked]},
    }


def all_tasks_tab() -> dict[str, Any]:
    """Return the tab that Label Studio makes by itself for a project without any."""
    hidden = _hidden(*_DETAILS, "predictions_score")
    return {"title": "Default", "type": "list", "target": "tasks", "hiddenColumns": hidden}


def title_of(view: Mapping[str, Any]) -> str:
    """Return the title of a Data Manager tab."""
    return str((view.get("data") or {}).get("title", ""))


def _hidden(*columns: str) -> dict[str, list[str]]:
    """Return hidden columns of a tab, and of the narrow list beside the editor, where just the images are shown."""
    names = [f"tasks:{column}" for column in columns]
    return {"explore": names, "labeling": sorted({*names, "tasks:id", "tasks:predictions_score"})}
