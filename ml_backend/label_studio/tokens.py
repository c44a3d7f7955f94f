"""Tokens of Label Studio, and the rule that they are sent to Label Studio only.

Label Studio has two kinds. A legacy token is sent as it is (`Token <key>`). A personal access token is a JWT that is
never sent as a credential: it is exchanged for access tokens that are valid for five minutes (`Bearer <access>`). A JWT
has two dots, which tells the kinds apart.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, NamedTuple, Protocol

from requests import PreparedRequest
from requests.auth import AuthBase
from urllib3.util import parse_url

from ml_backend.errors import ConfigurationError

_RENEW_SECONDS = 30.0  # an access token this near to its end is replaced before it is used
_FALLBACK_SECONDS = 240.0  # validity of an access token that states none
_DEFAULT_PORTS = {"http": 80, "https": 443}

_QUOTES = "\"'`“”\u2018\u2019«»"
_SCHEME = re.compile(r"(authorization\s*:\s*)?(bearer|token)\s", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"<.*>|\[.*\]|\{.*\}|%.*%|\$.*|x+|\*+|\.+|…+|change[-_]?me|replace[-_]?me|todo|none|null"
    r"|(my|your)([-_]?(legacy|personal|access|api|auth|secret|label[-_]?studio))*[-_]?(token|key)([-_]?here)?",
    re.IGNORECASE,
)
_LEGACY_LENGTH = 40
_SIGNATURE_LENGTHS = {"HS256": 43, "HS384": 64, "HS512": 86}

EXCHANGE = "/api/token/refresh/"
"""Where a personal access token is exchanged."""


Origin = tuple[str, str, int | None]


class Fault(NamedTuple):
    """What is wrong with a token, and what to do, a sentence each. The token is in neither."""

    cause: str
    remedy: str


class Token(Protocol):
    """A token of either kind."""

    def refusal(self, answer: str) -> Fault:
        """Return why Label Studio refuses it (401).

        Args:
            answer: what it answered, with the call.
        """
        ...

    def header(self) -> str:
        """Return the value of the Authorization header, valid now."""
        ...

    def renew(self, refused: str) -> bool:
        """Discard a refused header value; return whether another may be accepted."""
        ...


class LegacyToken:
    """A token that is sent as it is. New organisations do not accept this kind until someone allows it."""

    def __init__(self, key: str, url: str) -> None:
        self._length, self._header, self._url = len(key), f"Token {key}", url

    def __repr__(self) -> str:
        return "LegacyToken(…)"

    def refusal(self, answer: str) -> Fault:
        """Return why Label Studio refuses it (401)."""
        if "has been disabled" in answer:
            return Fault(
                "LABEL_STUDIO_API_KEY holds a legacy token, and the organization does not allow this kind.",
                f"{new_token(self._url)} Or let an administrator allow them: {self._url}/organization, API Tokens "
                "Settings, Legacy Tokens.",
            )
        said = "Label Studio does not know the legacy token in LABEL_STUDIO_API_KEY"
        if self._length != _LEGACY_LENGTH:
            said += f"; it has {self._length} characters, and Label Studio's have {_LEGACY_LENGTH}"
        return Fault(f"{said}.", new_token(self._url))

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
        url: address of Label Studio.
        exchange: returns an access token for it.
    """

    def __init__(self, refresh: str, url: str, exchange: Callable[[str], str]) -> None:
        self._refresh, self._url, self._exchange = refresh, url, exchange
        self._lock = threading.Lock()
        self._header = ""
        self._ends = 0.0

    def __repr__(self) -> str:
        return "PersonalToken(…)"

    def refusal(self, answer: str) -> Fault:
        """Return why Label Studio refuses it (401)."""
        expiry = claims_of(self._refresh).get("exp")
        if isinstance(expiry, (int, float)) and expiry < time.time():
            fault = f"expired on {datetime.fromtimestamp(expiry, timezone.utc):%Y-%m-%d %H:%M} UTC"
        elif "blacklisted" in answer:
            fault = "was revoked"
        elif EXCHANGE in answer:
            fault = "is of another Label Studio, was not copied whole, or is older than Label Studio's secret key"
        else:
            return Fault(
                "LABEL_STUDIO_API_KEY holds a personal access token, and the organization does not allow this kind.",
                f"Let an administrator allow them: {self._url}/organization, API Tokens Settings.",
            )
        return Fault(f"The personal access token in LABEL_STUDIO_API_KEY {fault}.", new_token(self._url))

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


