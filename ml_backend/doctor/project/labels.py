"""Whether the labelling configuration can hold and show predicted masks, and whether all labels can be used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ml_backend.annotations.config_edits import labels_without_colours
from ml_backend.annotations.label_map import label_map_of
from ml_backend.doctor.findings import Finding, ok, problem, warning
from ml_backend.doctor.project.facts import Facts
from ml_backend.errors import LabelConfigError
from ml_backend.store import Store
from strategies import catalogue

_SHOWN_TASKS: Final = 3


def check_labels(facts: Facts) -> Iterator[Finding]:
    """Say whether masks can be predicted for these labels, seen in their colours, and asked for in regions."""
    xml, settings = str(facts.project.get("label_config") or ""), facts.tested
    page = f"{settings.effective_label_studio_public_url}/projects/{facts.id}/settings/labeling"
    try:
        label_map = label_map_of(xml, settings)
        bare = labels_without_colours(xml)
    except LabelConfigError as error:
        why = "nextmask cannot read or predict any mask here."
        yield problem("labels", _sentence(str(error)), why, f"Change the labelling configuration: {page}")
        return
    if label_map.writer_of(1 if label_map.unpainted_index == 0 else 0) is None:
        message = "No control of the labelling configuration can hold a predicted mask"
        why = "Predictions need BrushLabels, BitmaskLabels or PolygonLabels."
        yield warning("labels", message, why, f"Add one of them: {page}")
    if bare:
        message = "Labels have no colour of their own (attribute background)"
        yield warning("colours", message, "Label Studio paints them alike: classes cannot be told apart.", facts.mend)
    if catalogue.described(settings.strategy).asks_for_regions and label_map.query_control is None:
        control = settings.query_control
        message = f"Strategy {settings.strategy} asks for regions, but there is no control {control!r} to show them"
        yield warning("regions", message, "Annotators label whole images instead.", f"{facts.mend} --add-query-control")
    yield ok("labels", f"{len(label_map.classes)} classes: {', '.join(label_map.classes[:8])}")


def check_left_out(store: Store, facts: Facts) -> Iterator[Finding]:
    """Say which tasks cannot be used, or not in full, and why."""
    count = store.count_left_out(facts.id)["failed"]
    if not count:
        return
    shown = store.left_out(facts.id, "failed", limit=_SHOWN_TASKS)
    reasons = "; ".join(f"task {task.task_id}: {task.error}" for task, _ in shown)
    more = f"; and {count - len(shown)} more" if count > len(shown) else ""
    message = f"{'One task' if count == 1 else f'{count} tasks'} cannot be used, or not in full: {reasons}{more}"
    why = "What cannot be read is neither counted as a label nor learned from."
    page = f"{facts.tested.effective_backend_url}/projects/{facts.id}/tasks"
    yield warning("left out", message, why, f"Mend them in Label Studio, as each says; all of them: {page}")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
