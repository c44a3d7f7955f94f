"""What can be given to `nextmask simulate`, in the order of its --help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from ml_backend.simulation.options import Options

OUT: Final = Path(".nextmask/simulation")
SAMPLE: Final = "sample"
"""In the place of a folder: the data set that is shipped."""

_labelling = partial(typer.Option, rich_help_panel="What is labelled, and by which strategy")
_training = partial(typer.Option, rich_help_panel="How every network is trained (default: as in production)")
_measuring = partial(typer.Option, rich_help_panel="How networks are measured")
_running = partial(typer.Option, rich_help_panel="Running")


@dataclass(frozen=True)
class Simulate:
    """What was given on the command line: the data set, the options of the plan, and how to run it; None: not given."""

    dataset: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of the data set (docs/datasets.md), or 'sample' for the one that is shipped. Without it only "
            "the report on the results in --out is written.",
            show_default=False,
        ),
    ] = None
    preset: Annotated[
        str | None,
        _labelling(
            help="Settings that other options are laid over: quick, cereals, suggestive_annotation, vaal or ceal; "
            "without one, those of production."
        ),
    ] = None
    strategy: Annotated[
        list[str] | None,
        _labelling(
            help="NAME or NAME:{JSON of options}, or 'all' for every strategy. May be repeated. Training on all "
            "labels, 'full', is always run beside them."
        ),
    ] = None
    seeds: Annotated[
        str | None,
        _labelling(
            help="Runs of each strategy, how many or the first and the last seed (100-109); those of one seed start "
            "with the same images."
        ),
    ] = None
    start: Annotated[
        str | None, _labelling(help="Images that are labelled at first: a number, or a share such as 10%.")
    ] = None
    step: Annotated[
        str | None, _labelling(help="What a round adds: a number, counted in --unit, or a share of all.")
    ] = None
    growth: Annotated[
        float | None, _labelling(min=1, help="Each further round adds so many times as much as the one before.")
    ] = None
    rounds: Annotated[int | None, _labelling(min=0, help="Rounds after the first training.")] = None
    unit: Annotated[
        str | None,
        _labelling(
            help="What --step counts: images, pixels or clicks. Without it images; clicks in the preset quick, pixels "
            "in cereals."
        ),
    ] = None
    point_clicks: Annotated[
        int | None,
        _labelling(
            min=1, help="Clicks that the answer to a point counts as: 1. Without DATASET the report counts them so."
        ),
    ] = None
    opening_clicks: Annotated[
        int | None,
        _labelling(min=0, help="Clicks that opening an image counts as, each time: 0. Likewise."),
    ] = None
    architecture: Annotated[str | None, _training(help="As NEXTMASK_ARCHITECTURE.")] = None
    encoder: Annotated[str | None, _training(help="As NEXTMASK_ENCODER.")] = None
    encoder_weights: Annotated[str | None, _training(help="As NEXTMASK_ENCODER_WEIGHTS.")] = None
    network_options: Annotated[str | None, _training(help="As NEXTMASK_NETWORK_OPTIONS, JSON.")] = None
    train_encoder: Annotated[
        bool | None,
        _training(
            "--train-encoder/--freeze-encoder", help="A frozen encoder is computed once per image, which is quick."
        ),
    ] = None
    dropout: Annotated[float | None, _training(help="As NEXTMASK_DROPOUT.")] = None
    input_size: Annotated[int | None, _training(min=32, help="Longest image side, in pixels.")] = None
    iterations: Annotated[int | None, _training(min=1, help="Optimiser steps of a training, at least.")] = None
    passes: Annotated[int | None, _training(min=0, help="Times that a training sees each image, at least.")] = None
    batch_size: Annotated[int | None, _training(min=2, help="Images per step.")] = None
    learning_rate: Annotated[float | None, _training(help="As NEXTMASK_LEARNING_RATE.")] = None
    members: Annotated[int | None, _training(min=2, help="Members of committees of MC dropout.")] = None
    measure_on: Annotated[
        str | None,
        _measuring(help="test, or validation: the split val, or where there is none a fifth of train."),
    ] = None
    measure_at: Annotated[
        str | None, _measuring(help="Size of the compared masks: original, or network, which is faster.")
    ] = None
    mending: Annotated[
        bool,
        _measuring(
            "--mending",
            help="The report counts masks as mended from those that are predicted, not as drawn from nothing.",
        ),
    ] = False
    object_class: Annotated[
        str | None, _measuring(help="Class whose connected components are measured as objects, too; 'none' for none.")
    ] = None
    contrasts: Annotated[
        Path | None,
        _measuring(
            help="File of the few comparisons that are tested (docs/label-efficiency.md), named before the run; it is "
            "kept in --out. Without one nothing is tested.",
            show_default=False,
        ),
    ] = None
    out: Annotated[Path, _running(help="Folder of results; the same command goes on where it was stopped.")] = OUT
    report: Annotated[
        bool, _running("--report/--no-report", help="Write report.html and its tables; without DATASET, only that.")
    ] = True
    device: Annotated[str, _running(help="auto, cpu, cuda or cuda:N.")] = "auto"
    jobs: Annotated[int, _running(min=1, help="Processes side by side; each has the data in memory.")] = 1

    def plan_options(self) -> Options:
        """Return the options that make the plan."""
        from ml_backend.simulation.options import Options

        names = {field.name for field in dataclasses.fields(Options)}
        return Options(**{name: value for name, value in vars(self).items() if name in names})
