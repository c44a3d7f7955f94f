"""Whether nextmask's own files are there as they were installed.

pip lets a package install over files of another one without a word: PyPI has a package `strategies`, too. This module
imports nothing of ours, since that may be what is broken.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Final

DISTRIBUTION: Final = "nextmask"
PACKAGES: Final = ("ml_backend", "strategies")
_INSTALL: Final = "install nextmask anew, in a clone of the repository with: pip install --force-reinstall --no-deps ."


@dataclass(frozen=True)
class Damage:
    """What is wrong with nextmask's files.

    Attributes:
        is_fatal: whether nextmask cannot work so; a file that somebody edited may be meant.
    """

    message: str
    remedy: str
    is_fatal: bool = True


def damage() -> Damage | None:
    """Compare nextmask's files with what was installed; None where they are the same.

    Where nextmask is run from a clone, both packages have to come from there.
    """
    try:
        installed = [file for file in metadata.files(DISTRIBUTION) or () if file.parts[0] in PACKAGES]
    except metadata.PackageNotFoundError:
        installed = []
    if installed:
        wrong = [file for file in installed if _is_wrong(file)]
        return _damage_of(wrong) if wrong else None
    return next(_hidden(), None)


def _damage_of(files: list[metadata.PackagePath]) -> Damage:
    shown = f"{files[0]} of nextmask was"
    if len(files) > 1:
        shown = f"{files[0]} and {len(files) - 1} more files of nextmask were"
    if others := _others({file.parts[0] for file in files}):
        remove = f"Remove what is in the way (pip uninstall {' '.join(others)}), then {_INSTALL}"
        return Damage(f"{shown} replaced by another package: {_with_versions(others)}", remove)
    if any(not Path(str(file.locate())).exists() for file in files):
        message = f"{shown} removed, as happens where another package of the same name is uninstalled"
        return Damage(message, _INSTALL.capitalize())
    return Damage(f"{shown} changed since the installation", _INSTALL.capitalize(), is_fatal=False)


def _is_wrong(file: metadata.PackagePath) -> bool:
    """Whether an installed file is not there, or not what the list of the installation (RECORD) says."""
    try:
        content = Path(str(file.locate())).read_bytes()
    except OSError:
        return file.suffix != ".pyc"
    if file.hash is None:
        return False
    digest = base64.urlsafe_b64encode(hashlib.new(file.hash.mode, content).digest()).decode()
    return digest.rstrip("=") != file.hash.value


def _hidden() -> Iterator[Damage]:
    """Yield what is wrong with the packages that Python finds in another place than this module."""
    home = Path(__file__).resolve().parents[2]
    for name in PACKAGES:
        found = util.find_spec(name)
        place = Path(found.origin).resolve().parent if found and found.origin else None
        if place != home / name:
            others = _others({name})
            way = f"pip uninstall {' '.join(others)}" if others else "rename it, or take its folder off PYTHONPATH"
            shown = f"{place}{f', of the package {_with_versions(others)},' if others else ''}"
            yield Damage(f"{shown} hides {home / name} of nextmask", f"Remove what is in the way: {way}")


def _others(packages: set[str]) -> list[str]:
    """Return the other distributions that have one of these packages."""
    owners = metadata.packages_distributions()
    return sorted({name for package in packages for name in owners.get(package, ()) if name.lower() != DISTRIBUTION})


def _with_versions(distributions: list[str]) -> str:
    return ", ".join(f"{name} {metadata.version(name)}" for name in distributions)
