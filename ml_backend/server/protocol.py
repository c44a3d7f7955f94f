"""The protocol of Label Studio's machine learning backends: /setup, /predict, /webhook and /versions.

Predictions are made in `model`; everything else that is asked or told here is answered from the store, or kept there
for the worker.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Final

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, HTTPException, Request, status
from pydantic import BaseModel, ConfigDict, Field

from ml_backend.errors import DiskFull
from ml_backend.projects.services import Services, keep_hostname
from ml_backend.projects.settings import is_news
from ml_backend.server.metrics import Metrics
from ml_backend.server.model import NextmaskModel, payload_project, served_version, wake
from ml_backend.server.smart_tools import SmartTools, is_about_smart_tools
from ml_backend.settings import params_text
from ml_backend.store import Store
from ml_backend.store.tables import DISCONNECTING
from ml_backend.system import logs
from ml_backend.system.memory import release_freed_memory

logger = logging.getLogger(__name__)

PREDICT_THREADS: Final = 8
WEBHOOK_THREADS: Final = 4
CLICK_THREADS: Final = 2
"""Each their own: predictions that use up their threads must not keep webhooks waiting, lost after a second, nor people
who have clicked."""


class SetupRequest(BaseModel):
    """What Label Studio sends when a backend is added, changed or listed. The token in it is not used."""

    model_config = ConfigDict(extra="ignore")
    project: str | int = Field(description='Project id and creation time, "3.1700000000".')
    schema_: str = Field("", alias="schema", description="Labelling configuration (XML).")
    hostname: Any = Field(None, description="Label Studio's own address, as it knows it.")
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
    error: str | None = Field(None, description="Why a smart tool gets no suggestion, or none of some of its prompts.")


class PredictResponse(BaseModel):
    """One prediction per task, in the order of the request."""

    results: list[Prediction]
    model_version: str


class VersionRequest(BaseModel):
    """Which project's versions are asked for."""

    model_config = ConfigDict(extra="ignore")
    project: str | int | None = None


class Versions(BaseModel):
    """Version strings, the published version first."""

    versions: list[str]
    message: str = "success"


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


def add_protocol(app: FastAPI, services: Services, metrics: Metrics, smart_tools: SmartTools) -> None:
    """Add the operations that Label Studio calls.

    Args:
        smart_tools: what clicks and boxes are answered by.
    """
    store = services.store
    predictions, webhooks = CapacityLimiter(PREDICT_THREADS), CapacityLimiter(WEBHOOK_THREADS)
    clicks = CapacityLimiter(CLICK_THREADS)

    @app.post("/setup", tags=["protocol"])
    def setup(body: SetupRequest) -> dict[str, str]:
        """Say which version predicts; the worker looks at the project when this is news."""
        project_id = payload_project({"project": body.project})
        logs.add_fields(project=project_id)
        if project_id is not None:
            _take_setup(store, project_id, body)
        return {"model_version": _version(store, body.project)}

    @app.post("/predict", tags=["protocol"], response_model_exclude_none=True)
    async def predict(body: PredictRequest) -> PredictResponse:
        """Predict masks: one answer per task, in order."""
        logs.add_fields(project=payload_project({"project": body.project}))
        model, started = NextmaskModel(services, body.project, body.label_config, smart_tools), time.perf_counter()
        context = (body.params or {}).get("context")
        limiter = clicks if is_about_smart_tools(context) else predictions
        results = await to_thread.run_sync(_predict, model, body.tasks, context, limiter=limiter)
        metrics.predicted(len(results), model.failures, time.perf_counter() - started)
        version = results[0]["model_version"] if results else _version(store, body.project)
        return PredictResponse(results=[Prediction(**result) for result in results], model_version=version)

    @app.post(
        "/webhook",
        tags=["protocol"],
        status_code=status.HTTP_201_CREATED,
        openapi_extra={"requestBody": _EVENT_BODY},
    )
    async def webhook(request: Request) -> dict[str, str]:
        """Take an event: something changed, and the worker asks Label Studio what."""
        body = await request.body()
        return await to_thread.run_sync(_take_event, store, metrics, body, limiter=webhooks)

    @app.get("/versions", tags=["protocol"])
    def versions(project: str | None = None) -> Versions:
        """List the versions that predictions in Label Studio may carry."""
        return _versions(store, project)

    @app.post("/versions", tags=["protocol"])
    def versions_of(body: VersionRequest) -> Versions:
        """List versions, as older releases of Label Studio ask for them."""
        return _versions(store, body.project)


def _version(store: Store, project: str | int | None) -> str:
    """Return the version that /setup and /predict answer for a project: never null, the same for both."""
    project_id = payload_project({"project": project})
    return served_version(None if project_id is None else store.project(project_id))


def _take_setup(store: Store, project_id: int, body: SetupRequest) -> None:
    """Wake the worker for a new project or other settings, and only then.

    Label Studio calls /setup at every listing of backends, the worker's own included: to wake it each time would
    never end.
    """
    project, text = store.project(project_id), params_text(body.extra_params)
    try:
        keep_hostname(store, body.hostname)
        if project is not None and project.state == DISCONNECTING:
            return
        if project is not None and project.managed and not is_news(store, project, text):
            return
        store.wake(project_id, manage=True, extra_params=text)
    except DiskFull as error:  # Label Studio calls again at the next listing, and the version can be told
        logger.error("project=%s its settings are not kept: %s", project_id, error)


def _predict(model: NextmaskModel, tasks: list[dict[str, Any]], context: object) -> list[dict[str, Any]]:
    try:
        return model.predict(tasks, context)
    finally:
        release_freed_memory()


def _take_event(store: Store, metrics: Metrics, body: bytes) -> dict[str, str]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, f"The body is not JSON: {error}.") from None
    action = payload.get("action") if isinstance(payload, dict) else None
    project_id = payload_project(payload) if isinstance(payload, dict) else None
    if not isinstance(action, str) or project_id is None:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "A webhook body needs an action and a project with an id.")
    logs.add_fields(project=project_id)
    metrics.webhook(action)
    wake(store, project_id, action)
    logger.info("project=%s event=%.40r", project_id, action)
    return {"status": "noted"}


def _versions(store: Store, project: str | int | None) -> Versions:
    """Return published versions first, then those of the other models on disk; of all projects when none is named."""
    project_id = payload_project({"project": project})
    named = [known for known in store.projects() if project_id is None or known.id == project_id]
    published = [known.published_version for known in named if known.published_version]
    older = [version for known in named for version in store.versions(known.id)]
    return Versions(versions=list(dict.fromkeys([*published, *older])))
