"""Whether nextmask's own files are those that were installed."""

from __future__ import annotations

from collections.abc import Iterator

from ml_backend.doctor.findings import Finding, note, problem
from ml_backend.system.installed_files import damage


def check_files() -> Iterator[Finding]:
    """Say which files were replaced, removed or changed; nothing where all are as they were installed."""
    found = damage()
    if found is None:
        return
    if found.is_fatal:
        yield problem("files", found.message, "Commands, trainings and rankings that need them fail.", found.remedy)
    else:
        yield note("files", found.message, "Meant, perhaps: an update replaces them.")
