"""How long ago something was, whatever the machine's clock has been set to since."""

from __future__ import annotations

import time
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return what tells one start of this machine from another; the same all the time where the system has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


def boot_seconds() -> float:
    """Return the seconds since this machine started, sleep included: nobody can set this clock."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
