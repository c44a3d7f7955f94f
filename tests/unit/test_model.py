"""nextmask under the stock label-studio-ml 1.0.9 server, and by the constructor and the calls of 2.x."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from label_studio_ml.model import LabelStudioMLBase
from processes import wait_for
from wiring import PROJECT, XML, data_uri, give_project, payload

from ml_backend import model
from ml_backend.errors import ConfigurationError
from ml_backend.model import NextmaskBackend
from ml_backend.projects import services as services_module
from ml_backend.projects.services import Services
from ml_backend.settings import Settings

VERSION = "nextmask-1.1"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _served(services: Services) -> None:
    give_project(services)


@pytest.fixture
def environment(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stock server constructs the model without our services: it reads the environment."""
    for name, value in services.settings.environment().items():
        monkeypatch.setenv(name, value)
    model.services_of_environment.cache_clear()
    yield
    if model.services_of_environment.cache_info().currsize:
        model.services_of_environment().store.close()
    model.services_of_environment.cache_clear()


def tasks(count: int = 2) -> list[dict[str, Any]]:
    return [{"id": one, "project": PROJECT, "data": {"image": data_uri(one)}} for one in range(1, count + 1)]


def wakes(services: Services) -> int:
    project = services.store.project(PROJECT)
    assert project is not None
    return project.wakes


# -- the server of label-studio-ml 1.0.9 -----------------------------------------------------------------------------
@pytest.fixture
def stock(tmp_path: Path, environment: None) -> Any:
    """A client of the stock Flask application that serves our class."""
    api = importlib.import_module("label_studio_ml.api")
    return api.init_app(NextmaskBackend, model_dir=str(tmp_path / "jobs")).test_client()


def test_the_stock_server_sets_it_up_and_predicts(stock: Any) -> None:
    assert stock.get("/health").get_json()["status"] == "UP"
    setup = stock.post("/setup", json=payload("setup")["body"])
    assert setup.status_code == 200
    assert isinstance(setup.get_json()["model_version"], str)  # 1.0.9 gives one of its own making
    body = payload("predict_retrieve")["body"] | {"tasks": [*tasks(), {"id": 9, "data": {}}]}
    answer = stock.post("/predict", json=body)
    assert answer.status_code == 200
    results = answer.get_json()["results"]
    assert [bool(row["result"]) for row in results] == [True, True, False]
    assert {row["model_version"] for row in results} == {VERSION}


def test_the_stock_server_predicts_interactively(stock: Any) -> None:
    stock.post("/setup", json=payload("setup")["body"])
    body = payload("predict_interactive")["body"] | {"tasks": tasks(1)}
    (row,) = stock.post("/predict", json=body).get_json()["results"]
    assert row["result"]


def test_a_webhook_of_the_stock_server_wakes_the_worker(stock: Any, services: Services) -> None:
    # It runs fit in a process of its own, which constructs the model from the environment again.
    stock.post("/setup", json=payload("setup")["body"])
    before = wakes(services)
    services.store.update_project(PROJECT, wakes_handled=before)  # one that is due anyway is not woken again
    answer = stock.post("/webhook", json=payload("webhook_annotation_created")["body"])
    assert answer.status_code == 201
    wait_for(lambda: wakes(services) == before + 1)


@pytest.mark.usefixtures("environment")
def test_a_folder_made_by_label_studio_ml_serves_it(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "label_studio_ml.server", "init", "backend", "--root-dir", str(tmp_path)]
    subprocess.run([*program, "--script", str(model.__file__)], check=True, capture_output=True)
    code = (
        "import json, sys; from _wsgi import app; client = app.test_client();"
        "setup = client.post('/setup', json=json.load(sys.stdin));"
        "print(client.get('/health').get_json()['status'], setup.status_code)"
    )
    setup = json.dumps(payload("setup")["body"])
    served = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "backend", input=setup, capture_output=True, text=True, check=False
    )
    assert served.stdout.split() == ["UP", "200"], served.stderr


# -- the ways to construct and to call it ----------------------------------------------------------------------------
def test_it_is_what_label_studio_ml_serves() -> None:
    assert issubclass(NextmaskBackend, LabelStudioMLBase)


@pytest.mark.parametrize("missing", ["label_studio_ml", "redis", "rq"])
def test_without_the_extra_it_says_how_to_install_it(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import ml_backend.model"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = done.stderr.splitlines()[-1]
    assert said.startswith("ml_backend.errors.ConfigurationError: label-studio-ml's own server needs packages"), said
    assert missing in said
    assert "pip install 'nextmask[label-studio-ml]'" in said


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    "make",
    [
        lambda: NextmaskBackend(project_id=str(PROJECT), label_config=XML),  # 2.x
        lambda: NextmaskBackend(f"{PROJECT}.1795351419", XML),
        lambda: NextmaskBackend(
            label_config=XML, train_output={"a": 1}, hostname="http://x", access_token="t"
        ),  # 1.0.9
        lambda: NextmaskBackend(),
    ],
)
def test_every_constructor_predicts_the_same(make: Callable[[], NextmaskBackend]) -> None:
    found = make().predict(tasks(), context={"result": None}, login=None, password=None)
    assert [bool(row["result"]) for row in found] == [True, True]
    assert {row["model_version"] for row in found} == {VERSION}


@pytest.mark.usefixtures("environment")
def test_all_models_of_a_process_share_one_store(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Settings] = []

    def open_services(settings: Settings) -> Services:
        opened.append(settings)
        return services_module.open_services(settings)

    monkeypatch.setattr(model, "open_services", open_services)
    for _ in range(2):
        NextmaskBackend(PROJECT)
    assert len(opened) == 1


def test_settings_that_are_wrong_are_said_by_the_first_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEXTMASK_INPUT_SIZE", "1")
    model.services_of_environment.cache_clear()
    with pytest.raises(ConfigurationError, match="NEXTMASK_INPUT_SIZE"):
        NextmaskBackend(PROJECT)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    "call",
    [
        lambda one: one.fit((), event="ANNOTATION_CREATED", data={"project": {"id": PROJECT}}),  # ours
        lambda one: one.fit("ANNOTATION_CREATED", {"project": {"id": PROJECT}}),  # 2.x: fit(event, data)
        lambda one: one.fit(
            (), workdir="/w", event="ANNOTATION_CREATED", data={"project": {"id": PROJECT}}, job_id="1"
        ),
    ],
)
def test_fit_only_wakes_the_worker(services: Services, call: Callable[[NextmaskBackend], Any]) -> None:
    before = wakes(services)
    services.store.update_project(PROJECT, wakes_handled=before)
    assert call(NextmaskBackend()) == {}
    assert wakes(services) == before + 1
    project = services.store.project(PROJECT)
    assert project is not None
    assert project.train_requested_at is None


@pytest.mark.usefixtures("environment")
def test_start_training_asks_for_one_by_either_signature(services: Services) -> None:
    for positional in (True, False):
        services.store.update_project(PROJECT, train_requested_at=None)
        data = payload("webhook_start_training")["body"]
        one = NextmaskBackend()
        if positional:
            one.fit("START_TRAINING", data)
        else:
            one.fit((), event="START_TRAINING", data=data)
        project = services.store.project(PROJECT)
        assert project is not None
        assert project.train_requested_at is not None


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("data", [None, {}, [], "x", {"project": {}}, {"project": {"id": "x"}}])
def test_fit_without_a_project_does_nothing(services: Services, data: Any) -> None:
    before = wakes(services)
    assert NextmaskBackend().fit((), event="X", data=data) == {}
    assert wakes(services) == before
