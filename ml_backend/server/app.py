"""The HTTP server: what Label Studio calls, and the dashboard. Wiring only; predictions are made in `model`.

`create_app(settings)` opens the store and nothing heavy: models are loaded by the predictions that need them, and one
beforehand, once the server runs.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Protocol

from fastapi import Depends, FastAPI, Request, Response, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBasic
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from ml_backend import __version__
from ml_backend.dashboard import add_dashboard
from ml_backend.errors import NextmaskError, StoreUnavailable
from ml_backend.projects.registration import webhook_secret
from ml_backend.projects.services import open_services
from ml_backend.server.authentication import OPEN_PATHS, protect
from ml_backend.server.health import add_health
from ml_backend.server.look_ahead import preparing
from ml_backend.server.metrics import Metrics, add_metrics
from ml_backend.server.protocol import add_protocol
from ml_backend.server.request_bodies import RequestBodies
from ml_backend.server.request_log import REQUEST_ID, RequestLog
from ml_backend.server.smart_tools import SmartTools
from ml_backend.server.warm_up import warming_up
from ml_backend.settings import Settings
from ml_backend.system import logs

logger = logging.getLogger(__name__)

_SHOWN_PROBLEMS: Final = 5
_AWAY_SECONDS: Final = 5.0
"""A state database that is restarted is waited for so long; then requests are refused until it is there again."""
_RETRY_SECONDS: Final = 5


class Problem(BaseModel):
    """What was wrong, in words."""

    detail: str


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


class OwnWorker(AbstractContextManager[object], Protocol):
    """A worker process beside the server, such as `worker_process.WorkerProcess`."""

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
    store, secret = services.store, webhook_secret(settings, services.store)
    store.wait_for_database(_AWAY_SECONDS)
    smart_tools = SmartTools(services)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with worker or nullcontext(), warming_up(services), preparing(services, smart_tools):
            yield
        store.close()

    app = FastAPIOffline(
        title="nextmask",
        version=__version__,
        summary="Label Studio ML backend for semantic segmentation",
        lifespan=lifespan,
        responses=_ANSWERS,
        dependencies=[Depends(_Documented(scheme_name="HTTPBasic", description="BASIC_AUTH_USER and BASIC_AUTH_PASS"))],
    )
    worker_pid = None if worker is None else lambda: worker.pid
    metrics = Metrics(settings, store, worker_pid=worker_pid)
    app.openapi = partial(_description, app.openapi)  # type: ignore[method-assign]  # as FastAPI's manual does it
    app.add_middleware(RequestBodies, settings=settings)  # the first middleware added is the innermost
    protect(app, settings, secret)
    add_metrics(app, metrics)
    app.add_middleware(RequestLog)  # the outermost: what the others refuse is logged and counted, too
    logs.hide(secret, settings.basic_auth_pass.get_secret_value(), settings.label_studio_api_key.get_secret_value())
    app.state.services = services
    add_health(app, settings, store, worker_pid=worker_pid)
    add_protocol(app, services, metrics, smart_tools)
    add_dashboard(app, services)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(NextmaskError, _expected)
    app.add_exception_handler(Exception, _unexpected)
    return app


def _description(made: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the API's description; FastAPI cannot say of a single operation that it asks for no password."""
    description = made()
    for path in OPEN_PATHS:
        operation = description["paths"][path]["get"]
        operation.pop("security", None)
        operation["responses"].pop(str(int(HTTPStatus.UNAUTHORIZED)), None)
    return description


class _Documented(HTTPBasic):
    """Tells the API page how to get in, and checks nothing: `authentication.Authentication` does."""

    async def __call__(self, request: HTTPConnection) -> None:
        """Let pass."""


async def _invalid(_: Request, error: Exception) -> Response:
    """Say what does not fit and where. FastAPI's own answer sends back what was sent, tokens and masks included."""
    items = error.errors() if isinstance(error, RequestValidationError) else []
    if any(item["type"] == "json_invalid" for item in items):
        problems = ["it is not JSON"]
    else:
        problems = [f"{'.'.join(map(str, item['loc'][1:])) or 'body'}: {item['msg']}" for item in items]
    detail = f"The request cannot be read: {'; '.join(problems[:_SHOWN_PROBLEMS])}."
    return JSONResponse({"detail": detail}, HTTPStatus.UNPROCESSABLE_ENTITY)


async def _expected(_: Request, error: Exception) -> Response:
    headers = {"Retry-After": str(_RETRY_SECONDS)} if isinstance(error, StoreUnavailable) else {}
    return JSONResponse({"detail": str(error)}, status.HTTP_503_SERVICE_UNAVAILABLE, headers)


async def _unexpected(_: Request, error: Exception) -> Response:
    # The log has the traceback (uvicorn writes it); clients get none.
    body = {"detail": f"Internal error ({type(error).__name__}); see nextmask's log."}
    headers = {REQUEST_ID: str(logs.fields().get("request", ""))}
    return JSONResponse(body, status_code=500, headers=headers)
