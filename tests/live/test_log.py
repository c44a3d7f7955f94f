"""The log of a real nextmask at work: JSON throughout, with projects and requests, and not one secret in it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest
import requests
from steps import label
from support import PASSWORD, USER, Nextmask

from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.registration import SECRET_HEADER, webhook_secret

pytestmark = pytest.mark.live

SIGNATURE = "5f4dcc3b5aa765d61d8327deb882cf99"


def test_no_line_shows_a_secret(
    make_nextmask: Callable[..., Nextmask], label_studio: LabelStudio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    nextmask = make_nextmask(log_format="json", log_level="DEBUG", image_hosts="127.0.0.1")
    project = make_project(images=8, dataset=shapes)
    signed = f"http://127.0.0.1:9/bucket/a.png?X-Amz-Signature={SIGNATURE}"
    label_studio.transport.json("POST", f"/api/projects/{project}/import", json=[{"data": {"image": signed}}])
    nextmask.connect(project)
    label(label_studio, project, shapes, label_studio.task_ids(project)[:4])
    nextmask.wait_for_version(project, 1)
    secret = webhook_secret(nextmask.services.settings, nextmask.services.store)
    event = {"action": "PROJECT_UPDATED", "project": {"id": project}}
    for headers in ({SECRET_HEADER: secret}, {SECRET_HEADER: secret[:-1]}, {"Authorization": f"Bearer {secret}"}):
        requests.post(f"{nextmask.url}/webhook?secret={secret}", json=event, headers=headers, timeout=10)
    task = {"id": 10_000_001, "project": project, "data": {"image": signed}}
    answer = nextmask.post("/predict", {"tasks": [task], "project": str(project)}, headers={"X-Request-ID": "mine-1"})
    assert answer.headers["X-Request-ID"] == "mine-1"
    nextmask.stop()

    log = nextmask.log.read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    token = nextmask.settings.label_studio_api_key.get_secret_value()
    basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    for hidden in (token, PASSWORD, secret, secret[:-1], basic, SIGNATURE):
        assert hidden not in log
    assert {line["pid"] for line in lines if line.get("project") == project} >= {nextmask.process.pid}  # type: ignore[union-attr]
    assert any("trained" in line["message"] and line["project"] == project for line in lines)
    (request,) = (line for line in lines if line.get("request") == "mine-1" and "http" in line)
    assert (request["http"]["path"], request["http"]["status"], request["project"]) == ("/predict", 200, project)
    assert {line["http"]["status"] for line in lines if line.get("http", {}).get("path") == "/webhook"} >= {201, 401}
