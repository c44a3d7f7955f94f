"""Whether a worker runs, and what trains where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ml_backend.doctor.findings import Finding, note, ok, problem, skipped
from ml_backend.errors import first_few
from ml_backend.projects.signs_of_life import WorkerSign
from ml_backend.store import Project


def check_worker(projects: Sequence[Project], signs: Sequence[WorkerSign], *, failure: str = "") -> Finding:
    """Say whether a worker runs, from the signs of life that workers leave in the state every few seconds.

    Args:
        projects: the connected ones.
        signs: of all workers, the newest first.
        failure: why workers end soon after their start, as a sentence; "" where none does.
    """
    why = "Without a worker, nothing is read, trained, ranked or published."
    if failure:
        return problem("worker", failure.rstrip("."), why, "Mend the cause. The log of nextmask serve has all it said")
    if not signs and not projects:
        return skipped("worker", "no project is connected, and no worker has run yet")
    alive = [sign for sign in signs if sign.is_alive]
    silent = [f"{sign.worker} for {_duration(sign.silence)}" for sign in signs if not sign.is_alive]
    if alive:
        others = f"; silent: {', '.join(first_few(silent))}" if silent else ""
        who = f"{alive[0].worker} gave" if len(alive) == 1 else f"{len(alive)} run; {alive[0].worker} gave"
        return ok("worker", f"{who} a sign of life {alive[0].silence:.0f} s ago{others}")
    held = [project for project in projects if project.lease_owner]
    message = f"No worker gave a sign of life for {_duration(signs[0].silence)}" if signs else "No worker runs"
    if held:
        message += f"; the last one ({held[0].lease_owner}) ended while it worked on project {held[0].id}"
    remedy = "Start nextmask serve without --no-worker, or beside it: nextmask worker. Its log says why it ended"
    return problem("worker", message, why, remedy)


def check_trainings(held: Sequence[str]) -> Iterator[Finding]:
    """Say which device trains which project, and who holds it.

    Args:
        held: a sentence for each device that trains.
    """
    if held:
        yield note("worker", "; ".join(first_few(held)))


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
