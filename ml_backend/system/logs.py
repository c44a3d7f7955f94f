"""The log: a line per event as text or JSON, with fields such as the request and the project.

The fields are in a context variable, which async tasks and their threads inherit. All code of a request shares one
dictionary, so that a project that is added later also shows on the last line of the request. Secrets are removed from
everything that is written, including tracebacks and messages of libraries.
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
"""Shorter secrets are not hidden: they would match parts of other words."""
_HIDDEN: Final = "(hidden)"
_PATTERNS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # The query of an address may be a signature that gives access to a file: all queries are hidden.
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


# -- fields -----------------------------------------------------------------------------------------------------------
@contextmanager
def belonging_to(**fields: Any) -> Iterator[None]:
    """Add fields, such as `request` and `project`, to all lines inside the block, besides those of blocks around it."""
    token = _context.set({**(_context.get() or {}), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def begin(**fields: Any) -> None:
    """Replace the fields of all further lines of this task or thread."""
    _context.set(fields)


def add_fields(**fields: Any) -> None:
    """Add fields that are not None to all further lines of the context. No effect without `begin` or `belonging_to`."""
    context = _context.get()
    if context is not None:
        context.update({name: value for name, value in fields.items() if value is not None})


def fields() -> dict[str, Any]:
    """Return a copy of the fields of lines that are written here."""
    return dict(_context.get() or {})


# -- secrets ----------------------------------------------------------------------------------------------------------
def hide(*secrets: str) -> None:
    """Remove these secrets from all further lines."""
    _secrets.update(secret for secret in secrets if len(secret) >= _SHORTEST_SECRET)


def redacted(text: str) -> str:
    """Return a text without the secrets of `hide`, and without what looks like a secret."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


# -- setting up -------------------------------------------------------------------------------------------------------
def configure(level: str, form: Format) -> None:
    """Log to standard error.

    Args:
        level: name of the least severe level that is logged.
        form: "text" or "json".
    """
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
        pairs = [f"{name}={value}" for name, value in fields().items()]
        record.context = "".join(f" {pair}" for pair in pairs if pair not in message.split())
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
