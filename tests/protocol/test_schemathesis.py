"""What the description of the API allows, and what it does not: no server error, and answers as described."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from wiring import give_project, make_services, make_settings

from ml_backend.server.app import create_app

USER, PASSWORD = "nextmask", "not-a-password"
EXAMPLES = 40
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    ignored_auth,
    unsupported_method,
]
"""Without `negative_data_rejection`: numbers are read from booleans, too, and nothing is harmed."""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("described")
    found = make_services(folder)
    give_project(found)
    found.store.close()
    app = create_app(make_settings(folder, basic_auth_user=USER, basic_auth_pass=PASSWORD))
    with TestClient(app, raise_server_exceptions=False):
        yield schemathesis.openapi.from_asgi("/openapi.json", app, auth=(USER, PASSWORD))


FEW = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
OPERATIONS = [
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("POST", "/setup"),
    ("POST", "/predict"),
    ("POST", "/webhook"),
    ("GET", "/versions"),
    ("POST", "/versions"),
]


def operation(described: Any, method: str, path: str) -> Any:
    return described[path][method]


def test_these_are_all_operations(described: Any) -> None:
    found = {(one.ok().method.upper(), one.ok().path) for one in described.get_all_operations()}
    assert found == set(OPERATIONS)


TAKES_NOTHING = {"/health", "/ready", "/metrics"}


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [(*one, mode) for one in OPERATIONS for mode in GenerationMode if one[1] not in TAKES_NOTHING or mode.is_positive],
)
def test_every_operation_answers_as_described(described: Any, method: str, path: str, mode: GenerationMode) -> None:
    found = operation(described, method, path)
    strategy = found.as_strategy(generation_mode=mode)

    @FEW
    @given(case=strategy)
    def check(case: Any) -> None:
        case.call_and_validate(auth=(USER, PASSWORD), checks=CHECKS)

    check()
