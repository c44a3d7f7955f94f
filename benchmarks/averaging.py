"""What averaging the weights over the second half of a training brings, against the weights of its last step.

    python benchmarks/averaging.py DATASET… [--seeds 5] [--out benchmarks/results/averaging.csv]

Both are of the same training, so that nothing else differs: the preset `quick` of `nextmask simulate`, on 40 labels
that the seed draws. Test mIoU of both; the averaged weights are those that production publishes. Wanted to know,
written down before the run: the mean difference over the seeds, and the standard deviation between seeds of each.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from ml_backend.datasets import Dataset, Sample, open_dataset
from ml_backend.learning.training import fit
from ml_backend.simulation.labels import Labels, Pick
from ml_backend.simulation.material import Material, background_of, load
from ml_backend.simulation.plan import Contender
from ml_backend.simulation.presets import PRESETS
from ml_backend.simulation.report.statistics import mean_interval
from ml_backend.simulation.training.trainer import Trainer

LABELS = 40


class Last(fit.Average):
    """Leaves the network the weights of the last step."""

    def load(self) -> None:
        """Load nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/averaging.csv"))
    arguments = parser.parse_args()
    rows = [row for folder in arguments.datasets for row in measured(open_dataset(folder), arguments.seeds)]
    with arguments.out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    report(rows)


def measured(dataset: Dataset, seeds: int) -> Iterator[dict[str, Any]]:
    """Train with each seed; yield the test mIoU with averaged weights, and with those of the last step."""
    material = material_of(dataset, dataset.splits["train"], dataset.splits["test"])
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(seeds):
            labels = Labels(material.pool, material.background)
            order = np.random.default_rng(seed).permutation(sorted(material.pool))
            labels.add([Pick(int(number)) for number in order[:LABELS]])
            trainer = trainer_of(material, seed, Path(scratch))
            average = trainer.train(labels, seed).measured.miou
            with mock.patch.object(fit, "Average", Last):
                last = trainer.train(labels, seed).measured.miou
            yield {"dataset": dataset.name, "seed": seed, "average": round(average, 5), "last": round(last, 5)}
            print(f"{dataset.name} seed {seed}: {average:.4f} averaged, {last:.4f} last", flush=True)


def material_of(dataset: Dataset, train: Sequence[Sample], tests: Sequence[Sample]) -> Material:
    """Read the images to label and those that measure, as the preset `quick` sees them."""
    size, device = PRESETS["quick"].recipe.input_size, torch.device("cpu")
    pool = load(dataset, train, input_size=size, device=device, outlined=True)
    measured_on = load(dataset, tests, input_size=size, device=device, outlined=False, first=len(pool))
    pictures = {picture.number: picture for picture in pool}
    return Material(dataset.name, dataset.classes, background_of(dataset), pictures, measured_on)


def trainer_of(material: Material, seed: int, folder: Path) -> Trainer:
    """Return what trains and measures as the preset `quick` says."""
    plan = dataclasses.replace(PRESETS["quick"], strategies=(Contender("random"),), seeds=(seed,), device="cpu")
    return Trainer(plan, material, folder)


def report(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table of docs/benchmarks.md."""
    print("| data | seeds | averaged | last step | difference | between seeds, averaged | last step |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        average, last = ([row[name] for row in rows if row["dataset"] == dataset] for name in ("average", "last"))
        found = mean_interval([one - other for one, other in zip(average, last, strict=True)])
        print(
            f"| {dataset} | {len(average)} | {statistics.fmean(average):.3f} | {statistics.fmean(last):.3f} "
            f"| {found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f}) "
            f"| {statistics.stdev(average):.4f} | {statistics.stdev(last):.4f} |"
        )


if __name__ == "__main__":
    main()
