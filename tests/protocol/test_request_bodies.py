"""Bodies that are too large, too slow, or too many at a time; and what strangers send is never read."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from wiring import make_settings

from ml_backend.server import request_bodies
from ml_backend.server.app import create_app
from ml_backend.server.request_bodies import RequestBodies

LIMIT = 100_000
JSON = {"Content-Type": "application/json"}
PATHS = ["/setup", "/predict", "/webhook", "/versions"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = make_settings(
        tmp_path_factory.mktemp("state"), basic_auth_user="u", basic_auth_pass="p", max_request_bytes=LIMIT
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        client.auth = ("u", "p")
        yield client


def chunks(total: int, size: int = 10_000) -> Iterator[bytes]:
    for _ in range(total // size):
        yield b" " * size


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_are_refused_with_the_setting_to_raise(server: TestClient, path: str, chunked: bool) -> None:
    body: Any = chunks(2 * LIMIT) if chunked else b" " * (LIMIT + 1)
    answer = server.post(path, content=body, headers=JSON)
    assert answer.status_code == 413
    assert "NEXTMASK_MAX_REQUEST_BYTES" in answer.json()["detail"]
    assert server.post(path, content=chunks(LIMIT), headers=JSON).status_code in (400, 422)  # read, and no JSON


@pytest.mark.parametrize("path", PATHS)
def test_what_strangers_send_is_not_read(server: TestClient, path: str) -> None:
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [], "scheme": "http"}
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body of a stranger was read")

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(server.app(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 401


@pytest.mark.parametrize("headers", [{"Content-Encoding": "gzip"}, {"Content-Type": "text/plain"}, {}])
@pytest.mark.parametrize("path", PATHS)
def test_packed_and_mislabelled_bodies_are_client_errors(
    server: TestClient, path: str, headers: dict[str, str]
) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < LIMIT
    answer = server.post(path, content=bomb, headers={**JSON, **headers})
    assert answer.status_code in (400, 422)
    assert set(answer.json()) == {"detail"}


# -- the middleware alone --------------------------------------------------------------------------------------------
async def _read_all(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass


def middleware(tmp_path: Path, app: Any = _read_all) -> RequestBodies:
    return RequestBodies(app, settings=make_settings(tmp_path, max_request_bytes=LIMIT))


def test_slow_bodies_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_bodies, "PATIENCE_SECONDS", 0.2)

    async def trickle() -> Any:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"1", "more_body": True}

    with pytest.raises(request_bodies.HTTPException) as caught:
        asyncio.run(middleware(tmp_path)({"type": "http", "headers": []}, trickle, None))  # type: ignore[arg-type]
    assert caught.value.status_code == 408


def test_waiting_for_the_end_of_a_request_that_was_read_takes_as_long_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_bodies, "PATIENCE_SECONDS", 0.05)
    messages = [{"type": "http.request", "body": b"{}", "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await asyncio.sleep(0.3)
        return {"type": "http.disconnect"}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await _read_all(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"

    asyncio.run(middleware(tmp_path, app)({"type": "http", "headers": []}, receive, None))  # type: ignore[arg-type]


def test_many_large_bodies_at_a_time_wait_their_turn_and_room_is_given_back(tmp_path: Path) -> None:
    part = {"type": "http.request", "body": b" " * (LIMIT // 2), "more_body": True}
    codes: list[int] = []

    async def work() -> None:
        done = asyncio.Event()

        def body() -> Any:
            left = [{**part, "more_body": False}, part]

            async def receive() -> Any:
                return left.pop()

            return receive

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await _read_all(scope, receive, send)
            await done.wait()

        shared = middleware(tmp_path, app)

        async def one() -> None:
            try:
                await shared({"type": "http", "headers": []}, body(), None)  # type: ignore[arg-type]
                codes.append(200)
            except request_bodies.HTTPException as error:
                codes.append(error.status_code)

        waiting = [asyncio.create_task(one()) for _ in range(3)]
        while len(codes) < 1:
            await asyncio.sleep(0.01)
        assert codes == [503]
        done.set()
        await asyncio.gather(*waiting)
        for _ in range(4):
            await one()

    asyncio.run(work())
    assert codes == [503, *[200] * 6]


def test_the_limit_is_told_in_the_description(server: TestClient) -> None:
    described = server.get("/openapi.json").json()["paths"]
    for path in PATHS:
        answers = json.dumps(described[path]["post"]["responses"])
        for code in ("401", "403", "408", "413", "422", "503"):
            assert f'"{code}"' in answers, (path, code)
