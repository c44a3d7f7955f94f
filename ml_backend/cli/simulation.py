"""The command that simulates labelling: simulate."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from ml_backend.cli.console import console, errors
from ml_backend.cli.dataclass_options import with_options_of
from ml_backend.cli.simulation_options import SAMPLE, Simulate
from ml_backend.errors import ConfigurationError
from ml_backend.system.progress import step

if TYPE_CHECKING:
    from ml_backend.datasets import Dataset
    from ml_backend.simulation.results import Row

commands = typer.Typer()

_TARGET: Final = 0.95
"""Share of the mean IoU with all labels that the table and the report tell the effort to."""


@commands.command()
@with_options_of(Simulate)
def simulate(given: Simulate) -> None:
    """Simulate labelling on data with known masks: how much effort does each strategy save?

    Each strategy starts from the same images, trains, chooses what is labelled next, and so on, as in production.

    Training on all labels, the strategy "full", is always run: it is what the others are measured by. Stopped or
    killed, the same command goes on.
    """
    from ml_backend.simulation import results
    from ml_backend.simulation.contrasts import keep
    from ml_backend.simulation.report import check_installed, write_report
    from ml_backend.simulation.results import RESULTS

    if given.report:
        check_installed()
    _check_writable(given.out)
    if given.contrasts is not None:
        keep(given.contrasts, given.out)
    name = None if given.dataset is None else _run(given, given.dataset)
    rows = _charged(given, results.read(given.out / RESULTS))
    if given.dataset is None and not (given.report and rows):
        raise ConfigurationError(
            f"There are no results in --out {given.out} to report: give DATASET, the folder of a data set, or 'sample'."
            if given.report
            else "--no-report without DATASET leaves nothing to do: give the folder of a data set, or 'sample'."
        )
    _summarise([row for row in rows if name in (None, row.dataset)], given.out)
    if given.report:
        page = write_report(rows, given.out, target=_TARGET)
        console.print(f"Report: {page}", soft_wrap=True, highlight=False)


def _charged(given: Simulate, rows: list[Row]) -> list[Row]:
    """Return rows with the clicks that are asked for.

    Raises:
        ConfigurationError: none counts enough for it.
    """
    from ml_backend.simulation.report.charges import charged

    if given.point_clicks is None and given.opening_clicks is None and not given.mending:
        return rows
    found = charged(rows, point=given.point_clicks, opening=given.opening_clicks, mended=given.mending)
    if rows and not found:
        raise ConfigurationError(
            f"The rows in --out {given.out} are of a release that did not count points, openings and mending apart: "
            "they cannot be charged anew. Leave out --point-clicks, --opening-clicks and --mending."
        )
    return found


def _run(given: Simulate, folder: Path) -> str:
    """Make the missing rows and the pictures; return the data set's name."""
    from ml_backend.cli.simulation_progress import Display
    from ml_backend.simulation import results
    from ml_backend.simulation.checks import check
    from ml_backend.simulation.first_choices import draw_first_choices
    from ml_backend.simulation.processes import missing, run
    from ml_backend.simulation.results import RESULTS

    plan, out = given.plan_options().plan(), given.out
    try:
        dataset = _open(folder)
        check(plan, dataset)
        runs = missing(plan, dataset.name, results.read(out / RESULTS))
        if runs:
            with step(errors, "simulation") as shown:
                display = Display(shown)
                display.expect(plan, dataset, runs, given.jobs)
                run(plan, dataset, out, jobs=given.jobs, audience=display)
        else:
            console.print("All rows are there: nothing to run. Give more --seeds, --rounds or another --strategy.")
        draw_first_choices(plan, dataset, out)
    except KeyboardInterrupt:
        errors.print("Stopped. All rows are kept: the same command goes on from there.", soft_wrap=True)
        raise
    return dataset.name


def _open(folder: Path) -> Dataset:
    from ml_backend.datasets import open_dataset, sample_dataset

    if str(folder) == SAMPLE:
        return sample_dataset()
    with step(errors, "checking the data set") as shown:
        return open_dataset(folder, shown.update)


def _summarise(rows: list[Row], folder: Path) -> None:
    """Print a table of each data set in rows, and below it what came of the folder's contrasts."""
    from ml_backend.cli.simulation_progress import summary
    from ml_backend.simulation.contrasts import CONTRASTS, read
    from ml_backend.simulation.report.analysis import analyse
    from ml_backend.simulation.report.findings import verdict_text

    for analysis in analyse(rows, _TARGET, "clicks", read(folder / CONTRASTS)):
        console.print(summary(analysis))
        for verdict in analysis.verdicts:
            console.print(verdict_text(verdict, analysis), soft_wrap=True, highlight=False, markup=False)


def _check_writable(out: Path) -> None:
    """Make the folder of results, and see whether files can be written there before any hour is spent."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"--out {out} cannot be written to ({error.strerror}): give a folder that can."
        ) from None
