"""A clock that setting the machine's clock does not change: the time since the machine was started."""

from __future__ import annotations

import time
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return an id of the present start of this machine; "unknown" where the system has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


def boot_seconds() -> float:
    """Return the seconds since this machine was started, including sleep."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
