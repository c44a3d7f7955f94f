"""The log: text or JSON, what a line belongs to, and no secret in any of it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ml_backend.server.request_log import REQUEST_ID, RequestLog
from ml_backend.system import logs
from ml_backend.system.logs import Format

ROOT = Path(__file__).parents[3]
logger = logging.getLogger("ml_backend.anything")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_lines_hold_what_a_collector_needs(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json")
    logger.debug("unseen")
    with logs.belonging_to(project=7):
        logger.info("project=%s größer\nthan a line", 7)
        try:
            raise ValueError("why")
        except ValueError:
            logger.exception("failed")
    logger.warning("outside")
    first, second, third = lines(capsys)
    assert (first["level"], first["logger"], first["project"]) == ("INFO", "ml_backend.anything", 7)
    assert (first["message"], first["pid"] > 0) == ("project=7 größer\nthan a line", True)
    assert first["timestamp"].startswith("20")
    assert second["exc_info"].endswith("ValueError: why")
    assert "project" not in third


def test_text_lines_say_what_they_belong_to_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "text")
    with logs.belonging_to(request="abc", project=7):
        logger.info("one")
        logger.info("project=%s two", 7)
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(" one request=abc project=7")
    assert second.endswith(" project=7 two request=abc")


KEPT = [
    "GET /api/tasks?project=3 is shown without its address",
    "with basic authentication, a token or a bearer",
    "https://host:8080/data/a.png cannot be fetched",
    "project=3 version=nextmask-1.2 ranked=9",
]
HIDDEN = [
    ("https://b.s3.amazonaws.com/a.png?X-Amz-Signature=s3cr3t&X-Amz-Date=1", "s3cr3t"),
    ("Max retries exceeded with url: /a.png?sig=s3cr3t%3D (Caused by x)", "s3cr3t"),
    ("{'Authorization': 'Token 0123456789abcdef0123456789abcdef01234567'}", "0123456789abcdef"),
    ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ("X-Nextmask-Secret: abc-def_ghi", "abc-def_ghi"),
    ("refused: Bearer eyJhbGciOi.eyJzdWIi.c2ln", "eyJhbGciOi"),
    ("it was eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "eyJhbGciOiJIUzI1NiJ9"),
    ("postgresql+psycopg://nextmask:hush@db:5432/nextmask", "hush"),
    ("what a library says of my-own-password here", "my-own-password"),
]


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_secret_stays(text: str) -> None:
    assert logs.redacted(text) == text


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(("text", "secret"), HIDDEN)
def test_secrets_are_hidden_in_messages_and_tracebacks(
    text: str, secret: str, form: Format, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.hide("my-own-password", "abc")  # which is too short to be told from other words
    logs.configure("INFO", form)
    logger.warning("%s", text)
    try:
        raise ValueError(text)
    except ValueError:
        logger.exception("failed: abc")
    written = capsys.readouterr().err
    assert secret not in written
    assert written.count("(hidden)") >= 2
    assert "failed: abc" in written
    if form == "json":
        assert [json.loads(line)["level"] for line in written.splitlines()] == ["WARNING", "ERROR"]


def test_a_child_process_logs_as_its_parent_does(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("WARNING", "json")
    with logs.belonging_to(project=7):
        handed = logs.child_options()
    code = (
        "import sys, logging; from ml_backend.system import logs; logs.configure_child(sys.argv[1]);"
        "logging.info('unseen'); logging.warning('seen')"
    )
    run = subprocess.run([sys.executable, "-c", code, handed], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = run.stderr.splitlines()
    shown = json.loads(line)
    assert (shown["message"], shown["project"], shown["level"]) == ("seen", 7, "WARNING")


# -- requests --------------------------------------------------------------------------------------------------------
@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    app.add_middleware(RequestLog)

    @app.get("/health")
    async def health() -> None: ...

    @app.get("/things/{name}")
    def thing(name: str) -> str:
        logs.add_fields(project=len(name))
        logger.warning("at work")
        if name == "zero":
            raise ZeroDivisionError
        return name

    return TestClient(app, raise_server_exceptions=False)


def test_every_request_has_an_id_and_a_line(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json")
    answer = client.get("/things/mask?token=s3cret", headers={REQUEST_ID: "from-proxy.1"})
    assert answer.headers[REQUEST_ID] == "from-proxy.1"
    work, request = lines(capsys)
    assert (work["message"], work["request"], work["project"]) == ("at work", "from-proxy.1", 4)
    assert (request["request"], request["project"], request["logger"]) == (
        "from-proxy.1",
        4,
        "ml_backend.server.request_log",
    )
    assert {**request["http"], "ms": 0} == {"method": "GET", "path": "/things/mask", "status": 200, "ms": 0}
    assert 0 < request["http"]["ms"] < 60_000
    client.get("/health")
    assert lines(capsys) == []
    client.get("/things/zero")
    assert [line["http"]["status"] for line in lines(capsys) if "http" in line] == [500]


@pytest.mark.parametrize("given", ["", "with space", "a" * 65, "<script>", "ümlaut", "a\tb"])
def test_an_id_that_is_none_is_replaced(given: str, client: TestClient) -> None:
    headers = [(REQUEST_ID.encode(), given.encode("latin-1"))]
    first = client.get("/things/a", headers=headers).headers[REQUEST_ID]
    second = client.get("/things/a", headers=headers).headers[REQUEST_ID]
    assert len(first) == 32
    assert first.isalnum()
    assert first != second


def test_a_path_cannot_write_a_line_of_its_own(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "text")
    client.get("/nothing%0A2026-01-01%20CRITICAL%20forged" + "x" * 500)
    (line,) = capsys.readouterr().err.splitlines()
    assert "GET /nothing%0A2026-01-01%20CRITICAL%20forged" in line
    assert len(line) < 450
