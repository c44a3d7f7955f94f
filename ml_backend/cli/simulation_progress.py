"""What a simulation shows while it runs, on a terminal and where there is none, and the table at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from ml_backend.datasets import Dataset
from ml_backend.simulation.checks import splits
from ml_backend.simulation.plan import Plan
from ml_backend.simulation.processes import Run
from ml_backend.simulation.report.analysis import Analysis, Standing
from ml_backend.simulation.report.findings import UNKNOWN, amount, miou, percent, ratio
from ml_backend.simulation.results import FULL, Row
from ml_backend.system.progress import Clock, Step, duration

_TIMES = "\N{MULTIPLICATION SIGN}"


class Display:
    """Shows a bar where standard error is a terminal; rows, and what is going on, come as lines in any case."""

    def __init__(self, shown: Step, clock: Clock = time.monotonic) -> None:
        self._shown, self._clock = shown, clock
        self._done, self._total, self._budget = 0, 0, ""
        self._started = clock()

    def expect(self, plan: Plan, dataset: Dataset, runs: Sequence[Run], jobs: int) -> None:
        """Say what is going to be trained."""
        self._total = sum(1 if run.contender.name == FULL else plan.rounds + 1 - run.done for run in runs)
        pool, measured = splits(plan, dataset)
        self._shown.say(
            f"{dataset.name}: {len(pool)} images can be labelled, {len(measured)} measure. {self._total} networks are "
            f"to be trained in {len(runs)} runs, {min(jobs, len(runs))} at a time."
        )
        if any(run.contender.name == FULL for run in runs):
            self._shown.say(f"{FULL!r} is training on all labels, once with each seed: strategies are measured by it.")

    def budget(self, text: str) -> None:
        """Say what a round adds; the first process that has read the data knows it."""
        if not self._budget:
            self._budget = text
            self._shown.say(text)

    def reading(self, what: str, done: int, total: int) -> None:
        """Show how many images were read; the training starts after the last image."""
        if self._done:
            return  # a second process that is still reading
        self._shown.update(done, total, what)
        if done == total:
            self._started = self._clock()
            self._shown.update(0, self._total, "training networks")

    def row(self, row: Row) -> None:
        """Show a row that was measured."""
        self._done += 1
        spent = self._clock() - self._started
        left = spent / self._done * (self._total - self._done)
        about = f"about {duration(left)} left" if self._done < self._total else "done"
        self._shown.say(
            f"{row.strategy}, seed {row.seed}, round {row.round}: {row.images:,} images, {row.clicks:,.0f} clicks, "
            f"mIoU {row.miou:.3f} ({self._done} of {self._total}, {duration(spent)}, {about})"
        )
        self._shown.update(self._done)


def summary(analysis: Analysis) -> Table:
    """Return a table of the strategies of a data set, the best area first, with the effort to the target."""
    table = Table(title=escape(f"{analysis.dataset}: {_reference(analysis)}"), title_justify="left")
    table.add_column("strategy", overflow="fold")
    effort = f"{analysis.axis} to {percent(analysis.target)}"
    for header in ("seeds", "mean mIoU", effort, "reached", f"{_TIMES} random's", "runs/h"):
        table.add_column(header, justify="right")
    for standing in analysis.standings:
        table.add_row(*_cells(analysis, standing))
    return table


def _reference(analysis: Analysis) -> str:
    if analysis.reference is None:
        return "no training on all labels yet (strategy full)"
    return f"mIoU {miou(analysis.reference.miou)} with all labels"


def _cells(analysis: Analysis, standing: Standing) -> list[str]:
    effort = standing.efforts[analysis.axis]
    speed = standing.seconds.runs_per_hour
    area = standing.area[analysis.axis]
    cells = [escape(standing.strategy), str(standing.seeds), UNKNOWN if area is None else f"{area.mean:.3f}"]
    if effort is None:
        cells += [UNKNOWN] * 3
    else:
        cells.append(UNKNOWN if effort.value is None else amount(effort.value))
        cells.append(f"{effort.reached} of {effort.seeds}")
        cells.append(UNKNOWN if effort.ratio is None else ratio(effort.ratio))
    return [*cells, UNKNOWN if speed is None else f"{speed:.3g}"]
