"""Checks that the environment holds the lowest versions that nextmask declares. Run by `make test-oldest`.

A bound that no release fits exactly, or that another package raises, is a promise that nobody tested.
"""

from __future__ import annotations

import importlib.metadata
import sys

from packaging.requirements import Requirement
from packaging.version import Version

EXTRAS = ("", "label-studio-ml", "postgres", "simulation")


def main() -> int:
    """Print what differs, and return the exit code."""
    wrong = [text for line in importlib.metadata.requires("nextmask") or [] if (text := compared(Requirement(line)))]
    print("\n".join(wrong) or "lowest versions: installed as declared")
    return 1 if wrong else 0


def compared(declared: Requirement) -> str:
    """Return what is wrong with a declared requirement; nothing if it is one of tests, or if its lowest is there."""
    if declared.marker and not any(declared.marker.evaluate({"extra": extra}) for extra in EXTRAS):
        return ""
    lowest = [Version(one.version) for one in declared.specifier if one.operator in (">=", "==")]
    installed = Version(importlib.metadata.version(declared.name))
    if installed in lowest:
        return ""
    return f"{declared}: {installed} is the lowest version that could be installed. Declare that in setup.cfg."


if __name__ == "__main__":
    sys.exit(main())
