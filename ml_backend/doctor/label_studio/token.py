"""Whether Label Studio accepts LABEL_STUDIO_API_KEY, and what its user may do."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ml_backend.doctor.findings import Finding, ok, problem
from ml_backend.errors import ConfigurationError, LabelStudioError
from ml_backend.label_studio import LabelStudio
from ml_backend.label_studio.tokens import claims_of, is_personal
from ml_backend.projects.services import label_studio_of
from ml_backend.settings import Settings
from ml_backend.store import Store

_LEGACY_LENGTH = 40
_UNKNOWN = "(it does not say)"


@dataclass(frozen=True)
class Login:
    """What a token that Label Studio accepts opens.

    Attributes:
        client: its API, with less patience than the worker's.
        user: whose token it is, as `whoami` describes them.
    """

    client: LabelStudio
    user: dict[str, Any]


def log_in(settings: Settings, store: Store | None = None, *, patience: float = 5.0) -> tuple[Login | None, Finding]:
    """Ask Label Studio whose token LABEL_STUDIO_API_KEY is.

    Args:
        store: where the address that Label Studio told of itself is kept.
        patience: seconds to wait for the answer.

    Returns:
        The login, or None where the token is refused; and the finding about the token.
    """
    key = settings.label_studio_api_key.get_secret_value().strip()
    why = "Without a token that Label Studio accepts, nothing is read or written there."
    try:
        client = label_studio_of(
            settings.model_copy(update={"request_timeout": patience, "image_seconds": patience}), store
        )
    except ConfigurationError as error:
        return None, problem("token", str(error).partition(" Create a")[0], why, _create(settings))
    try:
        user = client.whoami()
    except LabelStudioError as error:
        return None, _refused(settings, key, error, why)
    kind = "personal access token" if is_personal(key) else "legacy token"
    return Login(client, user), ok("token", f"{kind} of {user.get('email', _UNKNOWN)}")


def _create(settings: Settings) -> str:
    page = f"{settings.effective_label_studio_public_url}/user/account/personal-access-token"
    return f"Open {page}, press Create New Token, and set LABEL_STUDIO_API_KEY to it"


def _refused(settings: Settings, key: str, error: LabelStudioError, why: str) -> Finding:
    if error.status is not None and error.status >= 500:
        message = f"Label Studio answers {error.status} to this user's calls, although it is up"
        cause = "That is what it does for a user who was removed from the organization."
        return problem("token", message, f"{cause} {why}", "Invite the user again, or use another user's token")
    if error.status != 401:
        return problem("token", str(error), why, _create(settings))
    if is_personal(key):
        message = f"LABEL_STUDIO_API_KEY is refused (401): {_personal_fault(key, str(error))}"
        return problem("token", message, why, _create(settings))
    if "has been disabled" in str(error):
        message = "LABEL_STUDIO_API_KEY is a legacy token (401), and the organization does not allow this kind"
        page = f"{settings.effective_label_studio_public_url}/organization"
        allow = f"or allow them: {page}, API Tokens Settings, Legacy Tokens"
        return problem("token", message, why, f"{_create(settings)}; {allow}")
    length = "" if len(key) == _LEGACY_LENGTH else f"; its length is {len(key)}, that of a legacy token 40"
    message = f"LABEL_STUDIO_API_KEY is refused (401): Label Studio knows no such legacy token{length}"
    return problem("token", message, why, _create(settings))


def _personal_fault(key: str, message: str) -> str:
    claims = claims_of(key)
    if not claims:
        return "it is no personal access token, although it has two dots; copy it again"
    if claims.get("token_type") == "access":
        return "it is an access token, which lives five minutes; set the personal access token that creates them"
    expiry = claims.get("exp")
    if isinstance(expiry, (int, float)) and expiry < time.time():
        ended = datetime.fromtimestamp(expiry, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        return f"the personal access token expired on {ended}"
    if "blacklisted" in message:
        return "the personal access token was revoked"
    if "api/token/refresh" not in message:
        return "the organization does not allow personal access tokens (Organization, API Tokens Settings)"
    return "the personal access token is of another Label Studio, or was not copied whole"


def check_rights(user: dict[str, Any]) -> Finding:
    """Say whether the user may do what nextmask does; a host that does not list rights is believed."""
    listed = user.get("permissions")
    wanted = ("projects.view", "projects.change", "tasks.view", "predictions.any", "webhooks.change", "views.change")
    lacking = [right for right in wanted if right not in listed] if isinstance(listed, list) else []
    if lacking:
        message = f"{user.get('email', _UNKNOWN)} lacks the rights {', '.join(lacking)}"
        why = "Projects cannot be connected, or no queue published."
        return problem("rights", message, why, "Use the token of a user who may edit the projects")
    return ok("rights", "the user may edit projects, predictions and webhooks")
