"""The HTTP server: what Label Studio calls, and the dashboard. Wiring only; predictions are made in `model`.

`create_app(settings)` opens the store and nothing heavy: networks are loaded by the first prediction that needs them.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Protocol

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, FastAPI, HTTPException, Request, Response, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBasic
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import HTTPConnection

from ml_backend import __version__
from ml_backend.dashboard import add_dashboard
from ml_backend.errors import DiskFull, NextmaskError
from ml_backend.projects.connection import DISCONNECTING
from ml_backend.projects.services import NO_VERSION, Services, open_services, webhook_secret
from ml_backend.projects.settings import is_news
from ml_backend.server.authentication import OPEN_PATHS, protect
from ml_backend.server.health import add_health
from ml_backend.server.metrics import Metrics, add_metrics
from ml_backend.server.model import NextmaskModel, payload_project
from ml_backend.server.request_bodies import RequestBodies
from ml_backend.server.request_log import REQUEST_ID, RequestLog
from ml_backend.settings import Settings, params_text
from ml_backend.store import Store
from ml_backend.system.logs import hide, note, noted
from ml_backend.system.memory import give_back

logger = logging.getLogger(__name__)

PREDICT_THREADS = 8
WEBHOOK_THREADS = 4
_SHOWN_PROBLEMS = 5
"""Own threads: predictions that use up theirs must not keep webhooks waiting, which are lost after a second."""


class SetupRequest(BaseModel):
    """What Label Studio sends when a backend is added, changed or listed. The token in it is not used."""

    model_config = ConfigDict(extra="ignore")
    project: str | int = Field(description='Project id and creation time, "3.1700000000".')
    schema_: str = Field("", alias="schema", description="Labelling configuration (XML).")
    extra_params: Any = Field(None, description="Settings of this project.")


class PredictRequest(BaseModel):
    """Tasks to predict."""

    model_config = ConfigDict(extra="ignore")
    tasks: list[dict[str, Any]]
    project: str | int | None = None
    label_config: str | None = None
    params: dict[str, Any] | None = None


class Prediction(BaseModel):
    """One task's prediction."""

    result: list[dict[str, Any]]
    score: float
    model_version: str


class PredictResponse(BaseModel):
    """One prediction per task, in the order of the request."""

    results: list[Prediction]
    model_version: str


class VersionRequest(BaseModel):
    """Which project's versions are asked for."""

    model_config = ConfigDict(extra="ignore")
    project: str | int | None = None


class Problem(BaseModel):
    """What was wrong, in words."""

    detail: str


class Versions(BaseModel):
    """Version strings, the one that is published first."""

    versions: list[str]
    message: str = "success"


_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status.HTTP_400_BAD_REQUEST: {"description": "The body cannot be read."},
    status.HTTP_401_UNAUTHORIZED: {"description": "User and password are missing or wrong."},
    status.HTTP_403_FORBIDDEN: {"description": "A page of another site sent the request."},
    status.HTTP_408_REQUEST_TIMEOUT: {"description": "The body came too slowly."},
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: {"description": "The body is larger than NEXTMASK_MAX_REQUEST_BYTES."},
    HTTPStatus.UNPROCESSABLE_ENTITY: {"description": "The body or a parameter has another form."},
    status.HTTP_503_SERVICE_UNAVAILABLE: {"description": "Something that is needed is missing now: try again later."},
}
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    int(code): {"model": Problem, **problem} for code, problem in _PROBLEMS.items()
}
"""What any operation may answer besides what it is there for."""
_EVENT_BODY: Final = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["action", "project"],
                "properties": {
                    "action": {"type": "string"},
                    "project": {
                        "type": "object",
                        "required": ["id"],
                        "properties": {"id": {"type": "integer", "minimum": 1, "maximum": 99_999_999_999}},
                    },
                },
            }
        }
    },
}
"""The description of /webhook's body, which is read by hand: what else is in it does not matter."""


class OwnWorker(AbstractContextManager[object], Protocol):
    """A worker process beside the server, such as `supervisor.WorkerProcess`."""

    @property
    def pid(self) -> int | None:
        """Process id of the worker that runs now; None where none does."""
        ...


def create_app(settings: Settings, *, worker: OwnWorker | None = None) -> FastAPI:
    """Make the web application.

    Args:
        worker: entered when the server starts and left when it ends.
    """
    services = open_services(settings)
    secret = webhook_secret(services)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with worker or nullcontext():
            yield
        services.store.close()

    app = FastAPIOffline(
        title="nextmask",
        version=__version__,
        summary="Label Studio ML backend for semantic segmentation",
        lifespan=lifespan,
        responses=_ANSWERS,
        dependencies=[Depends(_Documented(scheme_name="HTTPBasic", description="BASIC_AUTH_USER and BASIC_AUTH_PASS"))],
    )
    worker_pid = None if worker is None else lambda: worker.pid
    metrics = Metrics(services, worker_pid=worker_pid)
    app.openapi = partial(_description, app.openapi)  # type: ignore[method-assign]  # as FastAPI's manual does it
    app.add_middleware(RequestBodies, settings=settings)  # the first one added is the innermost
    protect(app, settings, secret)
    add_metrics(app, metrics)
    app.add_middleware(RequestLog)  # the outermost: what the others refuse is logged and counted, too
    hide(secret, settings.basic_auth_pass.get_secret_value(), settings.label_studio_api_key.get_secret_value())
    app.state.services = services
    add_health(app, services, worker_pid=worker_pid)
    _add_protocol(app, services, metrics)
    add_dashboard(app, services)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(NextmaskError, _expected)
    app.add_exception_handler(Exception, _unexpected)
    return app


