"""Data folders of a Label Studio that has started once: making its database takes half a minute, a copy of it nothing.

They are kept with pytest's cache, so that later runs, and processes that run at the same time, find them there.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_backend.demo.label_studio import LabelStudioHost, free_port

TOKEN = "0123456789abcdef0123456789abcdef01234567"
USER, PASSWORD = "admin@nextmask.local", "nextmask-password"


@dataclass(frozen=True)
class Account:
    """The administrator whom a Label Studio makes at its first start."""

    user: str = USER
    password: str = PASSWORD
    token: str = TOKEN


def host_on(
    command: Path,
    folder: Path,
    cache: Path,
    *,
    account: Account | None = None,
    environment: Mapping[str, str] | None = None,
) -> LabelStudioHost:
    """A Label Studio that is not started yet, and that has started once before.

    Args:
        command: the label-studio program.
        folder: its data; where there is none yet, a copy of the data of a first start. Tasks may name files beside it.
        cache: folder in which the data of first starts are kept.
        account: its administrator.
        environment: variables that differ from what the demo needs. Some are written into the database at the first
            start: other variables have data of their own.
    """
    account = account or Account()
    if not folder.exists():
        shutil.copytree(_prepared(command, cache, account, environment or {}), folder)
    return _host(command, folder, account, environment or {})


def _prepared(command: Path, cache: Path, account: Account, environment: Mapping[str, str]) -> Path:
    """Return the data of a first start, which is made unless it is there. One process makes it, others wait."""
    how = inspect.getsource(LabelStudioHost)
    made_by = [str(command), _release(command), account, sorted(environment.items()), how]
    ready = cache / hashlib.sha256(repr(made_by).encode()).hexdigest()[:16]
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            with tempfile.TemporaryDirectory(dir=cache) as begun:
                folder = Path(begun) / "data"
                with _host(command, folder, account, environment).running():
                    pass
                folder.rename(ready)
    return ready


def _release(command: Path) -> list[str]:
    """Name what is installed: distribution and version."""
    return [folder.name for folder in command.parents[1].glob("lib/python*/site-packages/label_studio-*.dist-info")]


def _host(command: Path, folder: Path, account: Account, environment: Mapping[str, str]) -> LabelStudioHost:
    return LabelStudioHost(
        command,
        folder,
        free_port(),
        folder.parent,
        username=account.user,
        password=account.password,
        token=account.token,
        environment=environment,
    )
