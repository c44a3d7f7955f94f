"""What commands work with: the installation that their settings name, and what becomes of a call that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ml_backend.errors import LabelStudioError
from ml_backend.projects.running_server import with_running_server
from ml_backend.projects.services import Services, open_services
from ml_backend.settings import load_settings


def installation(**overrides: Any) -> Services:
    """Open the installation; its server's address is the one where it runs.

    Args:
        overrides: see `load_settings`.

    Raises:
        ConfigurationError: a setting, or the token, cannot be used.
        StoreError: the state database cannot be opened.
    """
    services = open_services(load_settings(**overrides))
    return replace(services, settings=with_running_server(services.settings, services.store))


@contextmanager
def diagnosed(services: Services, project_id: int) -> Iterator[None]:
    """Let a call of Label Studio that fails end in what doctor finds: the cause, and what to do.

    Raises:
        NextmaskError: in place of a LabelStudioError.
    """
    try:
        yield
    except LabelStudioError as error:
        from ml_backend.doctor.diagnosis import diagnose

        raise diagnose(services.settings, services.store, error, project_id) from None
