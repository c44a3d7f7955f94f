"""Whether `nextmask serve` answers where Label Studio calls it, and belongs to this installation."""

from __future__ import annotations

from collections.abc import Iterator

import requests

from ml_backend import __version__
from ml_backend.doctor.findings import Finding, note, ok, problem, warning
from ml_backend.errors import ConfigurationError
from ml_backend.label_studio.failures import FAILURES, reason
from ml_backend.projects.registration import SECRET_HEADER, check_backend_address
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.system.trust import trusting_session


def check_server(settings: Settings, store: Store | None, secret: str, *, patience: float = 5.0) -> Iterator[Finding]:
    """Say whether `nextmask serve` answers where Label Studio calls it, and is of this installation.

    Args:
        store: the state, to compare with what the server knows; None where there is none.
        secret: of the webhooks; "" where there is none yet.
        patience: seconds to wait for each answer.
    """
    yield from _check_address(settings)
    url = settings.effective_backend_url
    health = _health(url, patience)
    if isinstance(health, str) and settings.backend_url:
        local = f"http://{'127.0.0.1' if settings.host in ('0.0.0.0', '::') else settings.host}:{settings.port}"  # noqa: S104
        here = _health(local, patience)
        if not isinstance(here, str):
            message = (
                f"nextmask answers at {local}, and from this machine not at NEXTMASK_BACKEND_URL = {url} ({health})"
            )
            yield note(
                "server", message, "Only Label Studio has to reach it; the checks of projects tell whether it does."
            )
            url, health = local, here
    if isinstance(health, str):
        why = "Label Studio gets no masks, no webhook arrives, and connect is refused."
        remedy = (
            "Start it: nextmask serve. Where it runs on another port, set NEXTMASK_PORT; on another machine, "
            "NEXTMASK_BACKEND_URL"
        )
        yield problem("server", f"nextmask serve does not answer at {url}: {health}", why, remedy)
        return
    if "model_class" not in health:
        why = "Label Studio calls that address for masks, and sends webhooks there."
        remedy = "Stop that program, or choose another port: nextmask serve --port 9091"
        yield problem("server", f"What answers at {url} is not nextmask", why, remedy)
        return
    if health.get("version") != __version__:
        message = f"nextmask {health.get('version')} serves at {url}; this command is nextmask {__version__}"
        yield warning("server", message, "Two releases may not agree on the state.", "Restart nextmask serve")
    try:
        yield _check_identity(settings, url, store, secret, patience)
    except FAILURES as error:
        yield problem(
            "server", f"nextmask at {url} does not answer in full: {reason(error, patience)}", "", "Try again"
        )


def _check_address(settings: Settings) -> Iterator[Finding]:
    try:
        check_backend_address(settings.effective_backend_url)
    except ConfigurationError as error:
        why = "New labels would be seen by the timer only."
        yield problem("backend address", error.cause, why, error.remedy)


def _health(url: str, patience: float) -> dict[str, object] | str:
    """Return what /health says, {} when it is no object, or in words why there is no answer."""
    try:
        answer = trusting_session().get(f"{url}/health", timeout=patience, allow_redirects=False)
        content = answer.json() if answer.ok else {}
    except requests.exceptions.JSONDecodeError:
        return {}
    except FAILURES as error:
        return reason(error, patience)
    return content if isinstance(content, dict) else {}


def _check_identity(settings: Settings, url: str, store: Store | None, secret: str, patience: float) -> Finding:
    user, password = settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()
    pair = (user, password) if user else None
    why = "Commands and server do not work on the same projects."
    same = f"Start server and commands with the same environment or .env file (here MODEL_DIR = {settings.model_dir})"
    versions = trusting_session().get(f"{url}/versions", auth=pair, timeout=patience)
    if versions.status_code == 401:
        shown = "these BASIC_AUTH_USER and BASIC_AUTH_PASS" if user else "calls without BASIC_AUTH_USER"
        return problem("server", f"nextmask at {url} refuses {shown} (401)", why, same)
    if user and secret:
        hook = trusting_session().post(f"{url}/webhook", headers={SECRET_HEADER: secret}, timeout=patience)
        if hook.status_code == 401:  # an empty body that was let in is a 400
            message = f"nextmask at {url} does not know the webhook secret of this MODEL_DIR"
            return problem("server", message, f"{why} Webhooks are refused.", same)
    published = {project.published_version for project in store.projects()} - {""} if store else set()
    if versions.ok and not published <= set(versions.json().get("versions", [])):
        message = f"nextmask at {url} does not know the versions {', '.join(sorted(published))} of this MODEL_DIR"
        return problem("server", message, why, same)
    return ok("server", f"nextmask {__version__} answers at {url}")
