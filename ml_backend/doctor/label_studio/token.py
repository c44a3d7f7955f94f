"""Whether Label Studio accepts LABEL_STUDIO_API_KEY, and what its user may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ml_backend.doctor.findings import Finding, ok, problem
from ml_backend.errors import ConfigurationError, LabelStudioError
from ml_backend.label_studio import LabelStudio
from ml_backend.label_studio.tokens import is_personal, new_token
from ml_backend.projects.services import label_studio_of
from ml_backend.settings import Settings
from ml_backend.store import Store

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
    why = "Without a token that Label Studio accepts, nothing is read or written there."
    try:
        client = label_studio_of(
            settings.model_copy(update={"request_timeout": patience, "image_seconds": patience}), store
        )
        user = client.whoami()
    except ConfigurationError as error:
        return None, problem("token", error.cause, why, error.remedy)
    except LabelStudioError as error:
        return None, _refused(settings, error, why)
    kind = "personal access token" if is_personal(settings.label_studio_api_key.get_secret_value()) else "legacy token"
    return Login(client, user), ok("token", f"{kind} of {user.get('email', _UNKNOWN)}")


def _refused(settings: Settings, error: LabelStudioError, why: str) -> Finding:
    if error.status is not None and error.status >= 500:
        message = f"Label Studio answers {error.status} to this user's calls, although it is up"
        cause = "That is what it does for a user who was removed from the organization."
        return problem("token", message, f"{cause} {why}", "Invite the user again, or use another user's token")
    return problem("token", error.cause, why, error.remedy or new_token(settings.effective_label_studio_public_url))


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
