"""The addresses of pictures: files for the pages that show them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from anyio import CapacityLimiter, Semaphore, to_thread
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response

from ml_backend.annotations.boxes import boxes_to_text
from ml_backend.dashboard.pages import MAX_ID, ProjectId, internal_error
from ml_backend.dashboard.pictures import (
    LARGE_SIDE,
    SIDE,
    Drawing,
    NoPicture,
    Picture,
    Pictures,
    Subject,
    Subjects,
    placeholder,
)
from ml_backend.store import Store
from ml_backend.system.memory import release_freed_memory

logger = logging.getLogger(__name__)

THREADS: Final = 4
"""Pictures that are made at a time, on threads of their own: other requests never wait for them."""
_KEPT: Final = "private, max-age=300"
_GONE: Final = 499
"""Status of an answer to nobody: the visitor left before the picture was begun."""
TaskId = Annotated[int, Path(ge=1, le=MAX_ID)]
VersionNumber = Annotated[int, Query(ge=1, le=MAX_ID)]


@dataclass(frozen=True)
class _Wanted:
    """A request for a picture of a task.

    Attributes:
        side: longest side of the picture, in pixels.
    """

    request: Request
    project_id: int
    task_id: int
    side: int


def _wanted(request: Request, project_id: ProjectId, task_id: TaskId, large: bool = False) -> _Wanted:
    return _Wanted(request, project_id, task_id, LARGE_SIDE if large else SIDE)


Wanted = Annotated[_Wanted, Depends(_wanted)]


def add_pages(router: APIRouter, store: Store, subjects: Subjects, pictures: Pictures) -> None:
    """Add `/projects/{project_id}/tasks/{task_id}/image`, and likewise the other pictures of a task.

    Each takes `?large=1`.
    """
    answers = _Answers(subjects)

    @router.get("/projects/{project_id}/tasks/{task_id}/image")
    async def image(wanted: Wanted) -> Response:
        return await answers.picture(wanted, pictures.image)

    @router.get("/projects/{project_id}/tasks/{task_id}/mask")
    async def mask(wanted: Wanted) -> Response:
        return await answers.picture(wanted, pictures.mask)

    @router.get("/projects/{project_id}/tasks/{task_id}/uncertainty")
    async def uncertainty(wanted: Wanted) -> Response:
        return await answers.picture(wanted, pictures.uncertainty)

    @router.get("/projects/{project_id}/tasks/{task_id}/regions")
    async def regions(wanted: Wanted) -> Response:
        def draw(subject: Subject) -> Drawing:
            boxes, points = store.asked_of(wanted.project_id, wanted.task_id)
            return pictures.regions(subject, boxes or _published(store, subject), points)

        return await answers.picture(wanted, draw)

    @router.get("/projects/{project_id}/tasks/{task_id}/truth")
    async def truth(wanted: Wanted) -> Response:
        return await answers.picture(wanted, pictures.truth)

    @router.get("/projects/{project_id}/tasks/{task_id}/prediction")
    async def prediction(wanted: Wanted, version: VersionNumber) -> Response:
        return await answers.picture(wanted, lambda subject: pictures.predicted(subject, version))

    @router.get("/projects/{project_id}/tasks/{task_id}/difference")
    async def difference(wanted: Wanted, a: VersionNumber, b: VersionNumber) -> Response:
        return await answers.picture(wanted, lambda subject: pictures.difference(subject, a, b))


def _published(store: Store, subject: Subject) -> str:
    """Return the boxes that a task was published with, as text: of audit images, whose points no ranking knows."""
    task = subject.task.task_id
    query = store.published_queries(subject.project.id, task).get((task, subject.project.published_version))
    return boxes_to_text(query.boxes) if query else ""


class _Answers:
    """Answers with a picture or, where there is none, with a picture of the reason."""

    def __init__(self, subjects: Subjects) -> None:
        self._subjects, self._places = subjects, Semaphore(THREADS)
        self._threads = CapacityLimiter(THREADS)

    async def picture(self, wanted: _Wanted, draw: Callable[[Subject], Drawing]) -> Response:
        """Answer with a picture of a task; of a visitor who has left while others were drawn, nothing is drawn.

        Args:
            draw: what to draw of the task.

        Raises:
            HTTPException: 404, there is no such task in that project.
        """
        async with self._places:
            if await wanted.request.is_disconnected():
                return Response(status_code=_GONE)
            return await to_thread.run_sync(self._answer, wanted, draw, limiter=self._threads)

    def _answer(self, wanted: _Wanted, draw: Callable[[Subject], Drawing]) -> Response:
        known = wanted.request.headers.get("If-None-Match", "")
        try:
            subject = self._subjects.find(wanted.project_id, wanted.task_id, wanted.side)
            if subject is None:
                raise HTTPException(404, f"Project {wanted.project_id} has no task {wanted.task_id}.")
            drawing = draw(subject)
            headers = {"ETag": f'"{drawing.tag}"', "Cache-Control": _KEPT}
            if headers["ETag"] in known:
                return Response(status_code=304, headers=headers)
            picture = drawing.draw()
        except NoPicture as error:
            return _instead(str(error))
        except HTTPException:
            raise
        except Exception as error:
            logger.exception("project=%s task=%s no picture", wanted.project_id, wanted.task_id)
            return _instead(internal_error(error))
        finally:
            release_freed_memory()
        return _sent(picture, headers)


def _instead(reason: str) -> Response:
    """Answer with a picture of the reason, which browsers do not keep: it may change in a moment."""
    return _sent(placeholder(reason), {"Cache-Control": "no-store"})


def _sent(picture: Picture, headers: dict[str, str]) -> Response:
    return Response(picture.content, media_type=picture.media_type, headers=headers)
