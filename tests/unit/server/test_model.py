"""NextmaskModel: which project a request means. What it predicts is tested where the masks are made."""

from __future__ import annotations

from typing import Any

import pytest
from wiring import XML, data_uri

from ml_backend.label_studio.predictions import NO_VERSION
from ml_backend.projects.services import Services
from ml_backend.server.model import NextmaskModel, payload_project


def test_an_unknown_project_is_predicted_empty(services: Services) -> None:
    found = NextmaskModel(services, 999, XML).predict([{"id": 1, "project": 999, "data": {"image": data_uri(1)}}])
    assert found == [{"result": [], "score": 1.0, "model_version": NO_VERSION}]


@pytest.mark.parametrize(
    ("project", "number"),
    [
        *((3, 3), ("3", 3), ("3.1700000000", 3), ({"id": 3}, 3), ({"id": "3"}, 3)),
        *((0, None), (-1, None), ("", None), ("x", None), (None, None), ([], None), ({}, None), ("9" * 40, None)),
    ],
)
def test_projects_are_named_in_several_ways(project: Any, number: int | None) -> None:
    assert payload_project({"project": project}) == number
