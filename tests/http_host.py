"""A small HTTP server with real sockets: answers by path and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from servers import answering


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None  # what Content-Length claims


Route = Callable[[Request], Answer]


@dataclass
class Host:
    """Answers by path; keeps every request."""

    routes: dict[str, Route] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def route(self, path: str, *answers: Any) -> None:
        """Give these answers in turn, the last one for ever."""
        queue = [answer if isinstance(answer, Answer) else Answer(answer) for answer in answers]
        self.routes[path] = lambda _: queue.pop(0) if len(queue) > 1 else queue[0]

    def seen(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    @contextmanager
    def serving(self, certificate: Path | None = None) -> Iterator[Host]:
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def handle_any(self) -> None:
                address = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, address.path, parse_qs(address.query), dict(self.headers.items()), body)
                host.requests.append(request)
                route = host.routes.get(address.path, lambda _: Answer({"detail": "Not found."}, 404))
                answer = route(request)
                content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content) if answer.length is None else answer.length))
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = answer.length is not None

        for method in ("GET", "POST", "PATCH", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.handle_any)
        with answering(Handler, certificate) as self.url:
            yield self
