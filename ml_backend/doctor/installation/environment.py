"""Settings that stop nextmask from starting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ml_backend.doctor.findings import Finding, ok, problem
from ml_backend.errors import ConfigurationError
from ml_backend.settings import Settings


def check_settings(settings: Settings, complaints: Sequence[str]) -> Iterator[Finding]:
    """Say which settings stop the start of every other command."""
    for complaint in complaints:
        why = "No other command starts with it."
        yield problem("settings", complaint, why, "Correct it in the environment or in .env: docs/configuration.md")
    try:
        settings.check_serving()
    except ConfigurationError as error:
        yield problem("settings", str(error), "nextmask serve refuses to start.", "Set them in the environment or .env")
        return
    if not complaints:
        yield ok("settings", "all valid")
