"""Whether a worker runs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ml_backend.doctor.findings import Finding, ok, problem, skipped
from ml_backend.store import Project

_LIFE_SECONDS = 30.0
"""A worker whose last sign of life is older than this is taken for dead."""


def check_worker(
    projects: Sequence[Project], seen: float | None, now: float | None = None, *, failure: str = ""
) -> Finding:
    """Say whether a worker runs, from the signs of life that it leaves in the state every few seconds.

    Args:
        projects: the connected ones.
        seen: when the last sign was given, in seconds since the epoch; None where none ever was.
        now: in seconds since the epoch.
        failure: why workers end soon after their start, as a sentence; "" where none does.
    """
    why = "Without a worker, nothing is read, trained, ranked or published."
    if failure:
        return problem("worker", failure.rstrip("."), why, "Mend the cause. The log of nextmask serve has all it said")
    moment = time.time() if now is None else now
    if seen is None and not projects:
        return skipped("worker", "no project is connected, and no worker has run yet")
    if seen is not None and abs(moment - seen) <= _LIFE_SECONDS:
        return ok("worker", f"gave a sign of life {abs(moment - seen):.0f} s ago")
    held = [project for project in projects if project.lease_owner]
    message = (
        "No worker has run yet" if seen is None else f"No worker gave a sign of life for {_duration(moment - seen)}"
    )
    if seen is not None and seen > moment:
        message = f"The last sign of life of a worker is {_duration(seen - moment)} ahead of this machine's clock"
    if held:
        message += f"; the last one ({held[0].lease_owner}) ended while it worked on project {held[0].id}"
    remedy = "Start nextmask serve without --no-worker, or beside it: nextmask worker. Its log says why it ended"
    return problem("worker", message, why, remedy)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
