"""/metrics: what Prometheus collects, of the server as it runs and of the projects as the store knows them.

Every application has a registry of its own. Labels have few values: route templates and never paths, a fixed list of
methods and of events, and the first `PROJECTS_SHOWN` projects; workers are the `WORKERS_SHOWN` heard of last.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Final

import sqlalchemy as sa
from fastapi import FastAPI, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml_backend import __version__
from ml_backend.errors import FilesUnavailable, NextmaskError
from ml_backend.label_studio.predictions import model_number
from ml_backend.learning.measuring.words import recorded
from ml_backend.projects.folders import checkpoints_of
from ml_backend.projects.registration import WEBHOOK_ACTIONS
from ml_backend.projects.signs_of_life import WORKERS_SHOWN, workers
from ml_backend.server.middleware import HttpMiddleware
from ml_backend.settings import Settings
from ml_backend.store import Project, Store
from ml_backend.system.disk import free_bytes

logger = logging.getLogger(__name__)

PROJECTS_SHOWN: Final = 1000
STATES: Final = ("waiting", "syncing", "training", "ranking", "publishing", "failed", "disconnecting")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_EVENTS: Final = frozenset({*WEBHOOK_ACTIONS, "START_TRAINING"})
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 100.0)
_OF_PROJECTS: Final = {
    "labels": "Usable labels in Label Studio.",
    "pool": "Tasks without a label.",
    "skipped": "Tasks that annotators skipped.",
    "queue": "Unlabelled tasks that carry the published predictions.",
    "held_out_miou": "Held-out mean IoU of the version that serves.",
    "held_out_miou_lower": "Lower end of its 95 % interval.",
    "held_out_miou_upper": "Upper end of its 95 % interval.",
    "errors": "Tasks that cannot be used, and one for the project's last failure.",
    "last_reconcile_timestamp_seconds": "When the worker last finished a look at the project.",
    "last_training_seconds": "How long the last training took.",
}


class Metrics:
    """What the server counts of itself, and, when it is collected, what disk and store tell.

    Args:
        worker_pid: returns the process id of the server's own worker; None where workers run elsewhere.

    Attributes:
        registry: holds all metrics.
        under_way: the gauge of requests that are being answered.
    """

    def __init__(self, settings: Settings, store: Store, *, worker_pid: Callable[[], int | None] | None = None) -> None:
        self.registry = CollectorRegistry()
        names = ["method", "route"]
        registry = self.registry
        self._requests = Counter("nextmask_http_requests", "Answered requests.", [*names, "status"], registry=registry)
        self._seconds = Histogram(
            "nextmask_http_request_seconds", "Time to answer.", names, buckets=_SECONDS, registry=registry
        )
        self.under_way = Gauge(
            "nextmask_http_requests_in_progress", "Requests that are being answered.", registry=registry
        )
        self._images = Counter("nextmask_predicted_images", "Tasks that /predict answered.", registry=registry)
        self._failures = Counter(
            "nextmask_prediction_failures", "Those of them without a mask because something failed.", registry=registry
        )
        self._predicting = Counter("nextmask_prediction_seconds", "Time spent on them.", registry=registry)
        self._webhooks = Counter("nextmask_webhooks", "Events that Label Studio sent.", ["event"], registry=registry)
        release = Gauge("nextmask_build_info", "The release that runs.", ["version"], registry=registry)
        release.labels(__version__).set(1)
        ProcessCollector(registry=self.registry)
        if worker_pid is not None:
            pid = worker_pid
            ProcessCollector(namespace="nextmask_worker", pid=lambda: pid() or 0, registry=self.registry)
        self.registry.register(_Installation(settings, store, worker_pid))

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        method = method if method in _METHODS else "OTHER"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def predicted(self, images: int, failures: int, seconds: float) -> None:
        """Count the tasks of a /predict."""
        self._images.inc(images)
        self._failures.inc(failures)
        self._predicting.inc(seconds)

    def webhook(self, event: str) -> None:
        """Count an event."""
        self._webhooks.labels(event if event in _EVENTS else "other").inc()


class CountRequests(HttpMiddleware):
    """ASGI middleware that counts requests by the route that answers them; refused requests count, too."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        super().__init__(app)
        self._metrics = metrics

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, and count it when it is answered."""
        status, started = 500, time.perf_counter()

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._metrics.under_way.track_inprogress():
            try:
                await self.app(scope, receive, counted)
            finally:
                # Starlette puts the route into the scope; a path that nothing answers has none.
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.answered(scope["method"], route, status, time.perf_counter() - started)


def add_metrics(app: FastAPI, metrics: Metrics) -> None:
    """Add the endpoint, and count all requests."""
    app.add_middleware(CountRequests, metrics=metrics)

    @app.get("/metrics", tags=["operations"], response_class=Response)
    def collect() -> Response:
        """Return all metrics in the text format of Prometheus."""
        return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Installation(Collector):
    """Worker, disk and projects, read when they are collected."""

    def __init__(self, settings: Settings, store: Store, worker_pid: Callable[[], int | None] | None) -> None:
        self._settings, self._store, self._worker_pid = settings, store, worker_pid

    def collect(self) -> Iterator[Metric]:
        """Read the store; where it cannot be read, say that and nothing of the projects."""
        if self._worker_pid is not None:
            up = float(self._worker_pid() is not None)
            yield GaugeMetricFamily("nextmask_worker_up", "Whether the server's worker process runs.", value=up)
        try:
            yield from self._disk()
            families = list(self._of_store())
        except (sa.exc.SQLAlchemyError, NextmaskError, OSError) as error:
            logger.warning("metrics cannot be read: %s", str(error).splitlines()[0])
            families = [GaugeMetricFamily("nextmask_store_up", "Whether the state can be read.", value=0)]
        yield from families

    def _disk(self) -> Iterator[Metric]:
        free = free_bytes(self._settings.local_folder)
        yield GaugeMetricFamily("nextmask_disk_free_bytes", "Free bytes in MODEL_DIR.", value=free)

    def _of_store(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("nextmask_store_up", "Whether the state can be read.", value=1)
        text = "When a worker last gave a sign of life, by its machine and process."
        seen = GaugeMetricFamily("nextmask_worker_seen_timestamp_seconds", text, labels=["worker"])
        for sign in workers(self._store)[:WORKERS_SHOWN]:
            seen.add_metric([sign.worker], sign.seen)
        yield seen
        projects = self._store.projects()
        yield GaugeMetricFamily("nextmask_projects", "Connected projects.", value=len(projects))
        yield from self._of_projects(projects[:PROJECTS_SHOWN])

    def _of_projects(self, projects: list[Project]) -> Iterator[Metric]:
        info = InfoMetricFamily("nextmask_project", "Projects by name.", labels=["project"])
        state = GaugeMetricFamily(
            "nextmask_project_state", "1 for the state that the project is in.", labels=["project", "state"]
        )
        trainings = CounterMetricFamily(
            "nextmask_project_trainings", "Trainings that ended.", labels=["project", "outcome"]
        )
        values = {
            name: GaugeMetricFamily(f"nextmask_project_{name}", text, labels=["project"])
            for name, text in _OF_PROJECTS.items()
        }
        for project in projects:
            label = str(project.id)
            info.add_metric([label], {"title": project.title[:100]})
            for name in STATES:
                state.add_metric([label, name], float(name == project.state))
            for outcome in ("trained", "failed"):
                trainings.add_metric([label, outcome], self._store.counted(f"trainings_{outcome}_{label}"))
            for name, value in self._values(project).items():
                if value is not None:
                    values[name].add_metric([label], value)
        yield from (info, state, trainings, *values.values())

    def _values(self, project: Project) -> dict[str, float | None]:
        store, counts = self._store, self._store.count_tasks(project.id)
        try:
            versions = checkpoints_of(self._settings, store, project.id).versions()
        except FilesUnavailable:
            versions = []
        records = {version.number: version.record for version in versions}
        serving = records.get(model_number(project.published_version))
        held_out = recorded(serving, "miou") if serving else None
        last = records[max(records)] if records else None
        return {
            "labels": counts.get("labelled", 0),
            "pool": counts.get("unlabelled", 0),
            "skipped": counts.get("skipped", 0),
            "queue": store.queue_length(project.id, project.published_version),
            "held_out_miou": held_out.value if held_out else None,
            "held_out_miou_lower": held_out.low if held_out else None,
            "held_out_miou_upper": held_out.high if held_out else None,
            "errors": store.count_left_out(project.id)["failed"] + bool(project.error),
            "last_reconcile_timestamp_seconds": project.reconciled_at,
            "last_training_seconds": last.measures.get("seconds") if last else None,
        }
