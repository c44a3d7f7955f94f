"""What browsers may do: requests of other sites are refused, and every answer says what it may run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from wiring import PROJECT, make_settings

from ml_backend.server.app import create_app
from ml_backend.server.authentication import POLICY

EVENT = {"action": "TASKS_CREATED", "project": {"id": PROJECT}}
OURS = "http://localhost:9090"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = make_settings(tmp_path_factory.mktemp("state"), basic_auth_user="u", basic_auth_pass="p")
    with TestClient(create_app(settings), base_url=OURS, raise_server_exceptions=False) as client:
        client.auth = ("u", "p")
        yield client


FOREIGN = {
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "another port of this host": {"Sec-Fetch-Site": "same-site"},
    "another site, which says nothing of itself": {"Origin": "https://evil.example"},
    "a sandboxed frame": {"Origin": "null"},
    "our host on another port": {"Origin": "http://localhost:8080"},
    "no address": {"Origin": "http://["},
    "an empty origin": {"Origin": ""},
    "Sec-Fetch-Site counts more": {"Origin": OURS, "Sec-Fetch-Site": "cross-site"},
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("path", ["/webhook", "/setup", "/predict", "/versions", "/projects/1/train", "/no-such-page"])
def test_changes_that_another_site_sends_are_refused(server: TestClient, kind: str, path: str) -> None:
    for method in ("POST", "PUT", "DELETE"):
        answer = server.request(method, path, headers=FOREIGN[kind], json=EVENT)
        assert answer.status_code == 403
        assert "another site" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": OURS},
        {"Origin": "https://localhost:9090"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=["a program", "our page", "our page behind TLS", "our page, modern", "typed in"],
)
def test_our_own_pages_and_programs_are_let_through(server: TestClient, headers: dict[str, str]) -> None:
    assert server.post("/webhook", headers=headers, json=EVENT).status_code == 201


def test_reading_is_allowed_from_links_on_other_sites(server: TestClient) -> None:
    assert server.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_a_refusal_comes_before_the_password_is_looked_at_and_carries_the_headers(server: TestClient) -> None:
    answer = TestClient(server.app, base_url=OURS).post("/webhook", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert answer.headers["Content-Security-Policy"] == POLICY


@pytest.mark.parametrize("path", ["/", "/health", "/versions", "/no-such-page", "/static/dashboard.css", "/projects/x"])
def test_every_answer_has_a_strict_policy(server: TestClient, path: str) -> None:
    for client in (server, TestClient(server.app, base_url=OURS)):
        headers = client.get(path).headers
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "same-origin"
    assert "unsafe" not in POLICY


def test_only_the_pages_of_the_api_may_run_scripts_that_stand_in_them(server: TestClient) -> None:
    for path in ("/docs", "/redoc"):
        assert "'unsafe-inline'" in server.get(path).headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("localhost:9090", 200), ("127.0.0.1:9090", 200), ("[::1]:9090", 200), ("192.168.0.7", 200)),
        *(("nextmask:9090", 200), ("nextmask.localhost", 200), ("nextmask.team.example:9090", 200)),
        *(("evil.example:9090", 403), ("127.0.0.1.evil.example", 403), ("[", 200)),
    ],
)
def test_without_a_password_a_foreign_name_is_not_answered(tmp_path: Path, host: str, status: int) -> None:
    settings = make_settings(tmp_path, backend_url="http://nextmask.team.example:9090")
    with TestClient(create_app(settings)) as client:
        answer = client.get("/", headers={"Host": host})
        assert answer.status_code == status
        if status == 403:
            assert "BASIC_AUTH_USER" in answer.json()["detail"]


def test_with_a_password_any_name_is_answered(server: TestClient) -> None:
    assert server.get("/", headers={"Host": "nextmask.team.example"}).status_code == 200
