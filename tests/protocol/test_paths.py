"""Authentication looks at the path: no way of writing one gets past it. Sent over sockets, as an attacker would."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import serving
from wiring import PROJECT, give_project, make_services, make_settings

from ml_backend.server.app import create_app

USER, PASSWORD = "nextmask", "not-a-password"
PRIVATE = ["/", "/setup", "/predict", "/webhook", "/versions", "/metrics", "/docs", "/redoc", "/openapi.json"]
PRIVATE += [f"/projects/{PROJECT}", f"/projects/{PROJECT}/events", "/static/dashboard.css", "/static-offline-docs/x"]
DISGUISES = [
    *("{path}", "/{path}", "{path}/", "/.{path}", "/health/..{path}", "/health/%2e%2e{path}", "/health%2f..{path}"),
    *(
        "/health;{path}",
        "{path};/health",
        "{path}?/health",
        "{path}%00",
        "{path}%20",
        "{path}#/health",
        "/health#{path}",
    ),
    *("//health{path}", "/health//..{path}", "/ready/..{path}", "/health\\..{path}", "{path}/../health", "{path}%2f"),
    *("http://127.0.0.1{path}", "http://health{path}", "/health%3f{path}", "/health%23{path}", "/%68ealth/..{path}"),
    *("/HEALTH{path}", "/health%0d%0a{path}", "/health{path}", "{path}%0aX-A:%20b", "/static/..{path}"),
]
METHODS = ["GET", "POST", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "CONNECT", "get", "X"]
HEADERS: dict[str, list[str]] = {
    "nothing": [],
    "another path in a header": ["X-Original-URL: /health", "X-Rewrite-URL: /health", "X-Forwarded-Prefix: /health"],
    "another method": ["X-HTTP-Method-Override: GET"],
    "from this machine": ["X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "X-Real-IP: 127.0.0.1"],
    "an empty password": ["Authorization: Basic " + base64.b64encode(b":").decode()],
    "the user alone": ["Authorization: Basic " + base64.b64encode(USER.encode()).decode()],
    "no base64": ["Authorization: Basic " + "!" * 50],
    "another scheme": ["Authorization: Bearer " + PASSWORD],
    "twice, the first is wrong": ["Authorization: Basic YTpi", "Authorization: Basic YTpj"],
    "an empty secret": ["X-Nextmask-Secret:"],
    "bytes": ["X-Nextmask-Secret: \xff\xfe", "Authorization: Basic \xff"],
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("state")
    services = make_services(folder)
    give_project(services)
    services.store.close()
    app = create_app(make_settings(folder, basic_auth_user=USER, basic_auth_pass=PASSWORD))
    with serving(app, timeout_keep_alive=1) as address:
        yield int(address.rpartition(":")[2])


def send(port: int, method: str, target: str, headers: list[str]) -> tuple[int, bytes]:
    """The status (0: the connection was closed) and the whole answer."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers, "", ""]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1"))
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return int(answer.split(b" ", 2)[1]) if answer else 0, answer


def test_the_ways_in_are_open(port: int) -> None:
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert send(port, "GET", "/health", [])[0] == 200
    assert send(port, "GET", "/versions", [f"Authorization: Basic {pair}"])[0] == 200
    assert send(port, "GET", "/", [f"Authorization: Basic {pair}"])[0] == 200


@pytest.mark.parametrize("disguise", DISGUISES)
def test_no_spelling_of_a_path_gets_in(port: int, disguise: str) -> None:
    for path in PRIVATE:
        status, answer = send(port, "GET", disguise.format(path=path), [])
        # a target with "#" or "?" after /health is /health itself, and says no more than it
        if status == 200:
            assert disguise == "/health#{path}" or (path == "/" and "health" in disguise), (disguise, path)
            assert b'"status":"UP"' in answer
        else:
            assert status in (0, 400, 401), (disguise, path, status)


@pytest.mark.parametrize("method", METHODS)
def test_no_method_gets_in(port: int, method: str) -> None:
    for path in PRIVATE:
        assert send(port, method, path, ["Content-Length: 0"])[0] in (400, 401, 403), path


@pytest.mark.parametrize("kind", HEADERS)
def test_no_header_gets_in(port: int, kind: str) -> None:
    for path in PRIVATE:
        assert send(port, "POST" if path == "/webhook" else "GET", path, HEADERS[kind])[0] in (400, 401), path


