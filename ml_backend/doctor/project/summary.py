"""All that is to be told of a project but its images: in full, or in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ml_backend.doctor.findings import Finding, Level, ok, problem, warning
from ml_backend.doctor.project.connection import (
    check_backends,
    check_connection,
    check_smart_tools,
    check_webhooks,
)
from ml_backend.doctor.project.facts import Facts
from ml_backend.doctor.project.labels import check_labels
from ml_backend.doctor.project.queue import check_order, check_size, check_version
from ml_backend.label_studio import LabelStudio
from ml_backend.settings import Settings
from ml_backend.store import Project

_SHOWN_PROJECTS: Final = 10


def check_project(facts: Facts, settings: Settings, secret: str, *, fast_import: bool | None) -> Iterator[Finding]:
    """Yield the findings about a project, but for its images.

    Args:
        secret: that our webhook is to carry; "" where none was made yet.
        fast_import: whether the host imports predictions the fast way; None where that is not known.
    """
    if facts.unread:
        yield problem("project", f"Label Studio did not answer in full: {facts.unread}", "", "Try again")
    yield from check_connection(facts, settings)
    if facts.is_connected:
        yield from check_backends(facts, settings)
        yield from check_smart_tools(facts, settings)
        yield from check_webhooks(facts, settings, secret)
        yield from check_order(facts)
        yield from check_version(facts)
    yield from check_labels(facts)
    yield from check_size(facts, fast_import)


def missing_project(client: LabelStudio, project_id: int) -> Finding:
    """Say that there is no such project, and which ones there are."""
    rows, count = client.some_projects(_SHOWN_PROJECTS)
    message = f"The user of LABEL_STUDIO_API_KEY sees no project {project_id}"
    why = "It was deleted, or belongs to another organization; the number is the one in its address."
    if not rows:
        return problem("project", message, why, f"It sees none at all: create one at {client.transport.url}/projects")
    named = [f"{row['id']} ({row['title']}, {client.transport.url}/projects/{row['id']})" for row in rows]
    more = f", and {count - len(rows)} more" if count > len(rows) else ""
    return problem("project", message, why, f"Use the number of one that it sees: {', '.join(named)}{more}")


def deleted_project(known: Project) -> Finding:
    """Say that a connected project is gone."""
    message = f"project {known.id} ({known.title}): the user of LABEL_STUDIO_API_KEY sees no such project"
    why = "It was deleted, or belongs to another organization. Model versions stay on disk."
    return warning("project", message, why, "Nothing, if it was deleted; else use the token of a member")


def in_short(facts: Facts, findings: Sequence[Finding]) -> Finding:
    """Put the findings about a project into one."""
    title = f"project {facts.id} ({facts.project.get('title')})"
    bad = [finding for finding in findings if finding.level in ("problem", "warning")]
    if not bad:
        state = next((finding.message for finding in findings if finding.check == "state"), "connected")
        return ok("project", f"{title}: {state}")
    worst: Level = "problem" if any(finding.level == "problem" for finding in bad) else "warning"
    message = f"{title}: {'; '.join(finding.message for finding in bad)}"
    remedy = f"nextmask doctor {facts.id} tells more; {facts.mend} mends most problems"
    return Finding("project", worst, message, bad[0].why, remedy)