def make_token(key: str, url: str, exchange: Callable[[str], str]) -> Token:
    """Return a token of the kind that its form tells.

    Args:
        key: the token as it was entered. White space around it, such as the end of a line, is no part of it.
        url: address of Label Studio.
        exchange: returns an access token for a personal access token.

    Raises:
        ConfigurationError: no token has that form; it says what was copied instead.
    """
    key = key.strip()
    if fault := _fault_of(key, url):
        raise ConfigurationError(*fault)
    return PersonalToken(key, url, exchange) if is_personal(key) else LegacyToken(key, url)


def new_token(url: str) -> str:
    """Say where a token is made.

    Args:
        url: address of Label Studio.
    """
    return (
        "Create a Personal Access Token in Label Studio under Account & Settings "
        f"({url}/user/account/personal-access-token), and set LABEL_STUDIO_API_KEY to it."
    )


def _fault_of(key: str, url: str) -> Fault | None:
    """Say why Label Studio makes no such token; None where it may."""
    again = "Copy the token again."
    if not key:
        return Fault("LABEL_STUDIO_API_KEY is not set.", new_token(url))
    if _PLACEHOLDER.fullmatch(key):
        return Fault("LABEL_STUDIO_API_KEY holds a placeholder instead of a token.", new_token(url))
    if key[0] in _QUOTES or key[-1] in _QUOTES:
        remedy = "Leave them out, and look whether other values are quoted in the same way."
        return Fault("LABEL_STUDIO_API_KEY has quotes around the token, which reach nextmask as a part of it.", remedy)
    if scheme := _SCHEME.match(key):
        remedy = "Set it to the token alone, without what stands before it."
        return Fault(f"LABEL_STUDIO_API_KEY begins with {scheme[0].strip()!r}.", remedy)
    if "://" in key:
        return Fault("LABEL_STUDIO_API_KEY holds an address instead of a token.", new_token(url))
    if "\n" in key or "\r" in key:
        return Fault("LABEL_STUDIO_API_KEY goes over several lines.", "Set it to one token, in one line.")
    if any(character.isspace() for character in key):
        return Fault("LABEL_STUDIO_API_KEY has a space in it, which no token has.", again)
    if not key.isascii() or not key.isprintable():
        return Fault("LABEL_STUDIO_API_KEY has a character in it that no token has.", again)
    return _fault_of_parts(key, url)


def _fault_of_parts(key: str, url: str) -> Fault | None:
    """Say what a personal access token lacks, which has three parts with dots between."""
    parts = key.split(".")
    algorithm, filled = str(_decoded(parts[0]).get("alg", "")), [part for part in parts if part]
    if not algorithm or len(parts) > 3:
        if len(parts) == 1:
            return None
        return Fault("LABEL_STUDIO_API_KEY has dots in it and is no personal access token.", new_token(url))
    if len(filled) < 3:
        parts_there = f"{len(filled)} of the three parts of a personal access token"
        return Fault(
            f"LABEL_STUDIO_API_KEY holds {parts_there}: Label Studio shows the last one when it creates the token, and "
            "never again.",
            new_token(url),
        )
    if len(parts[2]) < _SIGNATURE_LENGTHS.get(algorithm, 0):
        return Fault("The personal access token in LABEL_STUDIO_API_KEY is cut off at its end.", new_token(url))
    if claims_of(key).get("token_type") == "access":
        return Fault(
            "LABEL_STUDIO_API_KEY holds an access token, which lives five minutes.",
            "Set it to the personal access token that creates those.",
        )
    return None


def is_personal(key: str) -> bool:
    """Whether a token is a personal access token, by its form."""
    return key.count(".") == 2


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a JSON web token, without checking its signature; {} when it is none."""
    parts = token.split(".")
    return _decoded(parts[1]) if len(parts) > 1 else {}


def _decoded(part: str) -> dict[str, Any]:
    """Return the object in a part of a JSON web token; {} where there is none."""
    try:
        content = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error):
        return {}
    return content if isinstance(content, dict) else {}


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
