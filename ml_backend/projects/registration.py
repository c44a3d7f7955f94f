"""nextmask's backend and webhook in one project of Label Studio: how they are recognised, made, and removed."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from urllib3.util import parse_url

from ml_backend.errors import ConfigurationError, LabelStudioError
from ml_backend.label_studio import LabelStudio
from ml_backend.settings import Settings
from ml_backend.store import Store

BACKEND_TITLE: Final = "nextmask"
SECRET_HEADER: Final = "X-Nextmask-Secret"
WEBHOOK_ACTIONS: Final = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
    "PROJECT_UPDATED",
)
"""Events of Label Studio after which the worker looks at the project."""
SETTLE_SECONDS: Final = 1.0
"""A listing of registrations that was under way is over by then, where a listing takes less than half of it."""
_SETTLE_TRIES: Final = 8
_REACHED: Final = frozenset({"CO", "TR", "PR"})
"""States of a backend that Label Studio could talk to: connected, training, predicting."""

Row = dict[str, Any]
"""A backend or a webhook as Label Studio lists it."""


def same_address(url: object, other: str) -> bool:
    """Tell whether two addresses lead to the same place, as Label Studio and people write them."""
    return str(url or "").rstrip("/") == other.rstrip("/")


def check_backend_address(url: str) -> None:
    """Check that Label Studio can take an address of nextmask.

    Raises:
        ConfigurationError: it accepts no webhook there, and its own attempt to create one fails without a word.
    """
    host = parse_url(url).host or ""
    if "." not in host and ":" not in host:
        raise ConfigurationError(
            f"NEXTMASK_BACKEND_URL = {url!r}: Label Studio accepts no webhook to a host name without a dot.",
            "Use an IP address or a dotted alias such as nextmask.local.",
        )


def is_ours(row: Mapping[str, Any]) -> bool:
    """Tell whether nextmask made a backend or webhook, wherever it leads."""
    return row.get("title") == BACKEND_TITLE or SECRET_HEADER in (row.get("headers") or {})


def webhook_secret(settings: Settings, store: Store) -> str:
    """Return the secret of our webhooks: the setting, or the secret made at the first start."""
    given = settings.webhook_secret.get_secret_value()
    return given or store.set_default("webhook_secret", secrets.token_urlsafe(32))


class Registration:
    """The backend and the webhook of one project.

    Methods that change something return what they changed, in words. All raise LabelStudioError where Label Studio
    refuses a step or cannot be asked.

    Args:
        settings: of the installation.
        secret: what the webhook carries in its header `SECRET_HEADER`.
    """

    def __init__(self, settings: Settings, client: LabelStudio, project_id: int, *, secret: str) -> None:
        self._client, self._id, self._secret = client, project_id, secret
        self._url, self._credentials = settings.effective_backend_url, _credentials(settings)
        self._listing_seconds = 0.0

    # -- the backend --------------------------------------------------------------------------------------------------
    def backends(self) -> list[Row]:
        """Return our backends, those with today's address first: it may have moved since the last connect."""
        started = time.monotonic()
        rows = self._client.ml_backends(self._id)
        self._listing_seconds = time.monotonic() - started
        return _ours(rows, self._url)

    def register_backend(
        self, backends: list[Row], params: Mapping[str, Any], *, is_interactive: bool = False
    ) -> list[str]:
        """Leave one backend, with these settings.

        Args:
            backends: of `backends`, from a moment ago.
            params: settings of the project.
            is_interactive: whether smart tools are to ask it; else what was chosen in Label Studio stays.
        """
        fields: dict[str, Any] = {"project": self._id, "url": self._url, "title": BACKEND_TITLE, **self._credentials}
        fields["extra_params"] = dict(params)
        if is_interactive:
            fields["is_interactive"] = True
        # Listing them has just called /setup: where that failed, the address or the password has changed.
        is_unreachable = bool(backends) and backends[0].get("state") not in _REACHED
        changes = self._change_backends(backends, fields, anew=is_unreachable)
        if changes:
            # A backend that was only added is no older than any listing. There may be two, though: Label Studio on
            # SQLite carries a call out again when its database was locked half-way.
            self._settle(lambda: self._change_backends(self.backends(), fields), at_once=not backends)
        return changes

    def remove_backends(self) -> list[str]:
        """Remove all our backends."""
        changes = self._delete_backends()
        if changes:
            self._settle(self._delete_backends)
        return changes

    def _change_backends(self, backends: list[Row], fields: Mapping[str, Any], *, anew: bool = False) -> list[str]:
        if not backends:
            self._client.add_ml_backend(**fields)
            return [f"registered the backend {self._url}"]
        first, params, changes = backends[0], fields["extra_params"], []
        is_same = params_object(first.get("extra_params")) == params and same_address(first.get("url"), self._url)
        asks = bool(first.get("is_interactive")) or "is_interactive" not in fields
        if anew or not is_same or not asks:
            self._client.update_ml_backend(int(first["id"]), **fields)
        if anew or not is_same:
            changes.append(f"registered the backend anew: {self._url}, settings {json.dumps(params)}")
        if not asks:
            changes.append("smart tools ask nextmask: the backend is interactive")
        for row in backends[1:]:
            self._client.delete_ml_backend(int(row["id"]))
            changes.append("removed a second registration of nextmask")
        return changes

    def _delete_backends(self) -> list[str]:
        backends = self.backends()
        for row in backends:
            self._client.delete_ml_backend(int(row["id"]))
        return [f"removed the backend {row['url']}" for row in backends]

    def _settle(self, change: Callable[[], list[str]], *, at_once: bool = False) -> None:
        """Change backends again until that lasts.

        Label Studio saves each backend whole at the end of a listing, in which it calls their /health and /setup: a
        listing that began before a change brings back what was deleted meanwhile, and the settings of before.

        Args:
            change: changes what is not as it should be, and returns what it changed.
            at_once: look without a pause first.

        Raises:
            LabelStudioError: it does not last.
        """
        for _ in range(_SETTLE_TRIES):
            time.sleep(0.0 if at_once else max(SETTLE_SECONDS, 2 * self._listing_seconds))
            if not change():
                return
            at_once = False
        raise LabelStudioError(
            f"Label Studio undoes each change of nextmask's registration in project {self._id}: something lists the"
            " project's models all the time, a page of its settings, say. Close it, and run this again."
        )

    # -- the webhook --------------------------------------------------------------------------------------------------
    def register_webhook(self) -> list[str]:
        """Leave one webhook, with its secret and the events that matter."""
        fields: dict[str, Any] = {
            "project": self._id,
            "url": f"{self._url}/webhook",
            "send_payload": True,
            "send_for_all_actions": False,
            "is_active": True,
            "headers": {SECRET_HEADER: self._secret},
            "actions": list(WEBHOOK_ACTIONS),
        }
        webhooks = self._webhooks()
        if not webhooks:
            self._client.add_webhook(**fields)
            return ["registered the webhook"]
        changes = []
        # Registering a backend makes Label Studio add a webhook of its own: all events, and no secret.
        if any(_comparable(webhooks[0].get(name)) != _comparable(value) for name, value in fields.items()):
            self._client.update_webhook(int(webhooks[0]["id"]), **fields)
            changes.append("gave the webhook its secret and the events that matter")
        for row in webhooks[1:]:
            self._client.delete_webhook(int(row["id"]))
            changes.append("removed a doubled webhook")
        return changes

    def remove_webhooks(self) -> list[str]:
        """Remove all our webhooks."""
        webhooks = self._webhooks()
        for row in webhooks:
            self._client.delete_webhook(int(row["id"]))
        return [f"removed the webhook to {row['url']}" for row in webhooks]

    def _webhooks(self) -> list[Row]:
        return _ours(self._client.webhooks(self._id), f"{self._url}/webhook")


def params_object(extra_params: object) -> dict[str, Any]:
    """Read settings as Label Studio keeps them: whatever was typed in there, as an object or as its text."""
    if isinstance(extra_params, str):
        try:
            extra_params = json.loads(extra_params)
        except ValueError:
            return {}
    return dict(extra_params) if isinstance(extra_params, Mapping) else {}


def _ours(rows: Iterable[Row], url: str) -> list[Row]:
    ours = [row for row in rows if same_address(row.get("url"), url) or is_ours(row)]
    return sorted(ours, key=lambda row: not same_address(row.get("url"), url))


def _credentials(settings: Settings) -> dict[str, str]:
    if not settings.basic_auth_user:
        return {"auth_method": "NONE"}
    password = settings.basic_auth_pass.get_secret_value()
    return {"auth_method": "BASIC_AUTH", "basic_auth_user": settings.basic_auth_user, "basic_auth_pass": password}


def _comparable(value: object) -> object:
    return sorted(value) if isinstance(value, list) else value
