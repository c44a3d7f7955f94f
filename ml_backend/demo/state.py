"""What the demo keeps from one start to the next: ports, passwords and its project, in one file of its folder."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ml_backend.demo.label_studio import free_port, port_in_use

_FILE = "demo.json"


@dataclass(frozen=True)
class Remembered:
    """What a second start needs to use what the first start made.

    Attributes:
        label_studio_port, port: of Label Studio and of nextmask, on this machine.
        password, token: of the user of Label Studio.
        backend_password: of nextmask's own pages.
        project: id of the demo's project; 0 before it is made.
        dataset: name of the data set that the project was made for.
    """

    label_studio_port: int
    port: int
    password: str
    token: str
    backend_password: str
    project: int = 0
    dataset: str = ""


def recall(folder: Path) -> Remembered:
    """Read what an earlier start has kept, or make it up; a port that is in use now is replaced."""
    path = folder / _FILE
    if path.exists():
        kept = Remembered(**json.loads(path.read_text()))
        studio, own = (free_port() if port_in_use(port) else port for port in (kept.label_studio_port, kept.port))
        kept = replace(kept, label_studio_port=studio, port=own)
    else:
        kept = Remembered(
            free_port(), free_port(), secrets.token_urlsafe(9), secrets.token_hex(20), secrets.token_hex(16)
        )
    remember(folder, kept)
    return kept


def remember(folder: Path, values: Remembered) -> None:
    """Keep values for the next start."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _FILE
    path.touch(mode=0o600)  # it holds passwords
    path.write_text(json.dumps(asdict(values), indent=1))
