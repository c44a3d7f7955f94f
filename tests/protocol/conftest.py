"""A server with one trained project, whose Label Studio cannot be reached, and files of a web server beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from typing import Any

import pytest
from fastapi.testclient import TestClient
from servers import answering
from wiring import PROJECT, disc, give_project, make_services, make_settings, png, single_thread, task_of

from ml_backend.projects.services import Services
from ml_backend.server.app import create_app
from ml_backend.settings import Settings

USER, PASSWORD, SECRET = "nextmask", "not-a-password", "not-a-secret"  # as the payloads were recorded
IMAGES = 6


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a web server with disc images 0.png … and broken.png, which is none."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(IMAGES):
        (folder / f"{index}.png").write_bytes(png(disc(index)[0]))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no pixels")
    with answering(partial(_Quiet, directory=str(folder))) as address:
        yield address


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    secrets = {"basic_auth_user": USER, "basic_auth_pass": PASSWORD, "webhook_secret": SECRET}
    return make_settings(
        tmp_path_factory.mktemp("state"), **secrets, batch_size=3, image_hosts="127.0.0.1", audit_share=0
    )


@pytest.fixture(scope="session")
def services(settings: Settings) -> Iterator[Services]:
    """The state behind the server: project 65 is served by nextmask-1.1, which ranks tasks 1 to 6."""
    found = make_services(settings.model_dir, **settings.model_dump(exclude_defaults=True, exclude={"model_dir"}))
    give_project(found, title="Recording", extra_params='{"strategy": "entropy"}')
    found.store.put_tasks([task_of(one) for one in range(1, IMAGES + 1)])
    found.store.put_ranking(PROJECT, {one: one / 10 for one in range(1, IMAGES + 1)})
    yield found
    found.store.close()


@pytest.fixture(scope="session")
def client(settings: Settings, services: Services) -> Iterator[TestClient]:
    """Calls the server as Label Studio does, with user and password; a server error is an answer, not an exception."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as opened:
        opened.auth = (USER, PASSWORD)
        yield opened


@pytest.fixture
def anonymous(client: TestClient) -> TestClient:
    """The same server, without credentials."""
    return TestClient(client.app, raise_server_exceptions=False)


Answer = Callable[..., Any]


@pytest.fixture
def predict(client: TestClient) -> Answer:
    """Ask for predictions of image references, or of whole tasks; returns the answered body."""

    def ask(*tasks: str | dict[str, Any], project: Any = f"{PROJECT}.1795351419", **fields: Any) -> Any:
        made = [{"id": at, "data": {"image": one}} if isinstance(one, str) else one for at, one in enumerate(tasks, 1)]
        answer = client.post("/predict", json={"tasks": made, "project": project, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask
