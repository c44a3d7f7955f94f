"""Pages of the dashboard, as the server sends them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from wiring import PROJECT, give_project, make_services, task_of

from ml_backend.app import create_app
from ml_backend.dashboard.static import FOLDER
from ml_backend.services import Services

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    found = make_services(tmp_path)
    yield found
    found.store.close()


@pytest.fixture
def client(services: Services) -> Iterator[TestClient]:
    with TestClient(create_app(services.settings), raise_server_exceptions=False) as opened:
        yield opened


def page(client: TestClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


# -- projects --------------------------------------------------------------------------------------------------------
def test_without_a_project_the_first_page_says_how_to_connect_one(client: TestClient) -> None:
    assert "nextmask connect PROJECT" in page(client, "/")


def test_projects_are_listed_the_failed_ones_first(client: TestClient, services: Services) -> None:
    give_project(services, title="Cells")
    services.store.put_tasks([task_of(one, status="labelled" if one < 4 else "unlabelled") for one in range(1, 9)])
    services.store.put_published(PROJECT, "nextmask-1.1", [(5, 0.1, None), (6, 0.2, None), (1, 0.3, None)])
    services.store.wake(99, title="Broken", state="failed", error="No disk.")
    text = page(client, "/")
    assert text.index("Broken") < text.index("Cells")
    assert "No disk." in text
    row = text[text.index(">Cells<") :]
    numbers = re.findall(r'class="number">([^<]*)<', row)
    miou = services.checkpoints(PROJECT).get(1).record.measures["miou"]
    assert numbers[:4] == ["3", "5", "2", f"{miou:.3f}"]
    assert f"/projects/{PROJECT}" in text


def test_disconnected_projects_are_not_shown(client: TestClient, services: Services) -> None:
    services.store.wake(7, title="Gone")
    services.store.update_project(7, managed=False)
    assert "Gone" not in page(client, "/")
    assert "nextmask connect 7" in page(client, "/projects/7", 404)


def test_titles_and_errors_are_text(client: TestClient, services: Services) -> None:
    services.store.wake(PROJECT, title=HOSTILE, state="failed", error=HOSTILE)
    for path in ("/", f"/projects/{PROJECT}"):
        text = page(client, path)
        assert "<img src=x" not in text
        assert "<script>" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        assert "{{ 7*7 }}" in text


@pytest.mark.parametrize("path", ["/projects/0", "/projects/x", "/projects/-1", "/projects/99999999999999999999"])
def test_addresses_of_nothing_are_pages_too(client: TestClient, path: str) -> None:
    assert "no such page" in page(client, path, 404)


def test_an_unexpected_error_is_a_page_without_its_text(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from ml_backend.store import Store

    def fail(_: object) -> None:
        raise RuntimeError("secret thing")

    monkeypatch.setattr(Store, "projects", fail)
    text = page(client, "/", 500)
    assert "Internal error (RuntimeError)" in text
    assert "secret thing" not in text
    assert "Traceback" not in text


# -- static files ----------------------------------------------------------------------------------------------------
def test_static_files_are_what_npm_has_and_bring_their_licences() -> None:
    vendor = FOLDER / "vendor"
    rows = json.loads((vendor / "vendor.json").read_text())
    for row in rows:
        assert hashlib.sha256((vendor / row["file"]).read_bytes()).hexdigest() == row["sha256"], row["file"]
        assert (vendor / f"{row['file']}.LICENSE.txt").stat().st_size > 200
    known = {row["file"] for row in rows}
    assert {path.name for path in vendor.iterdir()} == known | {f"{one}.LICENSE.txt" for one in known} | {"vendor.json"}


def test_pages_name_only_files_of_this_server_and_browsers_may_keep_them(client: TestClient) -> None:
    found = re.findall(r'(?:src|href)="([^"]+)"', page(client, "/"))
    static = [reference for reference in found if "/static/" in reference]
    assert len(static) >= 5
    assert all(reference.startswith(("/", "#")) for reference in found)
    for reference in static:
        answer = client.get(reference)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
    assert client.get("/static/dashboard.css").headers["Cache-Control"] == "no-cache"


def test_static_files_are_compressed(client: TestClient) -> None:
    assert client.get("/static/vendor/pico.min.css").headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/%2e%2e/app.py", "/static//etc/passwd"])
def test_nothing_outside_of_the_folder_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_pages_hold_no_script_and_no_style_of_their_own(client: TestClient, services: Services) -> None:
    give_project(services)
    for path in ("/", f"/projects/{PROJECT}", "/projects/7"):
        text = client.get(path).text
        assert re.findall(r"<script(?![^>]* src=)", text) == []
        assert re.findall(r"<style|\sstyle=|\son[a-z]+=", text) == []
