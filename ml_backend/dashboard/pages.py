"""What all pages share: errors that are pages, too, and the project that an address names."""

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
from ml_backend.projects.services import Services
from ml_backend.store import Project

logger = logging.getLogger(__name__)

MAX_ID = 2**31 - 1
ProjectId = Annotated[int, Path(ge=1, le=MAX_ID)]
"""Number of a Label Studio project in an address."""


PageNumber = Annotated[int, Query(ge=1, le=10**6)]
"""Which part of a long list is asked for, counted from 1."""


@dataclass(frozen=True)
class Pager:
    """Where in a long list a page is; pages count from 1.

    Attributes:
        start: position of the page's first entry, counted from 0.
    """

    page: int
    pages: int
    total: int
    start: int

    @classmethod
    def of(cls, page: int, total: int, size: int) -> Pager:
        """Return the page nearest to the one that was asked for."""
        pages = max(1, -(-total // size))
        page = min(page, pages)
        return cls(page, pages, total, (page - 1) * size)


def editor_address(services: Services, project_id: int, task_id: int) -> str:
    """Return where people open a task in Label Studio."""
    return f"{services.settings.effective_label_studio_public_url}/projects/{project_id}/data?task={task_id}"


class PageRoute(APIRoute):
    """Answers errors with a page that says what is wrong; the traceback of one that nobody expected is logged only."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
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
    """Return what visitors are told of an error that nobody expected: its type, and where the rest is."""
    return f"Internal error ({type(error).__name__}). nextmask's log has the details."


def error_page(request: Request, status_code: int, message: str) -> Response:
    """Answer with a page that says what went wrong."""
    return render(request, "error.html", status_code=status_code, message=message)


def project_of(services: Services, project_id: int) -> Project:
    """Return a project that is connected.

    Raises:
        HTTPException: 404, it is not.
    """
    project = services.store.project(project_id)
    if project is None or not project.managed:
        raise HTTPException(404, f"Project {project_id} is not connected. Run: nextmask connect {project_id}")
    return project
