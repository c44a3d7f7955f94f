"""How the demo's nextmask is told from a person's own, and how the command line reaches it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from wiring import PROJECT, give_project, make_services

from ml_backend.demo.installation import command_line, demo_settings, write_environment
from ml_backend.demo.state import Remembered

STUDIO = "http://localhost:41001"
REMEMBERED = Remembered(
    label_studio_port=41001, port=41002, password="for people", token="0" * 40, backend_password="for pages"
)
OTHERS = {
    "LABEL_STUDIO_URL": "https://labels.example.org",
    "LABEL_STUDIO_API_KEY": "f" * 40,
    "NEXTMASK_LABEL_STUDIO_PUBLIC_URL": "https://labels.example.org",
    "NEXTMASK_DATABASE_URL": "postgresql://labels.example.org/nextmask",
    "NEXTMASK_BACKEND_URL": "http://10.0.0.1:9090",
    "NEXTMASK_PORT": "9090",
    "MODEL_DIR": "/srv/nextmask",
    "BASIC_AUTH_PASS": "other",
}


@pytest.fixture(params=["exported", "in a file"])
def of_another(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's own settings, for a Label Studio where real work is done."""
    if request.param == "exported":
        for name, value in OTHERS.items():
            monkeypatch.setenv(name, value)
    else:
        (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in OTHERS.items()))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("of_another")
def test_the_demo_keeps_away_from_a_persons_own_installation(tmp_path: Path) -> None:
    settings = demo_settings(REMEMBERED, tmp_path / "demo", STUDIO)
    assert settings.label_studio_url == settings.effective_label_studio_public_url == STUDIO
    assert settings.effective_database_url == f"sqlite:///{tmp_path}/demo/nextmask/nextmask.sqlite3"
    assert settings.effective_backend_url == "http://127.0.0.1:41002"
    assert settings.label_studio_api_key.get_secret_value() == REMEMBERED.token
    assert settings.basic_auth_pass.get_secret_value() == REMEMBERED.backend_password


@pytest.mark.usefixtures("of_another")
@pytest.mark.parametrize("name", ["demo", "my demo's folder"])
def test_the_line_that_is_shown_points_commands_at_the_demo(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    services = make_services(folder, model_dir=folder / "nextmask", database_url="")
    give_project(services, title="the demo's project")
    services.store.close()
    environment = write_environment(REMEMBERED, folder, STUDIO)
    assert stat.S_IMODE((environment / ".env").stat().st_mode) == 0o600
    ended = subprocess.run(
        ["sh", "-c", command_line(environment, f"status {PROJECT} --json")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["title"] == "the demo's project"
