"""What commands import: torch takes seconds, and only what predicts or trains needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from wiring import make_settings


def test_commands_that_predict_nothing_import_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from ml_backend.cli.app import app;"
        "app(['status', '--json'], standalone_mode=False);"
        "print('torch' in sys.modules)"
    )
    environment = {"PATH": "/usr/bin", "PYTHONPATH": ":".join(sys.path), **make_settings(tmp_path).environment()}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.stdout.split() == ["[]", "False"], ended.stderr
