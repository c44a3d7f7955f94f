"""What is imported: torch takes seconds and half a gigabyte, and only what predicts or trains needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from wiring import make_settings

HEAVY = ("torch", "torchvision", "matplotlib", "scipy", "pandas", "label_studio_ml", "torchmetrics")
LIGHT = {
    "the command line": "import ml_backend.cli.app",
    "the server": "import ml_backend.server.app",
    "the worker": "import ml_backend.worker.worker",
    "services": (
        "from ml_backend.projects.services import open_services; from ml_backend.settings import load_settings;"
        "open_services(load_settings())"
    ),
    "--help": "from ml_backend.cli.app import app; app(['--help'], standalone_mode=False)",
    "status": "from ml_backend.cli.app import app; app(['status', '--json'], standalone_mode=False)",
}


@pytest.mark.parametrize("what", LIGHT)
def test_what_predicts_nothing_imports_nothing_heavy(tmp_path: Path, what: str) -> None:
    code = f"{LIGHT[what]}; import sys; print([name for name in {HEAVY} if name in sys.modules])"
    environment = {**os.environ, **make_settings(tmp_path).environment()}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "[]"
