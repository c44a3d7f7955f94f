"""How much a caller may send, and how slowly.

Authentication comes first: what strangers send is never read.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml_backend.server.middleware import HttpMiddleware
from ml_backend.settings import Settings

PATIENCE_SECONDS: Final = 30.0
SLOWEST_BYTES: Final = 50_000
"""A body has `PATIENCE_SECONDS`, and a second more for so many bytes: slower callers hold it open on purpose."""
TOGETHER: Final = 2
"""Bodies of the largest size that are held at a time; each is some times larger when its JSON is read."""


class RequestBodies(HttpMiddleware):
    """ASGI middleware that refuses bodies that are too large (413), too slow (408), or too many at a time (503)."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        super().__init__(app)
        self._limit, self._held = settings.max_request_bytes, 0

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on; the errors are raised where the body is read, and become answers there."""
        stated, started, received, ended = _stated_length(scope), time.monotonic(), 0, False

        async def limited() -> Message:
            nonlocal received, ended
            if ended:
                return await receive()
            if stated > self._limit:
                raise self._too_large()
            left = started + PATIENCE_SECONDS + received / SLOWEST_BYTES - time.monotonic()
            message = await _within(left, receive)
            size = len(message.get("body", b""))
            received, self._held = received + size, self._held + size
            if received > self._limit:
                raise self._too_large()
            if self._held > TOGETHER * self._limit:
                detail = "Other large requests are being read: send this one again later."
                raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "5"})
            ended = not message.get("more_body", False)
            return message

        try:
            await self.app(scope, limited, send)
        finally:
            self._held -= received

    def _too_large(self) -> HTTPException:
        detail = (
            f"The request is larger than {self._limit} bytes, the limit set by NEXTMASK_MAX_REQUEST_BYTES: raise it, "
            "or select fewer tasks at a time."
        )
        return HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


async def _within(seconds: float, receive: Receive) -> Message:
    try:
        return await asyncio.wait_for(receive(), max(seconds, 0.001))
    except asyncio.TimeoutError:  # another class than TimeoutError before Python 3.11
        detail = "The request came too slowly: its body was not complete in time."
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"}) from None


def _stated_length(scope: Scope) -> int:
    """Return the Content-Length; 0 where there is none: such a body is counted as it comes."""
    text = Headers(scope=scope).get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
