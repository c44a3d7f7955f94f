"""What has to be the same on all machines of a cluster, so that what they measure and train is the same, too."""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path

_PACKAGES = ("ml_backend", "strategies")


def versions() -> dict[str, str]:
    """Return name -> version of nextmask and torch here; nothing heavy is imported."""
    return {"nextmask": f"{_version('nextmask')} (code {code_digest()})", "torch": _version("torch")}


@functools.cache
def code_digest() -> str:
    """Return eight hexadecimal digits of nextmask's Python files: releases of one number may differ in a clone."""
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for package in _PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:8]


def difference(here: dict[str, str], there: dict[str, str]) -> str:
    """Say in words what differs between two machines; empty where nothing does.

    >>> difference({"torch": "2.7.0"}, {"torch": "2.6.0"})
    'torch 2.6.0 where the worker has 2.7.0'
    """
    return " and ".join(
        f"{name} {there.get(name, 'missing')} where the worker has {version}"
        for name, version in here.items()
        if there.get(name) != version
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a clone, not installed
        return "not installed"
