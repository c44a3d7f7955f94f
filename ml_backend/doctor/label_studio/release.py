"""Which release of Label Studio it is, and whether it imports predictions the fast way."""

from __future__ import annotations

import re
from typing import Final

from ml_backend.doctor.findings import Finding, note, ok, warning
from ml_backend.errors import LabelStudioError
from ml_backend.label_studio import LabelStudio
from ml_backend.label_studio.client import TESTED_RELEASE

OLDEST_TESTED: Final = TESTED_RELEASE
NEWEST_TESTED: Final = TESTED_RELEASE
FAST_IMPORT_FLAG: Final = "fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short"
LARGE_PROJECT: Final = 5000
"""Number of tasks from which on imports without that flag take seconds."""


def check_release(release: str, oldest: str = OLDEST_TESTED, newest: str = NEWEST_TESTED) -> Finding:
    """Compare the host's release with those that the tests run against.

    Args:
        release: as Label Studio says it, "1.23.2".
        oldest, newest: that nextmask is tested with.
    """
    message = f"Label Studio {release}"
    if _number(release) < _number(oldest):
        why = f"nextmask is tested with {oldest}; earlier releases may lack what it needs."
        return warning("release", message, why, f"Upgrade it: pip install -U label-studio=={newest}")
    if _number(release) > _number(newest):
        return note("release", f"{message} is newer than the newest that nextmask is tested with ({newest})")
    return ok("release", f"{message} is what nextmask is tested with")


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", release.partition("+")[0])[:3])


def fast_import(client: LabelStudio) -> bool | None:
    """Return whether the host imports predictions the fast way; None where it does not tell this token."""
    try:
        page = client.transport.text("/feature-flags/")
    except LabelStudioError:
        return None
    match = re.search(rf'"{FAST_IMPORT_FLAG}": (true|false)', page)
    return match is not None and match.group(1) == "true"
