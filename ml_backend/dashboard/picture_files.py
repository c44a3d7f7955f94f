"""Pictures of tasks, as files for the pages that show them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Final

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, HTTPException, Path, Query, Request, Response

from ml_backend.dashboard.pages import MAX_ID, ProjectId
from ml_backend.dashboard.pictures import Drawing, NoPicture, Picture, Pictures, Subject, Subjects, placeholder
from ml_backend.projects.services import Services
from ml_backend.system.memory import release_freed_memory

logger = logging.getLogger(__name__)

THREADS: Final = 4
"""Pictures that are looked for at a time, on threads of their own: other requests never wait for them."""
_KEPT: Final = "private, max-age=300"
TaskId = Annotated[int, Path(ge=1, le=MAX_ID)]
VersionNumber = Annotated[int, Query(ge=1, le=MAX_ID)]


def add_pages(router: APIRouter, services: Services, pictures: Pictures) -> None:
    """Add `/projects/{project}/tasks/{task}/…`: image, mask, uncertainty, regions, truth, prediction, difference."""
    answers = _Answers(services)

    @router.get("/projects/{project}/tasks/{task}/image")
    async def image(request: Request, project: ProjectId, task: TaskId) -> Response:
        return await answers.picture(request, project, task, pictures.image)

    @router.get("/projects/{project}/tasks/{task}/mask")
    async def mask(request: Request, project: ProjectId, task: TaskId) -> Response:
        return await answers.picture(request, project, task, pictures.mask)

    @router.get("/projects/{project}/tasks/{task}/uncertainty")
    async def uncertainty(request: Request, project: ProjectId, task: TaskId) -> Response:
        return await answers.picture(request, project, task, pictures.uncertainty)

    @router.get("/projects/{project}/tasks/{task}/regions")
    async def regions(request: Request, project: ProjectId, task: TaskId) -> Response:
        def draw(subject: Subject) -> Drawing:
            return pictures.regions(subject, services.store.asked_of(project, task))

        return await answers.picture(request, project, task, draw)

    @router.get("/projects/{project}/tasks/{task}/truth")
    async def truth(request: Request, project: ProjectId, task: TaskId) -> Response:
        return await answers.picture(request, project, task, pictures.truth)

    @router.get("/projects/{project}/tasks/{task}/prediction")
    async def prediction(request: Request, project: ProjectId, task: TaskId, version: VersionNumber) -> Response:
        return await answers.picture(request, project, task, lambda subject: pictures.predicted(subject, version))

    @router.get("/projects/{project}/tasks/{task}/difference")
    async def difference(
        request: Request, project: ProjectId, task: TaskId, a: VersionNumber, b: VersionNumber
    ) -> Response:
        return await answers.picture(request, project, task, lambda subject: pictures.difference(subject, a, b))


class _Answers:
    """Sends pictures, or what says why there is none."""

    def __init__(self, services: Services) -> None:
        self._subjects, self._limiter = Subjects(services), CapacityLimiter(THREADS)

    async def picture(self, request: Request, project: int, task: int, find: Callable[[Subject], Drawing]) -> Response:
        """Answer with a picture of a task.

        Raises:
            HTTPException: 404, there is no such task in that project.
        """
        known = request.headers.get("If-None-Match", "")
        return await to_thread.run_sync(self._answer, project, task, known, find, limiter=self._limiter)

    def _answer(self, project: int, task: int, known: str, find: Callable[[Subject], Drawing]) -> Response:
        try:
            subject = self._subjects.find(project, task)
            if subject is None:
                raise HTTPException(404, f"Project {project} has no task {task}.")
            drawing = find(subject)
            headers = {"ETag": f'"{drawing.tag}"', "Cache-Control": _KEPT}
            if headers["ETag"] in known:
                return Response(status_code=304, headers=headers)
            picture = drawing.draw()
        except NoPicture as error:
            return _instead(str(error))
        except HTTPException:
            raise
        except Exception as error:
            logger.exception("project=%s task=%s no picture", project, task)
            return _instead(f"Internal error ({type(error).__name__}); nextmask's log has more.")
        finally:
            release_freed_memory()
        return _sent(picture, headers)


def _instead(reason: str) -> Response:
    """Answer with a picture of the reason: it may be another one in a moment."""
    return _sent(placeholder(reason), {"Cache-Control": "no-store"})


def _sent(picture: Picture, headers: dict[str, str]) -> Response:
    return Response(picture.content, media_type=picture.media_type, headers=headers)
