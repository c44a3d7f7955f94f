"""Tokens of Label Studio, and the rule that they are sent to Label Studio only.

Label Studio has two kinds. A legacy token is sent as it is (`Token <key>`). A personal access token is a JWT that is
never sent as a credential: it is exchanged for access tokens that are valid for five minutes (`Bearer <access>`). A JWT
has two dots, which tells the kinds apart.
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
_FALLBACK_SECONDS = 240.0  # validity of an access token that states none
_DEFAULT_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int | None]


class Token(Protocol):
    """A token of either kind."""

    advice: str  # what to do when Label Studio refuses it

    def header(self) -> str:
        """Return the value of the Authorization header, valid now."""
        ...

    def renew(self, refused: str) -> bool:
        """Discard a refused header value; return whether another may be accepted."""
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
        """Return whether the token differs from the refused header value."""
        return self._header != refused


class PersonalToken:
    """A personal access token with the last access token. Safe to use from many threads.

    Args:
        refresh: the personal access token.
        exchange: returns an access token for it.
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
        """Return `Bearer <access token>`, with a new token when the last is about to expire."""
        with self._lock:  # a single thread exchanges, the others wait for it
            if not self._header or time.monotonic() > self._ends:
                access = self._exchange(self._refresh)
                self._header = f"Bearer {access}"
                self._ends = time.monotonic() + _life(access) - _RENEW_SECONDS
            return self._header

    def renew(self, refused: str) -> bool:
        """Discard the refused access token, unless another thread has replaced it already; return True."""
        with self._lock:
            if self._header == refused:
                self._header = ""
            return True


def make_token(key: str, exchange: Callable[[str], str]) -> Token:
    """Return a token of the kind that its form tells.

    Args:
        key: the token as it was entered.
        exchange: returns an access token for a personal access token.

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
    """Whether a token is a personal access token, by its form."""
    return key.count(".") == 2


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a JSON web token, without checking its signature; {} when it is none."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}


def _life(access: str) -> float:
    """Return the seconds that an access token is valid, by its claims: Label Studio's clock may differ."""
    claims = claims_of(access)
    try:
        return float(claims["exp"]) - float(claims["iat"])
    except (KeyError, TypeError, ValueError):
        return _FALLBACK_SECONDS


def origin_of(url: str) -> Origin:
    """Return scheme, host and port of an address as the HTTP library reads it."""
    # urllib3's parser, since it opens the connection: with another parser, credentials could go elsewhere
    parsed = parse_url(url)
    scheme = (parsed.scheme or "").lower()
    return scheme, (parsed.host or "").lower(), parsed.port or _DEFAULT_PORTS.get(scheme)


class OnlyTo(AuthBase):
    """Adds the Authorization header to requests to a single origin, and no other.

    It also keeps the library requests from reading passwords in .netrc.

    Args:
        origin: of Label Studio.
        header: value of the header; None: no header.
    """

    def __init__(self, origin: Origin, header: str | None) -> None:
        self._origin, self._header = origin, header

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Add the header if the request goes to the origin. Redirects lose it: the library drops it."""
        if self._header is not None and origin_of(request.url or "") == self._origin:
            request.headers["Authorization"] = self._header
        return request
