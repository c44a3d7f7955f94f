"""Smart tools that ask nobody are told, once the worker has seen that their registration is not interactive."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from memory_studio import MemoryStudio
from wiring import PROJECT, XML, project_of

from ml_backend.annotations.config_edits import with_smart_tools
from ml_backend.annotations.label_map import parse_label_config
from ml_backend.projects.services import Services
from ml_backend.projects.settings import read_settings
from ml_backend.projects.status import project_state
from ml_backend.server.app import create_app
from ml_backend.worker.reconcile import reconcile

SENTENCE = (
    "The labelling configuration has smart tools ('smart-click', 'smart-box'), and the model is not interactive. "
    f"The editor offers no Auto-Annotation. Run: nextmask connect {PROJECT}"
)


def told(services: Services) -> bool:
    return SENTENCE in project_state(services.settings, services.store, PROJECT).hints


def look(services: Services) -> None:
    read_settings(services.settings, services.store, services.client, project_of(services))


@pytest.mark.studio(2)
def test_status_and_dashboard_tell_of_smart_tools_that_ask_nobody(services: Services, studio: MemoryStudio) -> None:
    studio.xml = with_smart_tools(XML, parse_label_config(XML))
    services.store.wake(PROJECT, manage=True)
    reconcile(services, PROJECT, lambda: None)
    assert not told(services), "nothing is known without a registration"
    studio.backends = [{"id": 1, "url": services.settings.effective_backend_url, "is_interactive": False}]
    look(services)
    assert told(services)
    assert "the model is not interactive" in TestClient(create_app(services.settings)).get(f"/projects/{PROJECT}").text
    studio.backends[0]["is_interactive"] = True
    look(services)
    assert not told(services)


@pytest.mark.studio(2, connected=True)
def test_projects_without_smart_tools_are_told_nothing(services: Services, studio: MemoryStudio) -> None:
    services.store.wake(PROJECT, manage=True)
    reconcile(services, PROJECT, lambda: None)
    services.store.update_project(PROJECT, label_config="<View>")
    assert not told(services), "what cannot be read is told elsewhere"
