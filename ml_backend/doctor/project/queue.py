"""Whether annotators get the queue: order of tasks, model version, tab, and how long an import takes."""

from __future__ import annotations

from collections.abc import Iterator

from ml_backend.doctor.findings import Finding, note, ok, problem, warning
from ml_backend.doctor.label_studio.release import FAST_IMPORT_FLAG, LARGE_PROJECT
from ml_backend.doctor.project.facts import Facts
from ml_backend.projects.connection import UNCERTAINTY_SAMPLING
from ml_backend.projects.hidden_predictions import hidden_text, of_others
from ml_backend.projects.tabs import TAB_TITLE, title_of


def check_order(facts: Facts) -> Iterator[Finding]:
    """Say whether Label Studio serves tasks by the ranking and shows predictions."""
    project = facts.project
    sampling, annotations = project.get("sampling"), int(project.get("maximum_annotations") or 1)
    if sampling != UNCERTAINTY_SAMPLING:
        message = f"The project's task order is {sampling!r}, not {UNCERTAINTY_SAMPLING!r}"
        why = "The ranking is not followed. (Label Studio's settings page offers this order in the Enterprise edition "
        yield problem("sampling", message, f"{why}only, and its API everywhere.)", facts.mend)
    else:
        yield ok("sampling", f"task order is {sampling!r}")
    if not project.get("show_collab_predictions"):
        message = "Predictions are not shown to annotators (show_collab_predictions is off)"
        yield problem("predictions", message, "Annotators draw every mask from scratch.", facts.mend)
    if annotations > 1:
        message = f"The project asks for {annotations} annotations per task (maximum_annotations)"
        why = "Label Studio serves partly annotated tasks before all others: that overrides the ranking."
        remedy = (
            "If one annotation per task is enough, set maximum_annotations to 1 through the API: "
            f'PATCH /api/projects/{facts.id}/ {{"maximum_annotations": 1}}'
        )
        yield warning("annotations", message, why, remedy)
    if facts.views is not None and not any(title_of(view) == TAB_TITLE for view in facts.views):
        yield warning("tab", f"The tab {TAB_TITLE!r} is gone", "The Data Manager does not show the queue.", facts.mend)


def check_version(facts: Facts) -> Iterator[Finding]:
    """Say whether the project's model version is the published one."""
    version, counts = str(facts.project.get("model_version") or ""), facts.predictions
    published = facts.known.published_version if facts.known and facts.known.managed else ""
    if counts is None:
        return
    if hidden := of_others(counts):
        why = "Who imported them may wonder where they are."
        yield note("other predictions", hidden_text(hidden, facts.id), why, f"nextmask disconnect {facts.id}")
    titles = [row.get("title") for row in facts.backends or []]
    why = "Tasks come in random order, and stored masks are not shown."
    back = f"nextmask serve sets it at its next look; at once: nextmask rank {facts.id}"
    if not version:
        if published:
            message = f"The project's model version is not set; it should be {published}"
            yield problem("model version", message, why, back)
        else:
            message = "The project has no model version yet"
            yield note("model version", f"{message}: the worker sets it when it publishes the first queue")
    elif version in titles:
        message = f"The project's model version is {version!r}, the title of a model and no version"
        yield problem("model version", f"{message}; it should be {published or 'one of nextmask'}", why, back)
    elif not counts.get(version):  # the host lists the current one with a count of 0
        message = f"The project's model version is {version!r}, and no prediction is of that version"
        yield problem("model version", message, why, back)
    elif published and version != published:
        message = f"The project's model version is {version!r}, and nextmask has published {published}"
        yield problem("model version", message, why, back)
    else:
        yield ok("model version", f"{version}, with {counts[version]} predictions")


def check_size(facts: Facts, fast_import: bool | None) -> Iterator[Finding]:
    """Say whether there are tasks, and whether importing predictions for so many takes long.

    Args:
        fast_import: as `release.fast_import`.
    """
    tasks = int(facts.project.get("task_number") or 0)
    if tasks == 0:
        yield note(
            "tasks", "The project has no tasks yet", "There is nothing to rank.", "Import images in Label Studio"
        )
    if tasks < LARGE_PROJECT or fast_import:
        return
    message = f"{tasks} tasks, and Label Studio imports predictions in the way that takes longer with more tasks"
    if fast_import is None:
        message = f"{tasks} tasks; whether Label Studio imports predictions the fast way is not told to legacy tokens"
    why = "Publishing a queue takes from seconds to a minute in large projects."
    yield note("imports", message, why, f"Start Label Studio with {FAST_IMPORT_FLAG}=true")
