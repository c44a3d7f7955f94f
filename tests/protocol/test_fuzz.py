"""Whatever JSON comes: an answer without a server error, and for /predict one prediction per task, in order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wiring import PROJECT, XML, data_uri

from ml_backend.projects.services import Services

FEW = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VERSION = "nextmask-1.1"

# Text with surrogates and control characters, numbers beyond all limits: JSON carries them all.
text = st.text(st.characters(), max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | text
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))
GOOD = data_uri(0)
images = st.sampled_from([GOOD, "ftp://a/b", "data:,", "s3://a/b", "file:///etc/passwd", "//", ""]) | anything
ids = st.integers(0, 20) | st.sampled_from(["7", 1.0, True]) | anything


@st.composite
def tasks(draw: st.DrawFn) -> dict[str, Any]:
    task = draw(st.fixed_dictionaries({}, optional={"id": ids, "data": anything, "project": anything}))
    if draw(st.booleans()):
        task["data"] = {"image": draw(images)}
    return task


def post(client: TestClient, path: str, body: object) -> Any:
    answer = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text
    return answer


@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook", "/versions"])
@FEW
@given(body=anything)
def test_any_json_is_answered(client: TestClient, services: Services, path: str, body: object) -> None:
    post(client, path, body)


@FEW
@given(
    body=st.fixed_dictionaries(
        {"project": st.sampled_from([f"{PROJECT}.17", "900"]) | anything},
        optional={"schema": anything, "extra_params": anything, "access_token": anything},
    )
)
def test_setup_answers_a_string_or_a_client_error(client: TestClient, body: object) -> None:
    answer = post(client, "/setup", body)
    assert answer.status_code == 422 or isinstance(answer.json()["model_version"], str)


@FEW
@given(
    body=st.fixed_dictionaries(
        {"tasks": st.lists(tasks(), max_size=4)},
        optional={
            "project": st.sampled_from([f"{PROJECT}.17", PROJECT]) | anything,
            "label_config": st.sampled_from([XML, "<View/>", None]) | text,
            "params": st.none() | st.dictionaries(text, anything, max_size=2),
        },
    )
)
def test_predict_answers_every_task_in_order(client: TestClient, body: dict[str, Any]) -> None:
    answer = post(client, "/predict", body)
    if answer.status_code == 422:
        return
    results = answer.json()["results"]
    assert len(results) == len(body["tasks"])
    for task, row in zip(body["tasks"], results, strict=True):
        assert isinstance(row["model_version"], str)
        assert 0 <= row["score"] <= 1
        image = task["data"].get("image") if isinstance(task.get("data"), dict) else None
        assert row["result"] == [] or image == GOOD
        if image == GOOD and body.get("label_config") == XML and body.get("project") == PROJECT:
            assert row["result"]


@FEW
@given(
    body=st.fixed_dictionaries(
        {"action": st.sampled_from(["ANNOTATION_CREATED", "START_TRAINING"]) | text, "project": anything},
        optional={"annotation": anything, "task": anything},
    )
)
def test_webhooks_are_noted_or_refused(client: TestClient, body: object) -> None:
    assert post(client, "/webhook", body).status_code in (201, 400)


@FEW
@given(project=text)
def test_versions_by_any_name(client: TestClient, project: str) -> None:
    name = project.encode("utf-8", "replace").decode()
    answer = client.get("/versions", params={"project": name})
    assert answer.status_code == 200
    assert isinstance(answer.json()["versions"], list)


@pytest.fixture(autouse=True, scope="module")
def _as_before(services: Services) -> Any:
    """Forget the projects that were made up."""
    yield
    for project in services.store.projects():
        if project.id != PROJECT:
            services.store.update_project(project.id, managed=False)
    services.store.update_project(PROJECT, extra_params='{"strategy": "entropy"}')
