"""Commands for trying things out: annotate, demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ml_backend.annotations.label_map import label_map_of
from ml_backend.cli.console import console, errors
from ml_backend.cli.installation import diagnosed, installation
from ml_backend.cli.project_argument import ProjectId
from ml_backend.cli.projects import AsJson
from ml_backend.errors import ConfigurationError, NextmaskError
from ml_backend.system.progress import step

commands = typer.Typer()


@commands.command()
def annotate(
    project: ProjectId,
    masks: Annotated[Path, typer.Option(help="Folder of true masks (PNG of class indices), beside a dataset.json.")],
    count: Annotated[int, typer.Option(help="Tasks to label.", min=1)] = 10,
    as_json: AsJson = False,
) -> None:
    """Label tasks as a simulated annotator: ask Label Studio for the next task, submit its true mask."""
    from ml_backend.datasets import open_truth
    from ml_backend.demo.annotator import SimulatedAnnotator

    services = installation()
    truth = open_truth(masks)
    connected = services.store.project(project)
    settings = services.settings.for_project(connected.extra_params if connected else None)
    with diagnosed(services, project):
        label_map = label_map_of(str(services.client.project(project)["label_config"]), settings)
    annotator = SimulatedAnnotator(services.client, project, truth, label_map)
    with step(errors, "labelling", count) as shown:
        done = annotator.annotate(count, progress=lambda _: shown.advance())
    submitted = [task for task in done if not task.error]
    agreements = [task.agreement for task in submitted if task.agreement is not None]
    mean = sum(agreements) / len(agreements) if agreements else None
    if as_json:
        rows = [{"task": task.task, "agreement": task.agreement, "error": task.error} for task in done]
        typer.echo(json.dumps({"submitted": len(submitted), "agreement": mean, "tasks": rows}, indent=1))
    else:
        agreed = "" if mean is None else f", mean IoU of pre-annotation and mask {mean:.3f}"
        console.print(f"Submitted {len(submitted)} of {count} masks{agreed}.")
        if len(done) < count:
            console.print("Label Studio has no task left.")
    failed = [task for task in done if task.error]
    if failed:
        raise NextmaskError(f"{len(failed)} tasks could not be labelled; task {failed[0].task}: {failed[0].error}")


@commands.command()
def demo(
    images: Annotated[Path | None, typer.Option(help="Folder of your own images.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of their masks (PNG of class indices).")] = None,
    rounds: Annotated[
        int, typer.Option(help="Rounds of labelling by the simulated annotator, after the first masks.", min=0)
    ] = 0,
    per_round: Annotated[int, typer.Option(help="Masks submitted per round.", min=1)] = 8,
    leave: Annotated[bool, typer.Option("--exit", help="Stop after the rounds.")] = False,
    strategy: Annotated[str, typer.Option(help="Acquisition strategy.")] = "auto",
    control: Annotated[str, typer.Option(help="BrushLabels, BitmaskLabels or PolygonLabels.")] = "BrushLabels",
    folder: Annotated[Path | None, typer.Option(help="Where the demo keeps its state.")] = None,
    label_studio: Annotated[Path | None, typer.Option(help="The label-studio program.")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Project setting.")] = None,
) -> None:
    """Start Label Studio and nextmask with a sample project, label, train and rank, and let you go on by hand."""
    from ml_backend.cli.projects import parse_settings
    from ml_backend.datasets import open_folders, sample_dataset
    from ml_backend.demo.label_studio import find_label_studio
    from ml_backend.demo.run import Demo, DemoOptions

    if (images is None) != (masks is None):
        raise ConfigurationError("Give --images and --masks together, or neither for the sample data.")
    if images is None or masks is None:
        dataset = sample_dataset()
    else:
        with step(console, "checking images and masks") as shown:
            dataset = open_folders(images, masks, shown.update)
    options = DemoOptions(
        rounds=rounds,
        per_round=per_round,
        leave=leave,
        control=control,
        settings={"strategy": strategy, **parse_settings(setting or [])},
    )
    base = folder or Path(".nextmask") / "demo"
    Demo(dataset, base.absolute(), find_label_studio(label_studio), options, console=console).run()
