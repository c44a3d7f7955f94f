"""Where a server listens, as the state says it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from wiring import make_settings

from ml_backend.projects.running_server import announce, with_running_server
from ml_backend.store import Store

ANNOUNCE = """
import sys
from ml_backend.projects.running_server import announce
from ml_backend.settings import load_settings
from ml_backend.store import Store
announce(Store(sys.argv[1]), load_settings(host="127.0.0.1", port=9191))
print("announced", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"sqlite:///{tmp_path / 'state.sqlite3'}")


def test_commands_find_a_server(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path, host="localhost", port=9090)
    assert with_running_server(settings, store) == settings
    announce(store, settings.model_copy(update={"host": "0.0.0.0", "port": 9191}))
    assert with_running_server(settings, store).effective_backend_url == "http://127.0.0.1:9191"


def test_an_address_that_label_studio_is_to_use_stays(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path, backend_url="http://nextmask.local:9090")
    announce(store, settings.model_copy(update={"port": 9191}))
    found = with_running_server(settings, store)
    assert (found.port, found.effective_backend_url) == (9191, "http://nextmask.local:9090")


def test_what_a_server_left_behind_that_has_ended_does_not_count(tmp_path: Path, store: Store) -> None:
    settings = make_settings(tmp_path)
    command = [sys.executable, "-c", ANNOUNCE, f"sqlite:///{tmp_path / 'state.sqlite3'}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert server.stdout.readline() == "announced\n"
        assert with_running_server(settings, store).port == 9191
        server.kill()
    assert with_running_server(settings, store) == settings
    # Its number may be another process's by now.
    kept = (store.value("server") or "").replace(f'"pid": {server.pid}', '"pid": 1')
    store.set_value("server", kept)
    assert with_running_server(settings, store) == settings
