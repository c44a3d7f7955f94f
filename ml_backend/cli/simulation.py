"""The command that simulates labelling: simulate."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_backend.cli.console import console, errors
from ml_backend.errors import ConfigurationError

if TYPE_CHECKING:
    from ml_backend.datasets import Dataset
    from ml_backend.simulation.plan import Plan

commands = typer.Typer()

_SAMPLE = "sample"
_TARGET = 0.95
_OUT = Path(".nextmask/simulation")
_labelling = partial(typer.Option, rich_help_panel="What is labelled, and by which strategy")
_training = partial(typer.Option, rich_help_panel="How every network is trained (default: as in production)")
_measuring = partial(typer.Option, rich_help_panel="How networks are measured")
_running = partial(typer.Option, rich_help_panel="Running")


@commands.command()
def simulate(
    dataset: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of the data set (docs/datasets.md), or 'sample' for the one that is shipped. Without it only "
            "the report on the results in --out is written.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        _labelling(
            help="Settings that other options are laid over: quick, cereals, suggestive_annotation, vaal or ceal; "
            "without one, those of production."
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        _labelling(
            help="NAME or NAME:{JSON of options}; 'full' is training on all labels, 'all' every strategy. May be "
            "repeated."
        ),
    ] = None,
    seeds: Annotated[
        int | None, _labelling(min=1, help="Runs of each strategy; those of one seed start with the same images.")
    ] = None,
    start: Annotated[
        str | None, _labelling(help="Images that are labelled at first: a number, or a share such as 10%.")
    ] = None,
    step: Annotated[str | None, _labelling(help="What a round adds, in --unit: a number, or a share of all.")] = None,
    rounds: Annotated[int | None, _labelling(min=0, help="Rounds after the first training.")] = None,
    unit: Annotated[str | None, _labelling(help="What --step counts: images, pixels or clicks.")] = None,
    architecture: Annotated[str | None, _training(help="As NEXTMASK_ARCHITECTURE.")] = None,
    encoder: Annotated[str | None, _training(help="As NEXTMASK_ENCODER.")] = None,
    encoder_weights: Annotated[str | None, _training(help="As NEXTMASK_ENCODER_WEIGHTS.")] = None,
    network_options: Annotated[str | None, _training(help="As NEXTMASK_NETWORK_OPTIONS, JSON.")] = None,
    train_encoder: Annotated[
        bool | None,
        _training(
            "--train-encoder/--freeze-encoder", help="A frozen encoder is computed once per image, which is quick."
        ),
    ] = None,
    dropout: Annotated[float | None, _training(help="As NEXTMASK_DROPOUT.")] = None,
    input_size: Annotated[int | None, _training(min=32, help="Longest image side, in pixels.")] = None,
    iterations: Annotated[int | None, _training(min=1, help="Optimiser steps.")] = None,
    batch_size: Annotated[int | None, _training(min=2, help="Images per step.")] = None,
    learning_rate: Annotated[float | None, _training(help="As NEXTMASK_LEARNING_RATE.")] = None,
    members: Annotated[int | None, _training(min=2, help="Members of committees of MC dropout.")] = None,
    measure_on: Annotated[
        str | None,
        _measuring(help="test, or validation: the split val, or where there is none a fifth of train."),
    ] = None,
    measure_at: Annotated[
        str | None, _measuring(help="Size of the compared masks: original, or network, which is faster.")
    ] = None,
    object_class: Annotated[
        str | None, _measuring(help="Class whose connected components are measured as objects, too; 'none' for none.")
    ] = None,
    out: Annotated[Path, _running(help="Folder of results; the same command goes on where it was stopped.")] = _OUT,
    report: Annotated[
        bool, _running("--report/--no-report", help="Write report.html and its tables; without DATASET, only that.")
    ] = True,
    device: Annotated[str, _running(help="auto, cpu, cuda or cuda:N.")] = "auto",
    jobs: Annotated[int, _running(min=1, help="Processes side by side; each has the data in memory.")] = 1,
) -> None:
    """Simulate labelling on data with known masks: how much effort does each strategy save?

    Each strategy starts from the same images, trains, chooses what is labelled next, and so on, as in production.

    The strategy "full" is training on all labels. Stopped or killed, the same command goes on.
    """
    from ml_backend.simulation import results
    from ml_backend.simulation.options import Options
    from ml_backend.simulation.processes import RESULTS

    _check_writable(out)
    name = None
    if dataset is not None:
        plan = Options(
            preset=preset,
            strategy=strategy,
            seeds=seeds,
            start=start,
            step=step,
            rounds=rounds,
            unit=unit,
            architecture=architecture,
            encoder=encoder,
            encoder_weights=encoder_weights,
            network_options=network_options,
            train_encoder=train_encoder,
            dropout=dropout,
            input_size=input_size,
            iterations=iterations,
            batch_size=batch_size,
            learning_rate=learning_rate,
            members=members,
            measure_on=measure_on,
            measure_at=measure_at,
            object_class=object_class,
            device=device,
        ).plan()
        name = _run(plan, dataset, out, jobs)
    rows = results.read(out / RESULTS)
    if dataset is None and not (report and rows):
        raise ConfigurationError(
            f"There are no results in --out {out} to report: give DATASET, the folder of a data set, or 'sample'."
            if report
            else "--no-report without DATASET leaves nothing to do: give the folder of a data set, or 'sample'."
        )
    _summarise([row for row in rows if name in (None, row.dataset)])
    if report:
        from ml_backend.simulation.report import write_report

        page = write_report(rows, out, target=_TARGET)
        console.print(f"Report: {page}", soft_wrap=True, highlight=False)


def _run(plan: Plan, folder: Path, out: Path, jobs: int) -> str:
    """Make the missing rows and the pictures; return the data set's name."""
    from ml_backend.cli.simulation_progress import Display
    from ml_backend.simulation import results
    from ml_backend.simulation.checks import check
    from ml_backend.simulation.first_choices import draw_first_choices
    from ml_backend.simulation.processes import RESULTS, missing, run

    try:
        with Display() as display:
            found = _open(folder, display)
            check(plan, found)
            there = results.read(out / RESULTS)
            runs = missing(plan, found.name, there)
            if runs:
                display.expect(plan, found, runs, jobs)
                run(plan, found, out, jobs=jobs, on_row=display.row, on_reading=display.reading)
            else:
                console.print("All rows are there: nothing to run. Give more --seeds, --rounds or another --strategy.")
            draw_first_choices(plan, found, out)
    except KeyboardInterrupt:
        errors.print("Stopped. All rows are kept: the same command goes on from there.", soft_wrap=True)
        raise
    return found.name


def _open(folder: Path, display: Any) -> Dataset:
    from ml_backend.datasets import open_dataset, sample_dataset

    return sample_dataset() if str(folder) == _SAMPLE else open_dataset(folder, display.checking)


def _summarise(rows: list[Any]) -> None:
    """Print a table of each data set in rows."""
    from ml_backend.cli.simulation_progress import summary
    from ml_backend.simulation.report.analysis import analyse

    for analysis in analyse(rows, _TARGET, "clicks"):
        console.print(summary(analysis))


def _check_writable(out: Path) -> None:
    """Make the folder of results, and find out before any hour is spent whether files can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"--out {out} cannot be written to ({error.strerror}): give a folder that can."
        ) from None
