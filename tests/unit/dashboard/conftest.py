"""What tests of the dashboard share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from ml_backend.projects.services import Services
from ml_backend.server.app import create_app


@pytest.fixture
def client(services: Services) -> Iterator[TestClient]:
    """A visitor of the dashboard of `services`."""
    with TestClient(create_app(services.settings), raise_server_exceptions=False) as opened:
        yield opened
