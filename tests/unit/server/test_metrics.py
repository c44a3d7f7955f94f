"""/metrics as Prometheus reads it: what it says of requests and projects, and that labels cannot grow without bound."""

from __future__ import annotations

import os

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from wiring import PROJECT, change_database, task_of

from ml_backend.learning.checkpoints import VersionRecord
from ml_backend.projects.services import Services
from ml_backend.projects.signs_of_life import give_sign, worker_name
from ml_backend.server import metrics as module
from ml_backend.server.metrics import Metrics, add_metrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def served(services: Services, pid: int | None = None) -> tuple[TestClient, Metrics]:
    app = FastAPI()
    metrics = Metrics(services.settings, services.store, worker_pid=lambda: pid)
    add_metrics(app, metrics)

    @app.get("/things/{number}")
    def thing(number: int) -> int:
        if number == 13:
            raise HTTPException(404)
        if number == 14:
            raise ZeroDivisionError
        return number

    return TestClient(app, raise_server_exceptions=False), metrics


def read(client: TestClient) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation for family in families)
    samples = [sample for family in families for sample in family.samples]
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for one in samples}


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def test_requests_are_counted_by_route_and_never_by_path(services: Services) -> None:
    client, _ = served(services)
    for number in range(40):
        client.get(f"/things/{number}")
        client.get(f"/wp-admin/{number}.php")
        client.request(f"BREW{number}", "/things/1")
    found = read(client)
    name, route = "nextmask_http_requests_total", {"method": "GET", "route": "/things/{number}"}
    assert value(found, name, **route, status="200") == 38
    assert value(found, name, **route, status="404") == 1
    assert value(found, name, **route, status="500") == 1
    assert value(found, name, method="GET", route="none", status="404") == 40
    assert sum(count for (one, _), count in found.items() if one == name) == 120
    assert len([one for one, _ in found if one == name]) == 5
    assert value(found, "nextmask_http_request_seconds_count", **route) == 40
    assert value(found, "nextmask_http_request_seconds_bucket", **route, le="+Inf") == 40
    assert value(found, "nextmask_http_requests_in_progress") == 1  # this one


def test_predictions_and_events_are_counted(services: Services) -> None:
    client, metrics = served(services)
    metrics.predicted(5, 2, 0.5)
    metrics.predicted(1, 0, 0.25)
    for event in ("ANNOTATION_CREATED", *(f"MADE_UP_{number}" for number in range(20))):
        metrics.webhook(event)
    found = read(client)
    assert value(found, "nextmask_predicted_images_total") == 6
    assert value(found, "nextmask_prediction_failures_total") == 2
    assert value(found, "nextmask_prediction_seconds_total") == 0.75
    assert value(found, "nextmask_webhooks_total", event="ANNOTATION_CREATED") == 1
    assert value(found, "nextmask_webhooks_total", event="other") == 20
    assert value(found, "process_resident_memory_bytes") > 1e6


def test_projects_are_told_as_the_store_knows_them(services: Services) -> None:
    store, name = services.store, 'Cells "A"\\\n'
    store.wake(PROJECT, title=name, published_version="nextmask-1.3", state="training", error="no room")
    store.put_tasks([task_of(1, status="labelled"), task_of(2), task_of(3, error="gone"), task_of(4, status="skipped")])
    store.put_published(PROJECT, "nextmask-1.3", [(2, 0.5, None)])
    measures = {"miou": 0.625, "intervals": {"miou": [0.5, 0.75]}, "seconds": 12.5}
    record = VersionRecord(classes=("a", "b"), label_map_digest="", data_digest="", measures=measures)
    import torch

    services.checkpoints(PROJECT).create(record, {"weight": torch.ones(1)})
    for outcome in ("trained", "failed", "failed"):
        store.count(f"trainings_{outcome}_{PROJECT}")
    store.release(store.acquire("me", lease_seconds=9, interval=9), handled=True)  # type: ignore[arg-type]
    give_sign(store)
    found = read(served(services, pid=os.getpid())[0])

    def of(what: str, **labels: str) -> float:
        return value(found, f"nextmask_project_{what}", project=str(PROJECT), **labels)

    assert (of("labels"), of("pool"), of("skipped"), of("queue"), of("errors")) == (1, 2, 1, 1, 2)
    assert (of("held_out_miou_lower"), of("held_out_miou_upper")) == (0.5, 0.75)
    assert (of("held_out_miou"), of("last_training_seconds")) == (0.625, 12.5)
    assert of("last_reconcile_timestamp_seconds") > 1.7e9
    assert (of("trainings_total", outcome="trained"), of("trainings_total", outcome="failed")) == (1, 2)
    assert [state for state in module.STATES if of("state", state=state)] == ["training"]
    assert of("info", title=name) == 1
    assert value(found, "nextmask_worker_up") == 1
    assert value(found, "nextmask_worker_seen_timestamp_seconds", worker=worker_name()) > 1.7e9
    assert value(found, "nextmask_worker_process_resident_memory_bytes") > 1e6
    assert (value(found, "nextmask_store_up"), value(found, "nextmask_projects")) == (1, 1)


def test_a_worker_that_does_not_run(services: Services) -> None:
    found = read(served(services)[0])
    assert value(found, "nextmask_worker_up") == 0
    assert ("nextmask_worker_process_resident_memory_bytes", ()) not in found


def test_projects_are_bounded(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROJECTS_SHOWN", 3)
    for number in range(1, 8):
        services.store.wake(number)
    found = read(served(services)[0])
    assert value(found, "nextmask_projects") == 7
    assert len([one for one, _ in found if one == "nextmask_project_pool"]) == 3


def test_a_store_that_cannot_be_read_takes_nothing_else_away(services: Services) -> None:
    client, _ = served(services)
    change_database(services, "DROP TABLE tasks")
    services.store.wake(PROJECT)
    found = read(client)
    assert value(found, "nextmask_store_up") == 0
    assert value(found, "process_resident_memory_bytes") > 1e6


def test_applications_count_for_themselves(services: Services) -> None:
    first, second = served(services), served(services)
    first[1].predicted(5, 0, 1.0)
    assert value(read(second[0]), "nextmask_predicted_images_total") == 0
