"""Tokens of Label Studio, and the rule that they are sent to Label Studio only.

Label Studio knows two kinds. A legacy token is sent as it is (`Token <key>`). A personal access token is a JWT that
is itself refused as a credential: it buys access tokens that live five minutes (`Bearer <access>`). The kind shows in
the shape: a JWT has two dots.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from requests import PreparedRequest
from requests.auth import AuthBase
from urllib3.util import parse_url

from ml_backend.errors import ConfigurationError

_RENEW_SECONDS = 30.0  # an access token this near to its end is replaced before it is used
_FALLBACK_SECONDS = 240.0  # life of an access token that does not say when it ends
_DEFAULT_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int | None]


class Token(Protocol):
    """What a request needs of a token."""

    advice: str  # what to do when Label Studio refuses it

    def header(self) -> str:
        """Return the value of the Authorization header, valid now."""
        ...

    def renew(self, refused: str) -> bool:
        """Forget the header value that was refused; tell whether asking for another one makes sense."""
        ...


class LegacyToken:
    """A token that is sent as it is. New organisations do not accept this kind until someone allows it."""

    advice = (
        "LABEL_STUDIO_API_KEY holds a legacy token: an administrator can allow them under Organization > API Tokens "
        "Settings > Legacy Tokens; or create a Personal Access Token under Account & Settings and use that one"
    )

    def __init__(self, key: str) -> None:
        self._header = f"Token {key}"

    def __repr__(self) -> str:
        return "LegacyToken(…)"

    def header(self) -> str:
        """Return `Token <key>`."""
        return self._header

    def renew(self, refused: str) -> bool:
        """Tell whether there is another: never, of the one that was sent."""
        return self._header != refused


class PersonalToken:
    """A personal access token with the access token that it bought last. Safe to use from many threads.

    Args:
        refresh: the personal access token.
        exchange: buys an access token with it.
    """

    advice = (
        "LABEL_STUDIO_API_KEY holds a Personal Access Token: it was revoked or has expired, or the organisation does "
        "not allow them (Organization > API Tokens Settings); create a new one under Account & Settings > "
        "Personal Access Token"
    )

    def __init__(self, refresh: str, exchange: Callable[[str], str]) -> None:
        self._refresh, self._exchange = refresh, exchange
        self._lock = threading.Lock()
        self._header = ""
        self._ends = 0.0

    def __repr__(self) -> str:
        return "PersonalToken(…)"

    def header(self) -> str:
        """Return `Bearer <access token>`, buying a new one when the last is about to end."""
        with self._lock:  # one thread buys, the others wait for it
            if not self._header or time.monotonic() > self._ends:
                access = self._exchange(self._refresh)
                self._header = f"Bearer {access}"
                self._ends = time.monotonic() + _life(access) - _RENEW_SECONDS
            return self._header

    def renew(self, refused: str) -> bool:
        """Forget the access token that was refused, unless another thread has replaced it already."""
        with self._lock:
            if self._header == refused:
                self._header = ""
            return True


def make_token(key: str, exchange: Callable[[str], str]) -> Token:
    """Tell the kind of a token by its shape.

    Raises:
        ConfigurationError: the key is empty, or has characters that no token has.
    """
    key = key.strip()
    if not key:
        raise ConfigurationError(
            "LABEL_STUDIO_API_KEY is empty. Create a Personal Access Token in Label Studio under Account & Settings "
            "and set LABEL_STUDIO_API_KEY to it."
        )
    if not key.isascii() or any(character.isspace() for character in key):
        raise ConfigurationError(
            "LABEL_STUDIO_API_KEY has spaces or characters that no token has. Copy it again, without quotes."
        )
    return PersonalToken(key, exchange) if is_personal(key) else LegacyToken(key)


def is_personal(key: str) -> bool:
    """Tell a personal access token from a legacy one, by its shape."""
    return key.count(".") == 2


def claims_of(token: str) -> dict[str, Any]:
    """Return what a JSON web token says of itself, which nobody has checked; {} where it is none."""
    try:
        payload = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error):
        return {}
    return found if isinstance(found, dict) else {}


def _life(access: str) -> float:
    """Seconds that an access token lives by its own account; the host's clock and ours need not agree."""
    claims = claims_of(access)
    try:
        return float(claims["exp"]) - float(claims["iat"])
    except (KeyError, TypeError, ValueError):
        return _FALLBACK_SECONDS


def origin_of(url: str) -> Origin:
    """Return scheme, host and port of an address as the HTTP library reads it."""
    # urllib3's own parser: where two parsers read an address differently, credentials leak
    parsed = parse_url(url)
    scheme = (parsed.scheme or "").lower()
    return scheme, (parsed.host or "").lower(), parsed.port or _DEFAULT_PORTS.get(scheme)


class OnlyTo(AuthBase):
    """Adds the Authorization header to requests to one origin and to no other.

    It also keeps requests from looking for passwords in .netrc.
    """

    def __init__(self, origin: Origin, header: str | None) -> None:
        self._origin, self._header = origin, header

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign the request if it goes to the origin. Redirects are not signed again, and requests drops the header."""
        if self._header is not None and origin_of(request.url or "") == self._origin:
            request.headers["Authorization"] = self._header
        return request
