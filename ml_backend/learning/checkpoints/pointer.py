"""The pointer to the version that serves."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ml_backend.system.files import Files, Folder, is_number


class Pointer(Protocol):
    """Where the number of the version that serves is kept: readers see the old one or the new one."""

    def get(self) -> str:
        """Return what was set last; empty before the first time."""

    def set(self, number: int) -> None:
        """Let a version serve."""


class PointerFile:
    """A pointer in a file beside the versions, for versions that belong to no installation.

    Args:
        files: of the project's model.
    """

    def __init__(self, files: Files) -> None:
        self._files = files

    def get(self) -> str:
        """Return what is in the file; empty where there is none."""
        try:
            return self._files.read(CURRENT).decode("ascii", "replace").strip() or "?"
        except FileNotFoundError:
            return ""
        except OSError:
            return "?"

    def set(self, number: int) -> None:
        """Replace the file."""
        self._files.write(CURRENT, f"{number}\n".encode())


CURRENT = "current"
"""Name of the file of the pointer; installations of 0.1 have one for each project."""


def target_of(pointer: Pointer) -> int | None:
    """Return the number that a pointer names; None where it names none."""
    text = pointer.get()
    return int(text) if is_number(text) else None


def files_in(place: Path | Files) -> Files:
    """Return the files in a folder, or those that are given."""
    return Folder(place.absolute()) if isinstance(place, Path) else place