def version_of(services: Services, project: str | int | None) -> str:
    """Return the version that /setup and /predict answer for a project: never null, the same for both."""
    project_id = payload_project({"project": project})
    found = None if project_id is None else services.store.project(project_id)
    return found.published_version if found and found.published_version else NO_VERSION


def _add_protocol(app: FastAPI, services: Services, metrics: Metrics) -> None:
    predictions, webhooks = CapacityLimiter(PREDICT_THREADS), CapacityLimiter(WEBHOOK_THREADS)

    @app.post("/setup", tags=["protocol"])
    def setup(body: SetupRequest) -> dict[str, str]:
        """Say which version predicts; the worker looks at the project when this is news."""
        project_id = payload_project({"project": body.project})
        note(project=project_id)
        if project_id is not None:
            _take_setup(services.store, project_id, body.extra_params)
        return {"model_version": version_of(services, body.project)}

    @app.post("/predict", tags=["protocol"])
    async def predict(body: PredictRequest) -> PredictResponse:
        """Predict masks: one answer per task, in order."""
        note(project=payload_project({"project": body.project}))
        model, started = NextmaskModel(body.project, body.label_config, services=services), time.perf_counter()
        context = (body.params or {}).get("context")
        results = await to_thread.run_sync(_predict, model, body.tasks, context, limiter=predictions)
        metrics.predicted(len(results), model.failures, time.perf_counter() - started)
        version = results[0]["model_version"] if results else version_of(services, body.project)
        return PredictResponse(results=[Prediction(**result) for result in results], model_version=version)

    @app.post(
        "/webhook",
        tags=["protocol"],
        status_code=status.HTTP_201_CREATED,
        openapi_extra={"requestBody": _EVENT_BODY},
    )
    async def webhook(request: Request) -> dict[str, str]:
        """Note that something changed; the worker asks Label Studio what."""
        body = await request.body()
        return await to_thread.run_sync(_take_event, services, body, metrics, limiter=webhooks)

    @app.get("/versions", tags=["protocol"])
    def versions(project: str | None = None) -> Versions:
        """List the versions that predictions in Label Studio may carry."""
        return _versions(services, project)

    @app.post("/versions", tags=["protocol"])
    def versions_of(body: VersionRequest) -> Versions:
        """List versions, as older hosts ask for them."""
        return _versions(services, body.project)


def _predict(model: NextmaskModel, tasks: list[dict[str, Any]], context: Any) -> list[dict[str, Any]]:
    try:
        return model.predict(tasks, context=context)
    finally:
        give_back()


def _take_setup(store: Store, project_id: int, extra_params: object) -> None:
    """Wake the worker for a new project or other settings, and only then.

    Label Studio calls /setup at every listing of backends, the worker's own included: to wake it each time would
    never end.
    """
    known, text = store.project(project_id), params_text(extra_params)
    if known is not None and known.state == DISCONNECTING:
        return
    if known is not None and known.managed and not is_news(store, known, text):
        return
    try:
        store.wake(project_id, manage=True, extra_params=text)
    except DiskFull as error:  # Label Studio calls again at the next listing, and the version can be told
        logger.error("project=%s its settings are not noted: %s", project_id, error)


def _versions(services: Services, project: str | int | None) -> Versions:
    """The published version first, then those of the other models on disk; of all projects when none is named."""
    project_id = payload_project({"project": project})
    known = services.store.projects()
    chosen = [one for one in known if project_id is None or one.id == project_id]
    published = [one.published_version for one in chosen if one.published_version]
    older = [version for one in chosen for version in services.store.versions(one.id)]
    return Versions(versions=list(dict.fromkeys([*published, *older])))


def _take_event(services: Services, body: bytes, metrics: Metrics) -> dict[str, str]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, f"The body is not JSON: {error}.") from None
    action = payload.get("action") if isinstance(payload, dict) else None
    project_id = payload_project(payload) if isinstance(payload, dict) else None
    if not isinstance(action, str) or project_id is None:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "A webhook body needs an action and a project with an id.")
    note(project=project_id)
    metrics.webhook(action)
    NextmaskModel(project_id, services=services).fit((), event=action, data=payload)
    logger.info("project=%s event=%.40r", project_id, action)
    return {"status": "noted"}


def _description(made: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the API's description; FastAPI cannot say of one operation that it asks for no password."""
    found = made()
    for path in OPEN_PATHS:
        operation = found["paths"][path]["get"]
        operation.pop("security", None)
        operation["responses"].pop(str(int(HTTPStatus.UNAUTHORIZED)), None)
    return found


class _Documented(HTTPBasic):
    """Tells the API page how to get in, and checks nothing: `authentication.Authentication` does."""

    async def __call__(self, request: HTTPConnection) -> None:
        """Let pass."""


async def _invalid(_: Request, error: Exception) -> Response:
    """Say what does not fit and where. FastAPI's own answer sends back what was sent, tokens and masks included."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    if any(item["type"] == "json_invalid" for item in found):
        problems = ["it is not JSON"]
    else:
        problems = [f"{'.'.join(map(str, item['loc'][1:])) or 'body'}: {item['msg']}" for item in found]
    detail = f"The request cannot be read: {'; '.join(problems[:_SHOWN_PROBLEMS])}."
    return JSONResponse({"detail": detail}, HTTPStatus.UNPROCESSABLE_ENTITY)


async def _expected(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, status_code=status.HTTP_503_SERVICE_UNAVAILABLE)


async def _unexpected(_: Request, error: Exception) -> Response:
    # The log has the traceback (uvicorn writes it); clients get none.
    body = {"detail": f"Internal error ({type(error).__name__}); see nextmask's log."}
    headers = {REQUEST_ID: str(noted().get("request", ""))}
    return JSONResponse(body, status_code=500, headers=headers)
