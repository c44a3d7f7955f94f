"""The log: one line per event as text or JSON, each with the request and the project that it belongs to.

What a line belongs to is kept in a context variable, which async tasks and the threads that serve them inherit; one
object per request, so that a project found out later shows on the request's own line, too. No line shows a secret:
whatever the formatter is about to write is looked through, tracebacks and texts of libraries included.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Literal

from pythonjsonlogger.json import JsonFormatter

Format = Literal["text", "json"]

_context: ContextVar[dict[str, Any] | None] = ContextVar("log_context", default=None)
_secrets: set[str] = set()
_SHORTEST_SECRET: Final = 6
"""Shorter ones would hide syllables of other words, and protect nothing."""
_HIDDEN: Final = "(hidden)"
_PATTERNS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # Addresses that storage has signed carry their permission in the query; other queries go with them.
        (r"(https?://[^\s\"'<>?\\]*|url: [^\s\"'<>?\\]*)\?[^\s\"'<>\\)]+", rf"\1?{_HIDDEN}"),
        (r"(\w+://)[^\s/@:\"']+:[^\s/@\"']+@", rf"\1{_HIDDEN}@"),
        (
            r"((?:proxy-)?authorization|x-nextmask-secret|cookie)(\\?['\"]?\s*[:=]\s*\\?['\"]?)[^'\"\r\n,}\\]+",
            rf"\1\2{_HIDDEN}",
        ),
        (r"\b(token|bearer)\s+[\w+/=.~-]{16,}", rf"\1 {_HIDDEN}"),
        (r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*", _HIDDEN),
    )
)


# -- what a line belongs to -------------------------------------------------------------------------------------------
@contextmanager
def belonging_to(**fields: Any) -> Iterator[None]:
    """Let all lines in this context carry fields, such as `request` and `project`, besides those around it."""
    token = _context.set({**(_context.get() or {}), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def begin(**fields: Any) -> None:
    """Let all lines from here on carry these fields and no others: for the whole life of a task or thread."""
    _context.set(fields)


def add_fields(**fields: Any) -> None:
    """Let the lines of the current context carry these fields, too; None is left out. No effect without a context."""
    context = _context.get()
    if context is not None:
        context.update({name: value for name, value in fields.items() if value is not None})


def fields() -> dict[str, Any]:
    """Return a copy of the fields that lines carry here."""
    return dict(_context.get() or {})


# -- secrets ----------------------------------------------------------------------------------------------------------
def hide(*secrets: str) -> None:
    """Never show these, wherever they turn up."""
    _secrets.update(secret for secret in secrets if len(secret) >= _SHORTEST_SECRET)


def redacted(text: str) -> str:
    """Return a text without secrets: those that are known, and what looks like one."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


# -- setting up -------------------------------------------------------------------------------------------------------
def configure(level: str, form: Format) -> None:
    """Log to standard error from now on, everything that the level lets through."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("alembic", "httpx", "httpx2", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def child_options() -> str:
    """Return level, format and context of this process's log as text, for `configure_child` in a child process."""
    root = logging.getLogger()
    is_json = any(isinstance(handler.formatter, _Json) for handler in root.handlers)
    form: Format = "json" if is_json else "text"
    return json.dumps({"level": logging.getLevelName(root.level), "form": form, "context": fields()})


def configure_child(options: str) -> None:
    """Log as the parent process does, with the context in which it called `child_options`."""
    given = json.loads(options)
    configure(given["level"], given["form"])
    _context.set(given["context"])


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s pid=" + str(os.getpid()) + " %(message)s%(context)s")

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        told = [f"{name}={value}" for name, value in fields().items()]
        record.context = "".join(f" {one}" for one in told if one not in message.split())
        return redacted(super().format(record))


class _Json(JsonFormatter):
    def __init__(self) -> None:
        super().__init__(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp=True,
            json_ensure_ascii=False,
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        log_data.pop("color_message", None)  # uvicorn's, for terminals
        return super().process_log_record({**log_data, "pid": os.getpid(), **fields()})

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))
