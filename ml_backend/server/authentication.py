"""Who may call the server, and what browsers may do with its answers.

`Authentication` lets callers in; `CrossSite` refuses what another site makes a visitor's browser send, which carries
the visitor's password; `SecurityHeaders` tells browsers to run no script but ours and to show the pages in no frame.

Middlewares and not route dependencies, because static files and the documentation pages are no routes of the API.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI, status
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml_backend.projects.registration import SECRET_HEADER
from ml_backend.server.middleware import HttpMiddleware
from ml_backend.settings import Settings

OPEN_PATHS: Final = frozenset({"/health", "/ready"})
"""Paths that need no password."""
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_API_PAGES: Final = frozenset({"/docs", "/redoc", "/docs/oauth2-redirect"})
"""Pages of FastAPI, whose scripts stand in the page; they show nothing but the description of the API."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_API_PAGES_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; worker-src blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: with that, browsers send `Origin: null` with our own forms, too.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def protect(app: FastAPI, settings: Settings, secret: str) -> None:
    """Put the three middlewares before an application.

    Args:
        secret: what webhooks carry instead of a password.
    """
    app.add_middleware(Authentication, settings=settings, secret=secret)
    app.add_middleware(CrossSite, settings=settings)
    app.add_middleware(SecurityHeaders)  # the last added is the outermost: refusals carry the headers, too


class Authentication(HttpMiddleware):
    """ASGI middleware that lets callers in: basic authentication, or on /webhook the secret header instead."""

    def __init__(self, app: ASGIApp, *, settings: Settings, secret: str) -> None:
        super().__init__(app)
        self._secret, self._is_open = secret, not settings.basic_auth_user
        pair = f"{settings.basic_auth_user}:{settings.basic_auth_pass.get_secret_value()}"
        self._credentials = [pair.encode()]
        with suppress(UnicodeEncodeError):
            self._credentials.append(pair.encode("latin-1"))  # as Label Studio sends it

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or answer 401."""
        if self._is_let_in(scope["path"], Headers(scope=scope)):
            await self.app(scope, receive, send)
            return
        detail = "Send BASIC_AUTH_USER and BASIC_AUTH_PASS of nextmask (webhooks: its secret header)."
        headers = {"WWW-Authenticate": 'Basic realm="nextmask", charset="UTF-8"'}
        await JSONResponse({"detail": detail}, status.HTTP_401_UNAUTHORIZED, headers)(scope, receive, send)

    def _is_let_in(self, path: str, headers: Headers) -> bool:
        if self._is_open or path in OPEN_PATHS:
            return True
        if path == "/webhook" and hmac.compare_digest(headers.get(SECRET_HEADER, "").encode(), self._secret.encode()):
            return True
        scheme, _, encoded = headers.get("Authorization", "").partition(" ")
        try:
            given = base64.b64decode(encoded, validate=True) if scheme.lower() == "basic" else b""
        except ValueError:
            return False
        return any(hmac.compare_digest(given, pair) for pair in self._credentials)


class CrossSite(HttpMiddleware):
    """ASGI middleware that refuses what other sites make browsers send.

    Changes: browsers say with `Sec-Fetch-Site` or `Origin` whose page sends them; other programs, Label Studio among
    them, send neither and are let through. Reading, too, where no password protects it: a foreign name that was made
    to point to this machine (DNS rebinding) is not answered.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        super().__init__(app)
        self._is_open = not settings.basic_auth_user
        self._own_names = {urlsplit(settings.effective_backend_url).hostname, settings.host.lower()}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or answer 403."""
        problem = self._problem(scope["method"], Headers(scope=scope))
        answer = JSONResponse({"detail": problem}, status.HTTP_403_FORBIDDEN) if problem else self.app
        await answer(scope, receive, send)

    def _problem(self, method: str, headers: Headers) -> str:
        host = headers.get("Host", "")
        if self._is_open and not self._is_own(host):
            return (
                f"Without BASIC_AUTH_USER nextmask answers to its own name only, not to {host[:100]!r}: set "
                "BASIC_AUTH_USER and BASIC_AUTH_PASS, or NEXTMASK_BACKEND_URL where that is its name."
            )
        if method in _READING or is_same_site(headers):
            return ""
        return "A page of another site sent this request: it was refused. Open nextmask's own page to do this."

    def _is_own(self, host: str) -> bool:
        """Whether nobody else can make that name point here: an address, a name without a dot, a configured name."""
        name = _host_name(host)
        if name in self._own_names or "." not in name or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def is_same_site(headers: Headers) -> bool:
    """Tell whether a request comes from a page of this server, or from no page at all."""
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site is not None:
        return site in {"same-origin", "none"}
    if origin is None:
        return True
    # Host and port only: behind a proxy that ends TLS, the page's https is http here.
    return _netloc(origin) == headers.get("Host", "").lower() != ""


class SecurityHeaders(HttpMiddleware):
    """ASGI middleware that adds a content security policy, and the other headers that browsers heed."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on and add the headers to the answer."""
        policy = _API_PAGES_POLICY if scope["path"] in _API_PAGES else POLICY

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in {**_HEADERS, "Content-Security-Policy": policy}.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, add)


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # "[" without an end, which no browser sends
        return ""
