"""Rounds of labelling: the simulated annotator labels, the worker trains and publishes, and each round is a row."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ml_backend.demo.annotator import SimulatedAnnotator, Submission
from ml_backend.errors import NextmaskError
from ml_backend.learning.measuring import Estimate
from ml_backend.learning.measuring.words import measured_text, recorded
from ml_backend.projects.folders import checkpoints_of
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.system.progress import step

_POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Round:
    """One row of the demo's table.

    Attributes:
        number: of the round; round 0 comes before the first version.
        labelled: tasks with a label, at its end.
        held_out: mIoU of the version that serves; None where it was not measured.
        agreement: mean IoU of pre-annotation and submitted mask; None where no task came with a mask.
        seconds: wall-clock time from the first task to the new queue.
    """

    number: int
    labelled: int
    version: str
    held_out: Estimate | None
    agreement: float | None
    seconds: float


class Rounds:
    """Labels one project round by round.

    Args:
        settings: of nextmask's installation.
        log: of nextmask, for people to read when the worker fails.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        project_id: int,
        annotator: SimulatedAnnotator,
        *,
        log: Path,
        console: Console,
    ) -> None:
        self._store, self._id, self._annotator = store, project_id, annotator
        self._checkpoints = checkpoints_of(settings, store, project_id)
        self._log, self._console = log, console

    def run(self, rounds: int, per_round: int) -> list[Round]:
        """Label, wait for the new version and the new queue, again and again; ends early when nothing is left to label.

        Args:
            rounds: how many after the first masks, which make a round of their own before the first version.
            per_round: masks per round.

        Raises:
            NextmaskError: the worker cannot go on; its log is named.
        """
        self._wait_until_settled("first queue")
        rows: list[Round] = []
        is_first_start = self._checkpoints.latest() is None
        for number in range(0 if is_first_start else 1, rounds + 1):
            begin = time.monotonic()
            submitted = self._annotate(number, per_round)
            if not submitted:
                break
            self._wait_until_settled(f"round {number}, learning")
            rows.append(self._row(number, submitted, time.monotonic() - begin))
        return rows

    def _annotate(self, number: int, count: int) -> list[Submission]:
        """Label tasks; return those that were submitted."""
        with step(self._console, f"round {number}, labelling", count) as shown:
            done = self._annotator.annotate(count, progress=lambda _: shown.advance())
        for submission in done:
            if submission.error:
                self._say(f"task {submission.task} was not labelled: {submission.error}")
        return [submission for submission in done if not submission.error]

    def _wait_until_settled(self, name: str) -> None:
        with step(self._console, name) as shown:
            while not self._is_settled():
                project = self._store.project(self._id)
                if project is not None and project.stage:
                    shown.update(project.stage_done, project.stage_total, project.stage)
                time.sleep(_POLL_SECONDS)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _is_settled(self) -> bool:
        """Whether the worker has seen all labels, trained on them, and published the new order."""
        project = self._store.project(self._id)
        if project is None or project.lease_owner is not None or project.wakes > project.wakes_handled:
            return False
        if project.state == "failed":
            raise NextmaskError(f"The loop stopped: {project.error} The log is {self._log}.")
        return project.reconciled_at is not None

    def _row(self, number: int, submitted: list[Submission], seconds: float) -> Round:
        project, current = self._store.project(self._id), self._checkpoints.current()
        agreements = [submission.agreement for submission in submitted if submission.agreement is not None]
        return Round(
            number,
            labelled=self._store.count_tasks(self._id).get("labelled", 0),
            version=project.published_version if project else "",
            held_out=recorded(current.record, "miou") if current else None,
            agreement=sum(agreements) / len(agreements) if agreements else None,
            seconds=seconds,
        )


def rounds_table(rounds: list[Round]) -> Table:
    """Return the rounds as a table for the terminal."""
    table = Table("round", "labelled", "version", "held-out mIoU", "pre-annotation IoU", "seconds")
    for row in rounds:
        agreement = "" if row.agreement is None else f"{row.agreement:.3f}"
        cells = [str(row.number), str(row.labelled), row.version, measured_text(row.held_out), agreement]
        table.add_row(*cells, f"{row.seconds:.0f}")
    return table
