"""Gives every request an id, and the log a line about it."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from ml_backend.server.middleware import HttpMiddleware
from ml_backend.system.logs import begin

logger = logging.getLogger(__name__)

REQUEST_ID: Final = "X-Request-ID"
"""Header of requests and answers."""
_VALID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ASKED_OFTEN: Final = frozenset({"/health", "/ready", "/metrics"})
_LONGEST_PATH: Final = 200


class RequestLog(HttpMiddleware):
    """ASGI middleware that logs requests; it takes the id that a proxy has given, or makes an id, and sends it back.

    The line has method, path, status and milliseconds: no query, and nothing of headers and bodies, where secrets are.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, and log it when it is answered."""
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _VALID.fullmatch(given) else uuid.uuid4().hex
        status, started = 500, time.perf_counter()

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        begin(request=request_id)  # each request is a task of its own; its traceback is logged outside of this
        try:
            await self.app(scope, receive, with_id)
        finally:
            milliseconds = 1000 * (time.perf_counter() - started)
            level = logging.DEBUG if scope["path"] in _ASKED_OFTEN else logging.INFO
            shown = {"method": scope["method"], "path": _path(scope), "status": status, "ms": round(milliseconds, 1)}
            logger.log(level, "%(method)s %(path)s %(status)s %(ms)s ms", shown, extra={"http": shown})


def _path(scope: Scope) -> str:
    """Return the path as it was sent: what its escapes stand for could be another line."""
    raw = scope.get("raw_path") or scope["path"].encode()
    return str(raw[:_LONGEST_PATH].partition(b"?")[0].decode("ascii", "backslashreplace"))
