"""What it brings that rare classes weigh more in the cross-entropy, against all classes alike.

    python benchmarks/class_weights.py DATASET… [--seeds 3] [--out benchmarks/results/class_weights.csv]

The same labels, drawn by the seed: ten random points of each image, 20 random masks, or all masks. 300 steps at least
of the preset `quick` at 96 pixels, and five passes (`--passes`); measured on validation images, or where a data set has
none on every fifth image to label, which then is not learned from.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from training import add

from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.datasets import Dataset, open_dataset
from ml_backend.learning.training import fit
from ml_backend.simulation.labels import Labels, Pick
from ml_backend.simulation.material import Material, Picture, background_of, load
from ml_backend.simulation.plan import Contender
from ml_backend.simulation.presets import PRESETS
from ml_backend.simulation.report.statistics import mean_interval
from ml_backend.simulation.training.trainer import Trainer

FIELDS = ("dataset", "labels", "seed", "weights", "miou")
POINTS, MASKS, INPUT_SIZE, STEPS = 10, 20, 96, 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/class_weights.csv"))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for folder in arguments.datasets:
        for row in measured(open_dataset(folder), arguments.seeds, arguments.passes):
            print(row, flush=True)
            add(arguments.out, [row], FIELDS)
            rows.append(row)
    report(rows)


def measured(dataset: Dataset, seeds: int, passes: int) -> Iterator[dict[str, Any]]:
    """Train with each seed on each kind of labels, with and without weights; yield the mIoU on validation images."""
    device, background = torch.device("cpu"), background_of(dataset)
    train = list(dataset.splits["train"])
    validation = list(dataset.splits.get("val") or train[::5])
    labelled = [sample for sample in train if sample not in validation]
    pool = load(dataset, labelled, input_size=INPUT_SIZE, device=device, outlined=False)
    tests = load(dataset, validation, input_size=INPUT_SIZE, device=device, outlined=False, first=len(pool))
    material = Material(dataset.name, dataset.classes, background, {one.number: one for one in pool}, tests)
    recipe = dataclasses.replace(PRESETS["quick"].recipe, input_size=INPUT_SIZE, iterations=STEPS, passes=passes)
    for seed in range(seeds):
        plan = dataclasses.replace(
            PRESETS["quick"], recipe=recipe, strategies=(Contender("random"),), seeds=(seed,), device="cpu"
        )
        for kind, picks in drawn(material, np.random.default_rng(seed)):
            labels = Labels(material.pool, background)
            labels.add(picks)
            for weights in ("alike", "root"):
                with (
                    tempfile.TemporaryDirectory() as scratch,
                    mock.patch.object(fit, "class_weights_of", fit.class_weights_of if weights == "root" else alike),
                ):
                    miou = Trainer(plan, material, Path(scratch)).train(labels, seed).measured.miou
                row = {"dataset": dataset.name, "labels": kind, "seed": seed, "weights": weights}
                yield {**row, "miou": round(miou, 4)}


def alike(shares: Tensor) -> Tensor:
    """Return the weights (C) of classes that weigh alike."""
    return torch.ones(len(shares))


def drawn(material: Material, generator: np.random.Generator) -> Iterator[tuple[str, list[Pick]]]:
    """Yield kinds of labels of a pool, by name."""
    numbers = sorted(material.pool)
    points = [Pick(number, points=pixels_of(material.pool[number], generator)) for number in numbers]
    yield f"{POINTS} points of each image", points
    yield f"{MASKS} masks", [Pick(int(number)) for number in generator.permutation(numbers)[:MASKS]]
    yield "all masks", [Pick(number) for number in numbers]


def pixels_of(picture: Picture, generator: np.random.Generator) -> tuple[tuple[int, int], ...]:
    """Draw distinct pixels of an image that have a class."""
    rows, columns = np.nonzero(picture.truth() != IGNORE_INDEX)
    chosen = generator.choice(len(rows), size=min(POINTS, len(rows)), replace=False)
    return tuple((int(rows[at]), int(columns[at])) for at in chosen)


def report(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table of docs/benchmarks.md."""
    print("| data | labels | seeds | alike | by the root | difference |")
    print("|---|---|--:|--:|--:|--:|")
    for dataset, labels in dict.fromkeys((row["dataset"], row["labels"]) for row in rows):
        alike, root = (
            [row["miou"] for row in rows if (row["dataset"], row["labels"], row["weights"]) == (dataset, labels, name)]
            for name in ("alike", "root")
        )
        pairs = list(zip(root, alike, strict=True))
        found = mean_interval([one - other for one, other in pairs]) if len(pairs) > 1 else None
        interval = "" if found is None else f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
        print(
            f"| {dataset} | {labels} | {len(pairs)} | {statistics.fmean(alike):.3f} | {statistics.fmean(root):.3f} "
            f"| {interval} |"
        )


if __name__ == "__main__":
    main()
