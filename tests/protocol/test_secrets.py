"""A server and its worker with marked secrets, beside a host that throws them back: none shows anywhere."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import requests
from processes import wait_for, with_descendants
from servers import answering
from wiring import XML, make_settings

from ml_backend.demo.label_studio import free_port
from ml_backend.settings import Settings

TOKEN, PASSWORD, WEBHOOK = "marked-token-1f3a", "marked-password-2b4c", "marked-webhook-3d5e"
OTHERS = {"access": "marked-access-4f6a", "signature": "marked-signature-5b7c", "userinfo": "marked-userinfo-6d8e"}
SECRETS = [TOKEN, PASSWORD, WEBHOOK, *OTHERS.values()]
PROJECT = 7
PAGES = ["/", f"/projects/{PROJECT}", f"/projects/{PROJECT}/events", f"/projects/{PROJECT}/tasks", "/no-such-page"]
PAGES += [f"/projects/{PROJECT}/versions", "/versions", "/metrics", "/ready", "/health", "/openapi.json", "/docs"]


class _Host(BaseHTTPRequestHandler):
    """Refuses everything, and quotes what it was sent."""

    def _refuse(self) -> None:
        body = json.dumps({"detail": f"refused {self.path} with {self.headers.get('Authorization')}"}).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_DELETE = _refuse  # noqa: N815 (names of the standard library)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def host() -> Iterator[str]:
    with answering(_Host) as address:
        yield address


def is_up(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=2).ok
    except requests.ConnectionError:
        return False


def provoke(url: str, host: str) -> list[str]:
    """Send what goes well and what does not; returns all answers."""
    auth = ("nextmask", PASSWORD)
    images = [
        f"{host}/a.png?X-Amz-Signature={OTHERS['signature']}",
        f"http://user:{OTHERS['userinfo']}@127.0.0.1:9/a.png",
        f"s3://bucket/a.png?X-Amz-Signature={OTHERS['signature']}",
        f"ftp://user:{OTHERS['userinfo']}@127.0.0.1/a.png",
    ]
    tasks = [{"id": at, "data": {"image": image}} for at, image in enumerate(images, 1)]
    setup = {"project": f"{PROJECT}.1", "schema": XML, "access_token": OTHERS["access"], "hostname": host}
    sent: list[tuple[str, Any, Any, dict[str, str]]] = [
        ("/setup", setup, auth, {}),
        ("/setup", {**setup, "extra_params": {"label_studio_api_key": TOKEN}}, auth, {}),
        ("/setup", {**setup, "extra_params": {"basic_auth_pass": 5, "strategy": "none"}}, auth, {}),
        ("/setup", {**setup, "project": {"access_token": OTHERS["access"]}}, auth, {}),
        ("/setup", setup, ("nextmask", PASSWORD + "x"), {}),
        ("/predict", {"project": PROJECT, "label_config": XML, "tasks": tasks}, auth, {}),
        ("/predict", {"tasks": OTHERS["access"]}, auth, {}),
        ("/webhook", {"action": "START_TRAINING", "project": {"id": PROJECT}}, None, {"X-Nextmask-Secret": WEBHOOK}),
        ("/webhook", {"action": WEBHOOK[::-1]}, None, {"X-Nextmask-Secret": WEBHOOK}),
        ("/webhook", {"action": "A"}, None, {"X-Nextmask-Secret": WEBHOOK + "x"}),
    ]
    answers = [
        requests.post(url + path, json=body, auth=who, headers=headers, timeout=60) for path, body, who, headers in sent
    ]
    answers += [requests.get(url + page, auth=auth, timeout=60) for page in PAGES]
    answers.append(requests.post(f"{url}/setup", data=f'{{"access_token": "{OTHERS["access"]}"', auth=auth, timeout=60))
    assert [one.status_code for one in answers if one.status_code >= 500] in ([], [503])  # /ready may say so
    return [f"{one.text} {dict(one.headers)}" for one in answers]


def columns(file: Path) -> str:
    """All that the database holds, but for the webhook's secret in its own row."""
    with sqlite3.connect(file) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [(name, row) for name in names for row in connection.execute(f"SELECT * FROM {name}")]
    return "\n".join(str(row) for row in rows)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_secret_shows_anywhere(tmp_path: Path, host: str) -> None:
    settings: Settings = make_settings(
        tmp_path / "state",
        label_studio_url=host,
        label_studio_api_key=TOKEN,
        basic_auth_user="nextmask",
        basic_auth_pass=PASSWORD,
        webhook_secret=WEBHOOK,
        port=free_port(),
        reconcile_seconds=1,
        log_level="DEBUG",
    )
    url, log = settings.effective_backend_url, tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ml_backend", "serve"],
            env={**os.environ, **settings.environment()},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: is_up(url), seconds=240, name="the server")
        provoke(url, host)
        wait_for(lambda: "reconcile failed" in log.read_text(), seconds=240, name="the worker's failure")
        shown = provoke(url, host)  # pages show by now what failed
        processes = with_descendants(process.pid)
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in processes]
        assert len(processes) >= 2, "the worker is one of them"
    finally:
        process.terminate()
        process.wait(30)
    places = {
        "the log": log.read_text(),
        "an answer": "\n".join(shown),
        "the process list": "\n".join(lines),
        "the database": columns(tmp_path / "state" / "nextmask.sqlite3"),
    }
    assert "refused" in places["the database"]  # the host's words did get there
    for place, text in places.items():
        for secret in SECRETS:
            assert secret not in text, f"{secret} in {place}: {text[max(0, text.index(secret) - 300) :][:400]}"
        assert place in ("the log", "the database") or "Traceback" not in text
