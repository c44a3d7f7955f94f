"""The command that simulates labelling: simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ml_backend.cli.console import console, errors, progress_bar
from ml_backend.errors import ConfigurationError

commands = typer.Typer()

_OPTION = typer.Option
_SAMPLE = "sample"


@commands.command()
def simulate(
    dataset: Annotated[
        Path | None,
        typer.Argument(help="Folder of the data set (docs/datasets.md), or 'sample' for the one that is shipped."),
    ] = None,
    out: Annotated[Path, _OPTION(help="Folder of results; the same command goes on where it was stopped.")] = Path(
        ".nextmask/simulation"
    ),
    strategy: Annotated[
        list[str] | None,
        _OPTION(help="NAME or NAME:{JSON of options}; 'full' is all labels, 'all' every strategy. May be repeated."),
    ] = None,
    preset: Annotated[
        str | None, _OPTION(help="Settings that other options are laid over: quick, or one of the papers' (docs).")
    ] = None,
    seeds: Annotated[int | None, _OPTION(min=1, help="Runs of each strategy; with the same initial images.")] = None,
    start: Annotated[str | None, _OPTION(help="Images labelled at first: a number, or a share such as 10%.")] = None,
    step: Annotated[str | None, _OPTION(help="What a round adds, in --unit: a number, or a share of all.")] = None,
    rounds: Annotated[int | None, _OPTION(min=0, help="Rounds after the first training.")] = None,
    unit: Annotated[str | None, _OPTION(help="What --step counts: images, pixels or clicks.")] = None,
    architecture: Annotated[str | None, _OPTION(help="As NEXTMASK_ARCHITECTURE.")] = None,
    encoder: Annotated[str | None, _OPTION(help="As NEXTMASK_ENCODER.")] = None,
    encoder_weights: Annotated[str | None, _OPTION(help="As NEXTMASK_ENCODER_WEIGHTS.")] = None,
    network_options: Annotated[str | None, _OPTION(help="As NEXTMASK_NETWORK_OPTIONS, JSON.")] = None,
    train_encoder: Annotated[
        bool | None,
        _OPTION("--train-encoder/--freeze-encoder", help="A frozen encoder is computed once per image."),
    ] = None,
    dropout: Annotated[float | None, _OPTION(help="As NEXTMASK_DROPOUT.")] = None,
    input_size: Annotated[int | None, _OPTION(min=32, help="Longest image side, in pixels.")] = None,
    iterations: Annotated[int | None, _OPTION(min=1, help="Optimiser steps of every training.")] = None,
    batch_size: Annotated[int | None, _OPTION(min=2, help="Images per step.")] = None,
    learning_rate: Annotated[float | None, _OPTION(help="As NEXTMASK_LEARNING_RATE.")] = None,
    members: Annotated[int | None, _OPTION(min=2, help="Members of committees.")] = None,
    measure_on: Annotated[str | None, _OPTION(help="Split that measures: test or validation.")] = None,
    measure_at: Annotated[str | None, _OPTION(help="Size of the compared masks: original or network.")] = None,
    object_class: Annotated[str | None, _OPTION(help="Class whose connected components are measured.")] = None,
    device: Annotated[str, _OPTION(help="auto, cpu, cuda or cuda:N.")] = "auto",
    jobs: Annotated[int, _OPTION(min=1, help="Processes side by side; each has the data in memory.")] = 1,
    report: Annotated[
        bool, _OPTION("--report/--no-report", help="Write report.html. Without DATASET: only that.")
    ] = True,
) -> None:
    """Simulate labelling on data with known masks: how much does each strategy save?"""
    from ml_backend.simulation import results
    from ml_backend.simulation.plan import Amount, Contender, Plan
    from ml_backend.simulation.presets import plan_of
    from ml_backend.simulation.running import RESULTS

    values: dict[str, Any] = {
        "strategies": tuple(map(Contender.parse, _named(strategy))) if strategy else None,
        "seeds": None if seeds is None else tuple(range(seeds)),
        "start": None if start is None else Amount.parse(start),
        "step": None if step is None else Amount.parse(step),
        "rounds": rounds,
        "unit": _choice("--unit", unit, ("images", "pixels", "clicks")),
        "measure_on": _choice("--measure-on", measure_on, ("test", "validation")),
        "measure_at": _choice("--measure-at", measure_at, ("original", "network")),
        "object_class": object_class,
        "device": device,
    }
    recipe: dict[str, Any] = {
        "architecture": architecture,
        "encoder": encoder,
        "encoder_weights": encoder_weights,
        "network_options": _json("--network-options", network_options),
        "train_encoder": train_encoder,
        "dropout": dropout,
        "input_size": input_size,
        "iterations": iterations,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "members": members,
    }
    plan: Plan = plan_of(preset, values, recipe)
    if dataset is not None:
        _run(plan, dataset, out, jobs)
    elif not report:
        raise ConfigurationError("Give the folder of a data set, or 'sample'.")
    if report:
        from ml_backend.simulation.report import write_report

        page = write_report(results.read(out / RESULTS), out, pictures=out / "pictures")
        console.print(f"Report: {page}")


def _run(plan: Any, folder: Path, out: Path, jobs: int) -> None:
    from ml_backend.datasets import open_dataset, sample_dataset
    from ml_backend.simulation import results
    from ml_backend.simulation.opening import check
    from ml_backend.simulation.results import Row
    from ml_backend.simulation.running import RESULTS, missing, run

    with progress_bar() as bar:
        line = bar.add_task("checking the data set", total=None)

        def show(done: int, total: int) -> None:
            bar.update(line, completed=done, total=total)

        found = sample_dataset() if str(folder) == _SAMPLE else open_dataset(folder, show)
        check(plan, found)
        runs = missing(plan, found.name, results.read(out / RESULTS))
        if not runs:
            console.print("All rows are there: nothing to run. Give more --seeds, --rounds or another --strategy.")
            return
        total = sum(1 if one.contender.name == "full" else plan.rounds + 1 - one.done for one in runs)
        bar.update(line, description=f"training {total} networks", completed=0, total=total)

        def on_row(row: Row) -> None:
            bar.advance(line)
            errors.print(
                f"{row.strategy} seed {row.seed} round {row.round}: {row.images} images, {row.clicks:,.0f} clicks, "
                f"mIoU {row.miou:.3f}",
                highlight=False,
            )

        run(plan, found, out, jobs=jobs, on_row=on_row, told=lambda *_: None)


def _named(strategies: list[str]) -> list[str]:
    """Put all strategies in the place of "all"."""
    from strategies import available

    names = [name for one in strategies for name in (("full", *available()) if one == "all" else (one,))]
    return list(dict.fromkeys(names))


def _choice(option: str, value: str | None, valid: tuple[str, ...]) -> str | None:
    if value is not None and value not in valid:
        raise ConfigurationError(f"{option} {value!r} is unknown: use {', '.join(valid)}.")
    return value


def _json(option: str, text: str | None) -> dict[str, Any] | None:
    import json

    if text is None:
        return None
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ConfigurationError(f"{option} {text!r} is no JSON object.")
    return values
