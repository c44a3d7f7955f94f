"""The nextmask of the demo: its settings, and how commands in another terminal reach it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from ml_backend.demo.state import Remembered
from ml_backend.settings import Settings, environment_name, load_settings

_FOLDER, _FILE = "command-line", ".env"


def demo_settings(remembered: Remembered, folder: Path, label_studio_url: str) -> Settings:
    """Return the settings of the demo: addresses, accounts and state of its own, the rest as for every command."""
    return load_settings(**_own(remembered, folder, label_studio_url))


def write_environment(remembered: Remembered, folder: Path, label_studio_url: str) -> Path:
    """Write what sets the demo apart into a `.env` file, which holds passwords; return the folder of that file.

    The folder is one of its own: where the demo's state is, a person may have a `.env` for something else.
    """
    own = folder / _FOLDER
    own.mkdir(parents=True, exist_ok=True)
    (own / _FILE).touch(mode=0o600)
    values = _own(remembered, folder, label_studio_url)
    (own / _FILE).write_text(
        "".join(f"{environment_name(name)}={shlex.quote(str(value))}\n" for name, value in values.items())
    )
    return own


def command_line(environment: Path, command: str) -> str:
    """Return the line for a shell that runs a command of nextmask for the demo.

    What the shell has exported for another installation is replaced, and the `.env` of another folder is not read.
    """
    return f"cd {shlex.quote(str(environment))}; set -a; . ./{_FILE}; set +a; {_program()} {command}"


def _own(remembered: Remembered, folder: Path, label_studio_url: str) -> dict[str, Any]:
    """Return the settings that those of a person, for another Label Studio, must not replace."""
    return {
        "label_studio_url": label_studio_url,
        "label_studio_public_url": label_studio_url,
        "label_studio_api_key": remembered.token,
        "basic_auth_user": "nextmask",
        "basic_auth_pass": remembered.backend_password,
        "model_dir": folder / "nextmask",
        "database_url": "",
        "host": "127.0.0.1",
        "port": remembered.port,
        "backend_url": f"http://127.0.0.1:{remembered.port}",
    }


def _program() -> str:
    """Return how a shell in any folder starts the nextmask that runs now."""
    own = Path(sys.prefix) / "bin" / "nextmask"
    found = shutil.which("nextmask")
    if found is not None and Path(found).resolve() == own.resolve():
        return "nextmask"
    return shlex.quote(str(own)) if os.access(own, os.X_OK) else f"{shlex.quote(sys.executable)} -m ml_backend"
