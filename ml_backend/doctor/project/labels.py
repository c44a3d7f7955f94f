"""Whether the labelling configuration can hold and show predicted masks, and whether all labels can be used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ml_backend.annotations.config_edits import labels_without_colours
from ml_backend.annotations.label_map import label_map_of
from ml_backend.annotations.shortcomings import shortcomings
from ml_backend.doctor.findings import Finding, note, ok, problem, warning
from ml_backend.doctor.project.facts import Facts
from ml_backend.errors import LabelConfigError
from ml_backend.projects.audit import audit_counts
from ml_backend.projects.audit_hints import audit_hints
from ml_backend.projects.hints import question_hint
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
        remedy = f"On {page}: {error.remedy}" if error.remedy else f"Change it: {page}"
        yield problem("labels", _sentence(error.cause), why, remedy)
        return
    for hint in shortcomings(xml, label_map):
        yield warning("labels", hint.cause, "", f"On {page}: {hint.remedy}")
    if bare:
        message = "Labels have no colour of their own (attribute background)"
        yield warning("colours", message, "Label Studio paints them alike: classes cannot be told apart.", facts.mend)
    if (hint_of_questions := question_hint(label_map, settings, facts.id)) is not None:
        has_choice = catalogue.described(settings.strategy).without_points
        yield (note if has_choice else warning)("questions", hint_of_questions.cause, "", hint_of_questions.remedy)
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


def check_audit(store: Store, facts: Facts) -> Iterator[Finding]:
    """Say what keeps the project from being measured, or from being trained."""
    counts = audit_counts(facts.tested, store, facts.id)
    found = audit_hints(counts, facts.tested)
    is_wanted = facts.tested.audit_share == 0  # somebody set it so
    for hint in found:
        yield (note if is_wanted else warning)("audit images", hint.cause, "", hint.remedy)
    if counts is not None and not found:
        yield ok("audit images", f"labels that measure: {counts.labels}; audit images that wait: {counts.waiting}")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
