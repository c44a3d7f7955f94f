"""The addresses of pictures: files for the pages that show them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Final

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, HTTPException, Path, Query, Request, Response

from ml_backend.dashboard.pages import MAX_ID, ProjectId, internal_error
from ml_backend.dashboard.pictures import Drawing, NoPicture, Picture, Pictures, Subject, Subjects, placeholder
from ml_backend.store import Store
from ml_backend.system.memory import release_freed_memory

logger = logging.getLogger(__name__)

THREADS: Final = 4
"""Pictures that are made at a time, on threads of their own: other requests never wait for them."""
_KEPT: Final = "private, max-age=300"
TaskId = Annotated[int, Path(ge=1, le=MAX_ID)]
VersionNumber = Annotated[int, Query(ge=1, le=MAX_ID)]


def add_pages(router: APIRouter, store: Store, subjects: Subjects, pictures: Pictures) -> None:
    """Add `/projects/{project_id}/tasks/{task_id}/image`, and likewise the other pictures of a task."""
    answers = _Answers(subjects)

    @router.get("/projects/{project_id}/tasks/{task_id}/image")
    async def image(request: Request, project_id: ProjectId, task_id: TaskId) -> Response:
        return await answers.picture(request, project_id, task_id, pictures.image)

    @router.get("/projects/{project_id}/tasks/{task_id}/mask")
    async def mask(request: Request, project_id: ProjectId, task_id: TaskId) -> Response:
        return await answers.picture(request, project_id, task_id, pictures.mask)

    @router.get("/projects/{project_id}/tasks/{task_id}/uncertainty")
    async def uncertainty(request: Request, project_id: ProjectId, task_id: TaskId) -> Response:
        return await answers.picture(request, project_id, task_id, pictures.uncertainty)

    @router.get("/projects/{project_id}/tasks/{task_id}/regions")
    async def regions(request: Request, project_id: ProjectId, task_id: TaskId) -> Response:
        def draw(subject: Subject) -> Drawing:
            return pictures.regions(subject, store.asked_of(project_id, task_id))

        return await answers.picture(request, project_id, task_id, draw)

    @router.get("/projects/{project_id}/tasks/{task_id}/truth")
    async def truth(request: Request, project_id: ProjectId, task_id: TaskId) -> Response:
        return await answers.picture(request, project_id, task_id, pictures.truth)

    @router.get("/projects/{project_id}/tasks/{task_id}/prediction")
    async def prediction(request: Request, project_id: ProjectId, task_id: TaskId, version: VersionNumber) -> Response:
        return await answers.picture(request, project_id, task_id, lambda subject: pictures.predicted(subject, version))

    @router.get("/projects/{project_id}/tasks/{task_id}/difference")
    async def difference(
        request: Request, project_id: ProjectId, task_id: TaskId, a: VersionNumber, b: VersionNumber
    ) -> Response:
        return await answers.picture(request, project_id, task_id, lambda subject: pictures.difference(subject, a, b))


class _Answers:
    """Answers with a picture or, where there is none, with a picture of the reason."""

    def __init__(self, subjects: Subjects) -> None:
        self._subjects, self._limiter = subjects, CapacityLimiter(THREADS)

    async def picture(
        self, request: Request, project_id: int, task_id: int, draw: Callable[[Subject], Drawing]
    ) -> Response:
        """Answer with a picture of a task.

        Args:
            draw: what to draw of the task.

        Raises:
            HTTPException: 404, there is no such task in that project.
        """
        known = request.headers.get("If-None-Match", "")
        return await to_thread.run_sync(self._answer, project_id, task_id, known, draw, limiter=self._limiter)

    def _answer(self, project_id: int, task_id: int, known: str, draw: Callable[[Subject], Drawing]) -> Response:
        try:
            subject = self._subjects.find(project_id, task_id)
            if subject is None:
                raise HTTPException(404, f"Project {project_id} has no task {task_id}.")
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
            logger.exception("project=%s task=%s no picture", project_id, task_id)
            return _instead(internal_error(error))
        finally:
            release_freed_memory()
        return _sent(picture, headers)


def _instead(reason: str) -> Response:
    """Answer with a picture of the reason, which browsers do not keep: it may change in a moment."""
    return _sent(placeholder(reason), {"Cache-Control": "no-store"})


def _sent(picture: Picture, headers: dict[str, str]) -> Response:
    return Response(picture.content, media_type=picture.media_type, headers=headers)
