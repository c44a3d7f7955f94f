"""Whether the labelling configuration can hold and show predicted masks."""

from __future__ import annotations

from collections.abc import Iterator

from ml_backend.annotations.config_edits import labels_without_colours
from ml_backend.annotations.label_map import label_map_of
from ml_backend.annotations.shortcomings import shortcomings
from ml_backend.doctor.findings import Finding, ok, problem, warning
from ml_backend.doctor.project.facts import Facts
from ml_backend.errors import LabelConfigError
from ml_backend.projects.hints import region_hint


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
    if (regions := region_hint(label_map, settings, facts.id)) is not None:
        yield warning("regions", regions.cause, "", regions.remedy)
    yield ok("labels", f"{len(label_map.classes)} classes: {', '.join(label_map.classes[:8])}")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
