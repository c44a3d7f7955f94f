"""A server imports PyTorch for what predicts, and before the first prediction asks for it."""

from __future__ import annotations

import os
import subprocess
import sys

from wiring import give_project

from ml_backend.projects.services import Services

SERVED = """
import json, sys, time
from fastapi.testclient import TestClient
from ml_backend.server.app import create_app
from ml_backend.settings import load_settings

with TestClient(create_app(load_settings())) as client:
    setup = client.post("/setup", json={"project": "1.0", "schema": ""})
    answers = [client.get("/health").status_code, setup.status_code]
    early = "ml_backend.learning.prediction.predictor" in sys.modules
    deadline = time.monotonic() + float(sys.argv[1])
    while "ml_backend.learning.prediction.predictors" not in sys.modules and time.monotonic() < deadline:
        time.sleep(0.05)
    print(json.dumps([answers, early, "torch" in sys.modules]))
"""


def served(services: Services, seconds: float) -> str:
    """Serve in a new process; return answers, whether the model was loaded by then, and whether torch is in the end."""
    ended = subprocess.run(
        [sys.executable, "-c", SERVED, str(seconds)],
        env={**os.environ, **services.settings.environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_without_a_model_torch_is_not_imported(services: Services) -> None:
    services.store.wake(1)
    assert served(services, 1.0) == "[[200, 200], false, false]"


def test_where_a_model_serves_it_is_loaded_after_the_start(services: Services) -> None:
    give_project(services)
    assert served(services, 120.0) == "[[200, 200], false, true]"