@pytest.mark.parametrize(
    "name", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "..\\app.py", "/etc/passwd", "%00", "vendor"]
)
def test_static_files_are_those_of_their_folder(port: int, name: str) -> None:
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    status, answer = send(port, "GET", f"/static/{name}", [f"Authorization: Basic {pair}"])
    assert status in (400, 404)
    assert b"create_app" not in answer
    assert b"root:" not in answer


@pytest.mark.parametrize("number", ["../65", "65%2f..", "0", "-1", "65.5", "9" * 400, "%00", "\u0663".encode().hex()])
def test_projects_are_numbers(port: int, number: str) -> None:
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    for page in ("", "/versions", "/tasks", "/events"):
        assert send(port, "GET", f"/projects/{number}{page}", [f"Authorization: Basic {pair}"])[0] in (400, 404)


# -- files -----------------------------------------------------------------------------------------------------------
_WATCHED = """
import os, sys, tempfile
allowed = tuple(os.path.realpath(one) for one in sys.argv[1:3])
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod",
           "shutil.rmtree", "shutil.move", "shutil.copyfile"}
def watch(event, arguments):
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, (str, bytes)) or not flags & WRITES:
            return
        paths = [path]
    elif event in CHANGES:
        paths = [one for one in arguments[:2] if isinstance(one, (str, bytes))]
    else:
        return
    for path in map(os.fsdecode, paths):
        real = os.path.realpath(path)
        not_ours = "__pycache__" in real or "/.coverage" in real  # of Python, and of who measures the tests
        if not real.startswith(allowed) and not real.startswith("/dev/") and not not_ours:
            print("OUTSIDE", event, real, flush=True)
            os._exit(3)
sys.addaudithook(watch)
"""
_WORK = """
from pathlib import Path
from urllib.parse import quote
from memory_studio import MemoryStudio
from wiring import PROJECT, make_services, give_project
from ml_backend.server.app import create_app
from ml_backend.worker.reconcile import reconcile
from ml_backend.errors import NextmaskError
from fastapi.testclient import TestClient
studio = MemoryStudio()
evil = ["../../../outside", "/etc/outside", "..\\\\outside", "a/../../b", "\\0", "~/x", "%2e%2e/x", "C:\\\\x"]
for index in range(6):
    studio.label(studio.add_task(index, patient=evil[index % len(evil)]))
for name in evil:
    task = studio.add_task(7)
    studio.files[name] = studio.files["/data/upload/7.png"]
    studio.items[task]["data"]["image"] = name
settings = dict(train_after=2, iterations=2, batch_size=2, input_size=32, audit_group="patient",
                strategy="entropy", encoder_weights="none")
services = make_services(Path(sys.argv[1]), studio, **settings)
services.store.wake(PROJECT, train=True, title="../../title", manage=True)
reconcile(services, PROJECT, lambda: None)
found = services.store.project(PROJECT)
print("VERSION", found.published_version, found.error, flush=True)
assert found.published_version.startswith("nextmask-1"), found
with TestClient(create_app(services.settings), raise_server_exceptions=False) as client:
    for name in evil:
        assert client.post("/setup", json={"project": name, "extra_params": {"model_dir": name}}).status_code < 500
        client.post("/predict", json={"project": PROJECT, "tasks": [{"id": 1, "data": {"image": name}}]})
        assert client.get(f"/projects/{PROJECT}/tasks/{quote(name, safe='')}/image").status_code == 404
try:
    open(sys.argv[3], "w")
finally:
    print("NOT WATCHED", flush=True)
"""


def test_nothing_is_written_outside_of_the_model_folder(tmp_path: Path) -> None:
    inside, temporary, outside = (tmp_path / name for name in ("state", "tmp", "outside"))
    temporary.mkdir()
    program = tmp_path / "watched.py"
    here = Path(__file__).parents[1]
    paths = f"sys.path[:0] = {[str(here.parent), str(here)]!r}\n"
    program.write_text(_WATCHED + paths + _WORK)
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(temporary / "torch")
    done: Any = subprocess.run(
        [sys.executable, str(program), str(inside), str(temporary), str(outside)],
        env=environment,
        cwd=temporary,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if line.startswith(("OUTSIDE", "VERSION", "NOT"))]
    # the last write of the program is one outside: the only one, and the proof that somebody looks
    assert said == [said[0], f"OUTSIDE open {outside}"], done.stdout[-2000:] + done.stderr[-4000:]
    assert said[0].startswith("VERSION nextmask-1")
    assert not outside.exists()
