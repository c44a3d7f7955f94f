"""What all pages share: the project that an address names, parts of long lists, and errors as pages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from ml_backend.dashboard.rendering import render
from ml_backend.errors import NextmaskError
from ml_backend.settings import Settings
from ml_backend.store import Project, Store, Task

logger = logging.getLogger(__name__)

MAX_ID = 2**31 - 1
ProjectId = Annotated[int, Path(ge=1, le=MAX_ID)]
"""Number of a Label Studio project in an address."""


PageNumber = Annotated[int, Query(ge=1, le=10**6)]
"""Number of a part of a long list in an address, counted from 1."""


@dataclass(frozen=True)
class Pager:
    """Where in a long list a page is.

    Attributes:
        page: its number, counted from 1. pages: how many there are, at least 1. total: entries of the whole list.
        start: position of the page's first entry, counted from 0.
    """

    page: int
    pages: int
    total: int
    start: int

    @classmethod
    def of(cls, page: int, total: int, size: int) -> Pager:
        """Return page `page` of a list of `total` entries, `size` on each page; the last page where it ends before."""
        pages = max(1, -(-total // size))
        page = min(page, pages)
        return cls(page, pages, total, (page - 1) * size)


def editor_address(settings: Settings, task: Task) -> str:
    """Return the address at which people open a task in Label Studio's editor."""
    return f"{settings.effective_label_studio_public_url}/projects/{task.project_id}/data?task={task.task_id}"


class PageRoute(APIRoute):
    """Answers errors with a page that says what is wrong; the traceback of an unexpected one is only logged."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request."""
        answer = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await answer(request)
            except RequestValidationError:
                return error_page(request, 404, "There is no such page: part of the address is not valid.")
            except HTTPException as error:
                return error_page(request, error.status_code, str(error.detail))
            except NextmaskError as error:
                return error_page(request, 503, str(error))
            except Exception as error:
                logger.exception("path=%r failed", request.url.path)
                return error_page(request, 500, internal_error(error))

        return guarded


def internal_error(error: Exception) -> str:
    """Return what visitors are told of an unexpected error: its type, and where the rest is."""
    return f"Internal error ({type(error).__name__}). nextmask's log has the details."


def error_page(request: Request, status_code: int, message: str) -> Response:
    """Answer with a page that says what went wrong."""
    return render(request, "error.html", status_code=status_code, message=message)


def project_of(store: Store, project_id: int) -> Project:
    """Return a connected project.

    Raises:
        HTTPException: 404, it is not connected.
    """
    project = store.project(project_id)
    if project is None or not project.managed:
        raise HTTPException(404, f"Project {project_id} is not connected. Run: nextmask connect {project_id}")
    return project
