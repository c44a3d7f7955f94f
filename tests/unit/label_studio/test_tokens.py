"""Tokens: what was copied instead of one is told by its form, before anything is sent."""

from __future__ import annotations

import base64
import json

import pytest

from ml_backend.errors import ConfigurationError
from ml_backend.label_studio.tokens import LegacyToken, PersonalToken, Token, make_token

URL = "https://labels.example.org/label-studio"
LEGACY = "0123456789abcdef0123456789abcdef01234567"


def part(**fields: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")


HEAD, CLAIMS = part(alg="HS256", typ="JWT"), part(token_type="refresh", jti="0" * 32)
PERSONAL = f"{HEAD}.{CLAIMS}.{'s' * 43}"


def made(key: str) -> Token:
    return make_token(key, URL, str)


@pytest.mark.parametrize("key", [LEGACY, f"{LEGACY}\n", f"\t{LEGACY} \r\n", "a-token-of-ones-own-making"])
def test_legacy_tokens(key: str) -> None:
    token = made(key)
    assert isinstance(token, LegacyToken)
    assert token.header() == f"Token {key.strip()}"


def test_personal_tokens() -> None:
    assert isinstance(made(f"{PERSONAL}\n"), PersonalToken)
    # Of an algorithm that is not known here: Label Studio judges.
    assert isinstance(made(f"{part(alg='ES999')}.{CLAIMS}.s"), PersonalToken)


FAULTS = {
    "": "is not set",
    " \n": "is not set",
    f'"{LEGACY}"': "has quotes around the token",
    f"'{LEGACY}'": "has quotes around the token",
    f"“{LEGACY}”": "has quotes around the token",
    f"{LEGACY}'": "has quotes around the token",
    f"Bearer {PERSONAL}": "begins with 'Bearer'",
    f"Token {LEGACY}": "begins with 'Token'",
    f"Authorization: Token {LEGACY}": "begins with 'Authorization: Token'",
    "<token>": "placeholder",
    "your-token": "placeholder",
    "YOUR_API_KEY_HERE": "placeholder",
    "${LABEL_STUDIO_TOKEN}": "placeholder",
    "xxxxxxxx": "placeholder",
    "…": "placeholder",
    "http://localhost:8080/user/account": "an address",
    f"{LEGACY[:20]}\n{LEGACY[20:]}": "several lines",
    f"{LEGACY}\n{LEGACY}": "several lines",
    f"{LEGACY[:20]} {LEGACY[20:]}": "a space in it",
    f"{LEGACY[:20]}\x00{LEGACY[20:]}": "a character in it that no token has",
    f"{LEGACY[:20]}é": "a character in it that no token has",
    f"{HEAD}.{CLAIMS}": "holds 2 of the three parts",
    f"{HEAD}.{CLAIMS}.": "holds 2 of the three parts",
    HEAD: "holds 1 of the three parts",
    PERSONAL[:-1]: "is cut off at its end",
    f"{HEAD}.{part(token_type='access')}.{'s' * 43}": "holds an access token",
    "a.b.c": "is no personal access token",
    "a.b": "is no personal access token",
    f"{PERSONAL}.{PERSONAL}": "is no personal access token",
}


@pytest.mark.parametrize(("key", "fault"), FAULTS.items())
def test_what_is_no_token_is_told_with_what_to_do(key: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        made(key)
    assert fault in refused.value.cause
    assert refused.value.remedy
    assert "LABEL_STUDIO_API_KEY" in str(refused.value)
    assert str(refused.value).endswith(".")
    secret = max(key.strip("\"'“”").split(), key=len, default="")
    assert len(secret) < 20 or secret not in str(refused.value)


def test_a_new_token_is_made_below_the_path_of_label_studio() -> None:
    with pytest.raises(ConfigurationError, match=rf"\({URL}/user/account/personal-access-token\)"):
        made("")


def test_why_label_studio_refuses_a_token() -> None:
    legacy, personal = made(LEGACY), made(PERSONAL)
    disabled = legacy.refusal("Authentication token validation failed: legacy token authentication has been disabled")
    assert "the organization does not allow this kind" in disabled.cause
    assert f"{URL}/organization" in disabled.remedy
    assert "does not know the legacy token" in legacy.refusal("Invalid token").cause
    assert "it has 39 characters, and Label Studio's have 40" in made(LEGACY[1:]).refusal("Invalid token").cause
    assert "was revoked" in personal.refusal("POST /api/token/refresh/ with 401: Token is blacklisted").cause
    assert "of another Label Studio" in personal.refusal("POST /api/token/refresh/ with 401: Token is invalid").cause
    assert "does not allow this kind" in personal.refusal("GET /api/projects/ with 401").cause
    expired = made(f"{HEAD}.{part(token_type='refresh', exp=1_600_000_000)}.{'s' * 43}")
    assert "expired on 2020-09-13 12:26 UTC" in expired.refusal("Token is invalid").cause
