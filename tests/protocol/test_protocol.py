"""The protocol, with what a real Label Studio 1.23.2 sends: answers, order and length, authentication, bad bodies."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
from fastapi.testclient import TestClient
from memory_studio import MemoryStudio
from wiring import (
    LABEL_MAP,
    PAYLOADS,
    PROJECT,
    SHAPE,
    XML,
    data_uri,
    give_project,
    make_settings,
    overlap_with_truth,
    payload,
)

from ml_backend.annotations import masks
from ml_backend.label_studio.predictions import NO_VERSION
from ml_backend.projects.registration import SECRET_HEADER
from ml_backend.projects.services import Services
from ml_backend.projects.settings import read_settings
from ml_backend.server.app import create_app
from ml_backend.server.authentication import OPEN_PATHS
from ml_backend.settings import Settings
from ml_backend.store import Project
from ml_backend.store.tables import DISCONNECTING

PASSWORD, SECRET, USER = "not-a-password", "not-a-secret", "nextmask"
VERSION = "nextmask-1.1"
EVENTS = sorted(path.stem for path in PAYLOADS.glob("webhook_*.json"))


def send(client: TestClient, recorded: dict[str, Any], **changes: Any) -> Any:
    """Repeat a recorded request, with its own headers and nothing else."""
    content = None if recorded["body"] is None else json.dumps(recorded["body"] | changes)
    return client.request(recorded["method"], recorded["path"], headers=recorded["headers"], content=content)


def project(services: Services, project_id: int = PROJECT) -> Project:
    found = services.store.project(project_id)
    assert found is not None
    return found


# -- /health, /setup, /versions --------------------------------------------------------------------------------------
def test_health(client: TestClient) -> None:
    answer = send(client, payload("health"))
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["model_class"]) == ("UP", "NextmaskModel")


def test_setup_and_predict_answer_the_same_string(anonymous: TestClient) -> None:
    setup = send(anonymous, payload("setup"))
    assert (setup.status_code, setup.json()) == (200, {"model_version": VERSION})
    predicted = send(anonymous, payload("predict_single")).json()
    assert predicted["model_version"] == VERSION
    assert {row["model_version"] for row in predicted["results"]} == {VERSION}


@pytest.mark.parametrize("number", ["999", 999, "999.1795351419", "0", "", "none", "-3", 1e18])
def test_unknown_projects_have_a_version_as_well(client: TestClient, services: Services, number: Any) -> None:
    setup = client.post("/setup", json={"project": number, "schema": XML})
    predicted = client.post("/predict", json={"project": number, "tasks": [{"id": 1, "data": {}}]}).json()
    assert setup.json() == {"model_version": NO_VERSION}
    assert predicted["results"] == [{"result": [], "score": 1.0, "model_version": NO_VERSION}]
    assert predicted["model_version"] == NO_VERSION
    services.store.update_project(999, managed=False)


def test_setup_wakes_the_worker_for_news_and_only_then(client: TestClient, services: Services) -> None:
    recorded = payload("setup")["body"]
    before = project(services).wakes
    client.post("/setup", json=recorded)
    assert project(services).wakes == before  # the host calls it at every listing of backends
    client.post("/setup", json=recorded | {"extra_params": {"strategy": "margin"}})
    assert (project(services).wakes, project(services).extra_params) == (before + 1, '{"strategy": "margin"}')
    client.post("/setup", json=recorded)
    assert (project(services).wakes, project(services).extra_params) == (before + 2, '{"strategy": "entropy"}')


def test_setup_of_registrations_that_differ_wakes_nobody_again(client: TestClient, services: Services) -> None:
    recorded = payload("setup")["body"]
    own = {"id": 1, "url": services.settings.effective_backend_url, "title": "nextmask"}
    first = own | {"extra_params": json.loads(project(services).extra_params)}
    studio = MemoryStudio(backends=[first, own | {"id": 2, "extra_params": {"strategy": "margin"}}])
    seen = replace(services, client=studio)  # type: ignore[arg-type]  # it stands in for the client
    read_settings(seen.settings, seen.store, seen.client, project(services))
    before = project(services)
    for _ in range(2):
        client.post("/setup", json=recorded | {"extra_params": {"strategy": "margin"}})
        client.post("/setup", json=recorded)
    assert (project(services).wakes, project(services).extra_params) == (before.wakes, before.extra_params)
    client.post("/setup", json=recorded | {"extra_params": {"strategy": "random"}})  # one of them was changed
    assert (project(services).wakes, project(services).extra_params) == (before.wakes + 1, '{"strategy": "random"}')
    # One is left: what it says is news again whenever it changes.
    studio.backends = [first]
    read_settings(seen.settings, seen.store, seen.client, project(services))
    client.post("/setup", json=recorded | {"extra_params": {"strategy": "margin"}})
    assert project(services).wakes == before.wakes + 2
    kinds = [event.kind for event in services.store.events(PROJECT)]
    assert kinds.count("registered_twice") == 1


def test_setup_makes_new_projects_known_and_takes_up_old_ones(client: TestClient, services: Services) -> None:
    body = payload("setup")["body"] | {"project": "777.1795351419"}
    client.post("/setup", json=body)
    assert (project(services, 777).wakes, project(services, 777).managed) == (1, True)
    services.store.update_project(777, managed=False)
    client.post("/setup", json=body)
    assert project(services, 777).managed
    # while it is being disconnected, the host still asks
    services.store.update_project(777, managed=False, state=DISCONNECTING)
    client.post("/setup", json=body)
    assert not project(services, 777).managed
    services.store.update_project(777, managed=False)


def test_versions_by_both_methods(client: TestClient, services: Services) -> None:
    services.store.put_published(PROJECT, "nextmask-1.0", [(1, 0.5, None)])
    expected = [VERSION, "nextmask-1.0"]
    assert send(client, payload("versions")).json()["versions"] == expected
    assert client.get("/versions", params={"project": f"{PROJECT}.1795351419"}).json()["versions"] == expected
    assert client.post("/versions", json={"project": f"{PROJECT}.1795351419"}).json()["versions"] == expected
    assert client.post("/versions", json={}).json()["versions"] == expected
    assert client.get("/versions", params={"project": "999"}).json()["versions"] == []
    services.store.forget_version(PROJECT, "nextmask-1.0")


# -- /predict --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["predict_single", "predict_retrieve", "predict_interactive"])
def test_recorded_requests_are_answered_task_by_task(anonymous: TestClient, name: str) -> None:
    recorded = payload(name)
    tasks = recorded["body"]["tasks"]
    for at, task in enumerate(tasks):
        task["data"] = {"image": data_uri(at)}  # the host of the recording is not there any more
    answer = send(anonymous, recorded, tasks=tasks)
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == len(tasks)
    for row in answer.json()["results"]:
        assert row["result"]
        assert isinstance(row["model_version"], str)
        assert 0 <= row["score"] <= 1


def test_a_mask_is_that_of_its_own_image(predict: Any, images: str) -> None:
    order = [3, 0, 2, 1]
    results = predict(*(f"{images}/{index}.png" for index in order))["results"]
    for index, row in zip(order, results, strict=True):
        region = row["result"][0]
        assert (region["original_width"], region["original_height"]) == (SHAPE[1], SHAPE[0])
        assert (region["type"], region["from_name"], region["to_name"]) == ("brushlabels", "tag", "image")
        assert overlap_with_truth(masks.read_result(row["result"], LABEL_MAP).mask, index) > 0.5


def test_scores_are_those_of_the_ranking_so_that_nothing_jumps_the_queue(predict: Any) -> None:
    tasks = [{"id": one, "data": {"image": data_uri(0)}} for one in (2, 6, 4, 99)]
    scores = [row["score"] for row in predict(*tasks)["results"]]
    assert scores == pytest.approx([0.8, 0.4, 0.6, 1.0])  # a task that is not ranked comes last


def test_what_was_shown_is_kept(predict: Any, services: Services) -> None:
    predict({"id": 5, "data": {"image": data_uri(1)}}, {"data": {"image": data_uri(2)}})
    png = services.store.published_mask(PROJECT, VERSION, 5)
    assert png is not None
    assert masks.mask_from_png(png).any()
    assert services.store.published_mask(PROJECT, VERSION, 0) is None  # a task without an id is no task


def broken_tasks(images: str) -> list[dict[str, Any]]:
    return [
        {"id": 1},
        {"id": 2, "data": {}},
        {"id": 3, "data": None},
        {"id": 4, "data": {"image": f"{images}/missing.png"}},
        {"id": 5, "data": {"image": f"{images}/broken.png"}},
        {"id": 6, "data": {"image": ["a list"]}},
        {"id": 7, "data": {"image": "s3://bucket/0.png"}},
        {"id": 8, "data": {"image": "data:image/png;base64,AAAA"}},
        {"id": 9, "data": "no object"},
        {"id": "ten", "data": [1]},
        {"id": None, "data": {"image": ""}},
        {},
    ]


def test_broken_tasks_neither_move_nor_fail_the_others(predict: Any, images: str) -> None:
    tasks, good = [], []
    for at, broken in enumerate(broken_tasks(images)):
        tasks += [broken, {"id": 100 + at, "data": {"image": f"{images}/{at % 6}.png"}}]
        good.append(2 * at + 1)
    results = predict(*tasks)["results"]
    assert [at for at, row in enumerate(results) if row["result"]] == good
    assert len(results) == len(tasks)
    assert {row["model_version"] for row in results} == {VERSION}
    assert all(0 <= row["score"] <= 1 for row in results)


def test_only_broken_tasks_and_no_tasks(predict: Any, images: str) -> None:
    tasks = broken_tasks(images)
    assert [row["result"] for row in predict(*tasks)["results"]] == [[]] * len(tasks)
    assert predict() == {"results": [], "model_version": VERSION}


@pytest.mark.parametrize(
    "xml",
    [
        "<View/>",
        "<View",
        '<View><Image name="image" value="$image"/></View>',
        '<View><Text name="t" value="$t"/><Choices name="c" toName="t"><Choice value="x"/></Choices></View>',
        '<!DOCTYPE View [<!ENTITY a "b">]><View>&a;</View>',
    ],
)
def test_a_config_without_masks_gives_empty_predictions(predict: Any, xml: str) -> None:
    results = predict(data_uri(0), data_uri(1), label_config=xml)["results"]
    assert [(row["result"], row["model_version"]) for row in results] == [([], VERSION)] * 2


@pytest.mark.parametrize(("tag", "kind"), [("BitmaskLabels", "bitmasklabels"), ("PolygonLabels", "polygonlabels")])
def test_the_config_that_is_sent_decides_how_masks_are_written(predict: Any, tag: str, kind: str) -> None:
    (row,) = predict(data_uri(0), label_config=XML.replace("BrushLabels", tag))["results"]
    assert row["result"]
    assert {region["type"] for region in row["result"]} == {kind}


def test_without_a_config_in_the_request_the_projects_own_is_used(predict: Any) -> None:
    assert predict(data_uri(0), label_config=None)["results"][0]["result"]


def test_another_image_variable(predict: Any) -> None:
    xml = XML.replace("$image", "$page")
    results = predict({"id": 1, "data": {"page": data_uri(0)}}, {"id": 2, "data": {"image": "x"}}, label_config=xml)
    assert [bool(row["result"]) for row in results["results"]] == [True, False]


@pytest.mark.parametrize("extra_params", ['{"unknown": 1}', "no JSON", '{"minimum_area": -1}'])
def test_invalid_settings_of_the_project_do_not_stop_predictions(
    predict: Any, services: Services, extra_params: str
) -> None:
    before = predict(data_uri(0))["results"]
    services.store.update_project(PROJECT, extra_params=extra_params)
    assert predict(data_uri(0))["results"] == before
    services.store.update_project(PROJECT, extra_params='{"strategy": "entropy"}')


def test_a_project_whose_model_is_damaged_answers_empty(predict: Any, services: Services) -> None:
    give_project(services, 66, version="nextmask-1.9")
    (services.checkpoints(66).folder / "versions" / "1" / "weights.safetensors").write_bytes(b"")
    (row,) = predict(data_uri(0), project="66.1")["results"]
    assert row == {"result": [], "score": 1.0, "model_version": "nextmask-1.9"}
    services.store.update_project(66, managed=False)


def test_a_request_that_takes_too_long_answers_the_rest_without_masks(
    tmp_path: Path, services: Services, settings: Settings
) -> None:
    del services  # so that the state is there
    hasty = settings.model_copy(update={"predict_seconds": 1e-9})
    with TestClient(create_app(hasty)) as client:
        client.auth = (USER, PASSWORD)
        tasks = [{"id": one, "data": {"image": data_uri(one)}} for one in range(1, 9)]
        answer = client.post("/predict", json={"tasks": tasks, "project": f"{PROJECT}.1"}).json()
    masks_there = [bool(row["result"]) for row in answer["results"]]
    assert masks_there == [True] * 3 + [False] * 5  # one batch was on its way


def test_the_project_is_found_in_the_tasks_when_the_request_names_none(predict: Any) -> None:
    task = {"id": 1, "data": {"image": data_uri(0)}, "project": PROJECT}
    assert predict(task, project=None)["results"][0]["model_version"] == VERSION


# -- /webhook --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", EVENTS)
def test_recorded_events_wake_the_worker(anonymous: TestClient, services: Services, name: str) -> None:
    before = project(services)
    services.store.update_project(PROJECT, wakes_handled=before.wakes)  # one that is due anyway is not woken again
    answer = send(anonymous, payload(name))
    assert (answer.status_code, answer.json()) == (201, {"status": "noted"})
    after = project(services)
    assert after.wakes == before.wakes + 1
    asked = after.train_requested_at is not None and after.train_requested_at != before.train_requested_at
    assert asked == (name == "webhook_start_training")


def test_every_event_that_is_asked_for_was_recorded() -> None:
    from ml_backend.projects.registration import WEBHOOK_ACTIONS

    recorded = {payload(name)["body"]["action"] for name in EVENTS}
    assert recorded == {*WEBHOOK_ACTIONS, "START_TRAINING"}


def test_unknown_events_are_noted_like_any_other(client: TestClient, services: Services) -> None:
    before = project(services).wakes
    services.store.update_project(PROJECT, wakes_handled=before)
    assert client.post("/webhook", json={"action": "LABEL_LINK_CREATED", "project": PROJECT}).status_code == 201
    assert project(services).wakes == before + 1


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"\xff\xfe", b"null", b"[]", b'"text"', b"17", b"{}", b"[" * 100_000, b'{"a":' * 100_000),
        *(b'{"action": "X"}', b'{"project": {"id": 65}}', b'{"action": 5, "project": {"id": 65}}'),
        *(b'{"action": "X", "project": {}}', b'{"action": "X", "project": {"id": "abc"}}'),
        *(b'{"action": "X", "project": {"id": -1}}', b'{"action": "X", "project": [65]}'),
        *(b'{"action": null, "project": 65}', b'{"action": "X", "project": {"id": NaN}}'),
        b'{"action": "X", "project": {"id": ' + b"9" * 5000 + b"}}",
    ],
)
def test_a_webhook_without_sense_is_a_400_that_says_what_is_wanted(
    client: TestClient, services: Services, body: bytes
) -> None:
    known = [one.id for one in services.store.projects()]
    answer = client.post("/webhook", content=body)
    assert answer.status_code == 400
    assert re.match(r"The body is not JSON|A webhook body needs an action and a project with an id", detail(answer))
    assert [one.id for one in services.store.projects()] == known


# -- who is let in ---------------------------------------------------------------------------------------------------
ROUTES = [
    *(("POST", "/setup"), ("POST", "/predict"), ("POST", "/webhook"), ("GET", "/versions"), ("POST", "/versions")),
    *(("GET", "/docs"), ("GET", "/redoc"), ("GET", "/openapi.json"), ("GET", "/static-offline-docs/swagger-ui.css")),
    *(("GET", "/"), ("GET", "/no-such-page"), ("DELETE", "/predict"), ("GET", "/health/"), ("POST", "//webhook")),
]


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


WRONG = {
    "nothing": {},
    "another password": basic(USER, "wrong"),
    "another user": basic("wrong", PASSWORD),
    "no password": basic(USER, ""),
    "only a user": {"Authorization": "Basic " + base64.b64encode(USER.encode()).decode()},
    "another scheme": {"Authorization": basic(USER, PASSWORD)["Authorization"].replace("Basic", "Bearer")},
    "no base64": {"Authorization": "Basic %%%"},
    "no UTF-8": {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode()},
    "empty": {"Authorization": ""},
    "another secret": {SECRET_HEADER: "wrong"},
    "an empty secret": {SECRET_HEADER: ""},
    "a secret that is longer": {SECRET_HEADER: f"{SECRET}x"},
}


@pytest.mark.parametrize("kind", WRONG)
def test_nobody_is_let_in_without_credentials(anonymous: TestClient, services: Services, kind: str) -> None:
    before = project(services)
    for method, path in ROUTES:
        answer = anonymous.request(method, path, headers=WRONG[kind], follow_redirects=False)
        assert answer.status_code == 401, path
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        assert "BASIC_AUTH_USER" in detail(answer)
        assert PASSWORD not in answer.text
    assert project(services) == before


def test_health_is_open(anonymous: TestClient) -> None:
    assert anonymous.get("/health").status_code == 200


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_user_and_password_open_everything(anonymous: TestClient, scheme: str) -> None:
    headers = {"Authorization": basic(USER, PASSWORD)["Authorization"].replace("Basic", scheme)}
    for method, path in ROUTES:
        answer = anonymous.request(method, path, headers=headers, json={}, follow_redirects=False)
        assert answer.status_code not in (401, 403, 500), path


def test_the_secret_opens_the_webhook_and_nothing_else(anonymous: TestClient) -> None:
    headers = {SECRET_HEADER: SECRET}
    event = {"action": "TASKS_CREATED", "project": {"id": PROJECT}}
    assert anonymous.post("/webhook", headers=headers, json=event).status_code == 201
    assert anonymous.post("/webhook", headers={SECRET_HEADER.lower(): SECRET}, json=event).status_code == 201
    both = headers | basic(USER, "wrong")
    assert anonymous.post("/webhook", headers=both, json=event).status_code == 201  # either is enough
    for method, path in ROUTES:
        if path != "/webhook":
            assert anonymous.request(method, path, headers=headers, follow_redirects=False).status_code == 401, path


def test_passwords_may_hold_any_character(tmp_path: Path) -> None:
    def header(password: str, charset: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"jürgen:{password}".encode(charset)).decode()}

    settings = make_settings(tmp_path, basic_auth_user="jürgen", basic_auth_pass="pä:ss wörd")
    with TestClient(create_app(settings)) as client:
        for charset in ("utf-8", "latin-1"):  # browsers send the first, Label Studio's library the second
            assert client.get("/versions", headers=header("pä:ss wörd", charset)).status_code == 200
            assert client.get("/versions", headers=header("pa:ss word", charset)).status_code == 401
    beyond = make_settings(tmp_path / "other", basic_auth_user="jürgen", basic_auth_pass="密码")
    with TestClient(create_app(beyond)) as client:
        assert client.get("/versions", headers=header("密码", "utf-8")).status_code == 200
        assert client.get("/versions", headers=header("??", "latin-1")).status_code == 401


def test_without_a_user_everything_is_open(tmp_path: Path) -> None:
    with TestClient(create_app(make_settings(tmp_path))) as client:
        assert client.get("/versions").status_code == 200
        event = {"action": "TASKS_CREATED", "project": {"id": 3}}
        assert client.post("/webhook", json=event).status_code == 201


# -- bodies that are no use ------------------------------------------------------------------------------------------
def detail(answer: Any) -> str:
    """The words of an error, which never hold a traceback."""
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"detail"}
    for sign in ("Traceback", 'File "', "site-packages"):
        assert sign not in answer.text
    assert isinstance(body["detail"], str)
    return str(body["detail"])


@pytest.mark.parametrize("path", ["/setup", "/predict", "/versions"])
@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b"tasks=1", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_malformed_json_is_a_client_error(client: TestClient, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert detail(answer)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/setup", {}, "project: Field required"),
        ("/setup", {"project": {"id": 1}}, "project"),
        ("/setup", {"project": "1", "schema": 5}, "schema: Input should be a valid string"),
        ("/setup", [], "valid dictionary"),
        ("/predict", {}, "tasks: Field required"),
        ("/predict", {"tasks": None}, "tasks: Input should be a valid list"),
        ("/predict", {"tasks": {}}, "tasks: Input should be a valid list"),
        ("/predict", {"tasks": [1]}, "tasks.0: Input should be a valid dictionary"),
        ("/predict", {"tasks": [{}, "x"]}, "tasks.1: Input should be a valid dictionary"),
        ("/predict", {"tasks": [], "label_config": 7}, "label_config: Input should be a valid string"),
        ("/predict", {"tasks": [], "params": "x"}, "params: Input should be a valid dictionary"),
        ("/predict", None, "body: Field required"),
        ("/versions", {"project": []}, "project"),
        ("/versions", "x", "valid dictionary"),
    ],
)
def test_wrong_types_are_named_with_their_place(client: TestClient, path: str, body: Any, words: str) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 422
    assert words in detail(answer)


def test_what_was_sent_is_not_sent_back(client: TestClient) -> None:
    secret = "0123456789abcdef" * 3
    answer = client.post("/setup", json={"access_token": secret, "extra_params": "x" * 10_000})
    assert answer.status_code == 422
    assert secret not in answer.text
    assert len(answer.text) < 500


@pytest.mark.parametrize("body", [b'{"project": NaN}', b'{"project": [1e999]}', b'{"project": {"\\ud800": 1}}'])
def test_values_that_json_cannot_carry_back_are_client_errors(client: TestClient, body: bytes) -> None:
    answer = client.post("/setup", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert "project" in detail(answer)


@pytest.mark.parametrize("text", ["\ud800", "\x00", "x" * 100_000, "\u202e", "'; DROP TABLE projects; --"])
def test_odd_text_is_taken_as_text(client: TestClient, text: str) -> None:
    task = {"id": 1, "data": {"image": text, text: text}, text: text}
    bodies = {
        "/setup": {"project": "901", "schema": text, "extra_params": text},
        "/predict": {"tasks": [task], "project": PROJECT, "label_config": f"<View a={quoteattr(text)}/>"},
        "/webhook": {"action": text, "project": {"id": 901}, "tasks": [task]},
        "/versions": {"project": text},
    }
    for path, body in bodies.items():
        answer = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert answer.status_code < 500, path


def test_an_unexpected_error_is_a_500_without_a_traceback(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ml_backend.store import Store

    def break_down(*_: Any) -> None:
        raise RuntimeError("internals of a bug")

    monkeypatch.setattr(Store, "project", break_down)
    for method, path, body in (("POST", "/setup", {"project": "1"}), ("POST", "/predict", {"tasks": [], "project": 1})):
        answer = client.request(method, path, json=body)
        assert answer.status_code == 500
        assert detail(answer) == "Internal error (RuntimeError); see nextmask's log."


def test_an_expected_error_is_a_503_in_its_own_words(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from ml_backend.errors import StoreError
    from ml_backend.store import Store

    def locked(*_: Any) -> None:
        raise StoreError("The state database is locked.")

    monkeypatch.setattr(Store, "project", locked)
    answer = client.post("/setup", json={"project": "1"})
    assert (answer.status_code, detail(answer)) == (503, "The state database is locked.")


# -- the description of the API --------------------------------------------------------------------------------------
def references(html: str) -> Iterator[str]:
    yield from re.findall(r"(?:src|href|spec-url)=[\"']([^\"']+)", html)
    yield from re.findall(r"(?:url|Url): *[\"']([^\"']+)", html)


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_api_page_needs_no_internet(client: TestClient, page: str) -> None:
    answer = client.get(page)
    assert answer.status_code == 200
    found = list(references(answer.text))
    assert len(found) >= 3
    for reference in found:
        assert reference.startswith("/"), reference
        assert not reference.startswith("//"), reference
        assert client.get(reference).status_code == 200, reference
    assert "cdn" not in answer.text.lower()


def test_the_description_names_every_route_and_how_to_get_in(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    protocol = {"/health", "/setup", "/predict", "/webhook", "/versions"}
    assert described["paths"].keys() - {"/ready", "/metrics"} == protocol
    assert described["paths"]["/versions"].keys() == {"get", "post"}
    assert described["components"]["securitySchemes"] == {
        "HTTPBasic": {"type": "http", "scheme": "basic", "description": "BASIC_AUTH_USER and BASIC_AUTH_PASS"}
    }
    for path, operations in described["paths"].items():
        for operation in operations.values():
            assert operation["description"]
            assert operation.get("security") == (None if path in OPEN_PATHS else [{"HTTPBasic": []}])


def test_the_worker_lives_as_long_as_the_server(tmp_path: Path) -> None:
    life: list[str] = []

    class Worker:
        pid = None

        def __enter__(self) -> None:
            life.append("started")

        def __exit__(self, *error: object) -> None:
            life.append("ended")

    app = create_app(make_settings(tmp_path), worker=Worker())
    assert life == []
    with TestClient(app) as client:
        client.get("/health")
        assert life == ["started"]
    assert life == ["started", "ended"]


def test_many_tasks_at_once(predict: Any) -> None:
    references = [data_uri(index % 3) for index in range(60)]
    results = predict(*references)["results"]
    assert len(results) == 60
    first = [json.dumps(row["result"]) for row in results[:3]]
    assert [json.dumps(row["result"]) for row in results] == first * 20
    assert len(set(first)) == 3
    assert np.all([row["result"] for row in results])
