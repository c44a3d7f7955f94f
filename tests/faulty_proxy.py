"""An HTTP proxy that goes wrong on demand: between nextmask and Label Studio, or between Label Studio and nextmask.

    with FaultyProxy(studio.url) as proxy:
        proxy.fault(answer(500), path="/api/")              # all calls of the API, until `clear`
        proxy.fault(lose_answer, method="POST", path="import/predictions", times=1)

A fault is a function of the handler (one request, already read) that answers, forwards, or hangs up. Requests that no
fault is for are passed on as they are. `calls` tells what came through.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length", "host"}


@dataclass(frozen=True)
class Answer:
    """An answer to be sent."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Call:
    """A request as it came."""

    method: str
    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...]


@dataclass
class _Rule:
    fault: Fault
    method: str
    path: str
    times: int | None
    share: float
    seen: int = 0

    def fits(self, call: Call) -> bool:
        return self.times != 0 and self.method in ("", call.method) and self.path in call.path


class Handler(BaseHTTPRequestHandler):
    """One request; faults use `call`, `forward`, `send` and `hang_up`."""

    protocol_version = "HTTP/1.1"
    server: _Server
    call: Call

    def handle_one(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        kept = tuple((name, value) for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP)
        self.call = Call(self.command, self.path, self.rfile.read(length), kept)
        proxy = self.server.proxy
        with suppress(ConnectionError):
            fault = proxy.taken(self.call)
            fault(self)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = do_HEAD = handle_one  # noqa: N815 (names that the library calls)

    def forward(self, call: Call | None = None) -> Answer:
        """Pass the request on and return the answer; 502 where nobody answers."""
        return self.server.proxy.forward(call or self.call)

    def send(self, answer: Answer, *, promised: int | None = None) -> None:
        """Send an answer, maybe with another length than it has."""
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body) if promised is None else promised))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def hang_up(self) -> None:
        """Close the connection as it is."""
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


Fault = Callable[[Handler], None]


# -- faults -----------------------------------------------------------------------------------------------------------
def passed_on(handler: Handler) -> None:
    handler.send(handler.forward())


def answer(status: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer so, and pass nothing on."""
    fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return lambda handler: handler.send(Answer(status, body, fields))


def login_page(handler: Handler) -> None:
    """Answer as a single sign-on in front of the host does."""
    page = b"<!doctype html><html><body><form action='/login'>Please sign in</form></body></html>"
    handler.send(Answer(200, page, (("Content-Type", "text/html"),)))


def not_answered(handler: Handler) -> None:
    """Hang up without passing it on."""
    handler.hang_up()


def lose_answer(handler: Handler) -> None:
    """Pass the request on, and hang up instead of answering."""
    handler.forward()
    handler.hang_up()


def cut(handler: Handler) -> None:
    """Hang up in the middle of the answer's body."""
    found = handler.forward()
    handler.send(Answer(found.status, found.body[: len(found.body) // 2], found.headers), promised=len(found.body) + 1)
    handler.hang_up()


def truncated(handler: Handler) -> None:
    """Answer with half of the body as if it were all."""
    found = handler.forward()
    handler.send(Answer(found.status, found.body[: len(found.body) // 2], found.headers))


def slow(seconds: float) -> Fault:
    """Answer late; the request is passed on at once."""

    def late(handler: Handler) -> None:
        found = handler.forward()
        handler.server.proxy.ended.wait(seconds)
        handler.send(found)

    return late


def held(until: threading.Event) -> Fault:
    """Pass the request on later, whoever has hung up meanwhile."""

    def late(handler: Handler) -> None:
        until.wait(300)
        handler.send(handler.forward())

    return late


def changed(change: Callable[[Any], Any]) -> Fault:
    """Change the JSON that is answered; other answers, empty ones among them, stay as they are."""

    def other(handler: Handler) -> None:
        found = handler.forward()
        body = found.body
        with suppress(ValueError):
            body = json.dumps(change(json.loads(body))).encode()
        handler.send(Answer(found.status, body, found.headers))

    return other


def doubled(handler: Handler) -> None:
    """Pass the request on twice."""
    handler.forward()
    handler.send(handler.forward())


def swallowed(handler: Handler) -> None:
    """Say that all is well, and pass nothing on."""
    handler.send(Answer(200, b"{}", (("Content-Type", "application/json"),)))


# -- the proxy --------------------------------------------------------------------------------------------------------
class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, proxy: FaultyProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_arguments: object) -> None:
        """Callers that hang up are no news."""


class FaultyProxy:
    """A proxy in front of one server, on a port of its own.

    Attributes:
        calls: what came through, in order of arrival.
        ended: set at the end, so that nothing sleeps on.
    """

    def __init__(self, target: str, *, seed: int = 0) -> None:
        self.target, self._random = target, random.Random(seed)
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self.calls: list[Call] = []
        self.ended = threading.Event()
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def fault(
        self, fault: Fault, *, method: str = "", path: str = "", times: int | None = None, share: float = 1.0
    ) -> _Rule:
        """Let requests go wrong: those of this method whose path holds this text, so many times, or a share of them."""
        rule = _Rule(fault, method, path, times, share)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Let everything through again."""
        with self._lock:
            self._rules.clear()

    def taken(self, call: Call) -> Fault:
        """Note a call, and say what becomes of it."""
        with self._lock:
            self.calls.append(call)
            for rule in self._rules:
                if rule.fits(call) and self._random.random() < rule.share:
                    rule.seen += 1
                    rule.times = None if rule.times is None else rule.times - 1
                    return rule.fault
        return passed_on

    def forward(self, call: Call) -> Answer:
        """Send a call to the server behind, again maybe, and return its answer; 502 where there is none."""
        host = urlsplit(self.target)
        connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=60)
        try:
            connection.request(call.method, call.path, call.body, dict(call.headers) | {"Host": host.netloc})
            found = connection.getresponse()
            kept = tuple((name, value) for name, value in found.getheaders() if name.lower() not in _HOP_BY_HOP)
            return Answer(found.status, found.read(), kept)
        except (OSError, http.client.HTTPException):
            return Answer(502, b"<html>502 Bad Gateway</html>", (("Content-Type", "text/html"),))
        finally:
            connection.close()


def wait_until_seen(rule: _Rule, *, times: int = 1, seconds: float = 60.0) -> None:
    """Wait until a fault has happened so often."""
    until = time.monotonic() + seconds
    while rule.seen < times:
        assert time.monotonic() < until, f"{rule.fault} was met {rule.seen} times only"
        time.sleep(0.05)
