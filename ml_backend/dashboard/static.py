"""Style sheets, scripts and the icon: files of the package, named by their content so that browsers may keep them."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

FOLDER = Path(__file__).with_name("static")


def static_files() -> ASGIApp:
    """Return the application that serves them."""
    return GZipMiddleware(_Kept(directory=FOLDER), minimum_size=1000)


@functools.cache
def static_path(name: str) -> str:
    """Return a file's path below the server's root; it changes with the content.

    >>> static_path("vendor/htmx.min.js").startswith("/static/vendor/htmx.min.js?v=")
    True
    """
    return f"/static/{name}?v={hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()[:12]}"


class _Kept(StaticFiles):
    """Lets browsers keep a file for a year where its address names its content."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Answer with the file."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        by_content = scope["query_string"].startswith(b"v=")
        response.headers["Cache-Control"] = "private, max-age=31536000, immutable" if by_content else "no-cache"
        return response
