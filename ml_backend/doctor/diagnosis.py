"""Why a call of Label Studio failed: what its checks find, as one error that says cause and remedy.

Commands that fail call this; `examination` makes the same checks of an installation that may be well.
"""

from __future__ import annotations

from collections.abc import Iterator

from ml_backend.doctor.findings import Finding
from ml_backend.doctor.installation.server import check_server
from ml_backend.doctor.label_studio.address import ask, check_address
from ml_backend.doctor.label_studio.protection import check_protections
from ml_backend.doctor.label_studio.token import Login, check_rights, log_in
from ml_backend.doctor.project.connection import out_of_reach
from ml_backend.doctor.project.summary import missing_project
from ml_backend.errors import LabelStudioError, LabelStudioNotFound, NextmaskError
from ml_backend.settings import Settings
from ml_backend.store import Store

_PATIENCE = 5.0
_REFUSALS = (400, 403, 500)


def diagnose(settings: Settings, store: Store, error: LabelStudioError, project_id: int | None = None) -> NextmaskError:
    """Return the error to show in place of another; that one itself where nothing is found that explains it.

    Args:
        settings: with which the call was made.
        error: of a call that concerned the project.
    """
    finding = next((found for found in _findings(settings, store, error, project_id) if found.level == "problem"), None)
    if finding is None:
        return error
    return _told(finding)


def look_at_label_studio(settings: Settings) -> NextmaskError | None:
    """Return what keeps Label Studio and nextmask apart, whatever the project; None where nothing does."""
    login, finding = _log_in(settings)
    found = [finding] if login is None else list(check_protections(login.client, settings.effective_backend_url))
    bad = next((finding for finding in found if finding.level == "problem"), None)
    return None if bad is None else _told(bad)


def _findings(settings: Settings, store: Store, error: LabelStudioError, project_id: int | None) -> Iterator[Finding]:
    login, finding = _log_in(settings)
    if login is None:
        yield finding
        return
    if error.status == 404 and project_id is not None:
        try:
            login.client.project(project_id)
        except LabelStudioNotFound:
            yield missing_project(login.client, project_id)
    if error.status in _REFUSALS:
        yield from check_protections(login.client, settings.effective_backend_url)
        secret = settings.webhook_secret.get_secret_value() or store.value("webhook_secret") or ""
        yield from check_server(settings, store, secret, patience=_PATIENCE)
        yield check_rights(login.user)
        if "health check failed" in str(error):
            yield out_of_reach(settings.effective_backend_url)


def _log_in(settings: Settings) -> tuple[Login | None, Finding]:
    """Look for Label Studio, then at the token; the finding is about the last of the two that was looked at."""
    address = check_address(settings, ask(settings.label_studio_url, _PATIENCE), patience=_PATIENCE)
    return (None, address) if address.level == "problem" else log_in(settings, patience=_PATIENCE)


def _told(finding: Finding) -> NextmaskError:
    # No full stop after a remedy: it may end in a command, or in an address, that people copy.
    return NextmaskError(f"{finding.message.removesuffix('.')}.", finding.remedy)
