"""How often the interval of a held-out measure holds the truth, by the number of audit labels.

    python benchmarks/intervals.py DATASET… [--out benchmarks/results/intervals.csv] [--draws 2000]
    python benchmarks/intervals.py --report benchmarks/results/intervals.csv

Two networks are trained, on ten and on forty labels, by the preset `quick` of `nextmask simulate`. The test images of
the data set are then taken for all the images that there are, so that the true mIoU of both networks and the
difference are known. Labels are drawn from them at random, as audit labels are, and it is counted how often the
interval holds the truth: that of the product (`jackknife`: over images, with Student's t), and that of a bootstrap
over images (`bootstrap`: percentiles of 1,000 resamples), which most papers show. `10 points` and so on: the audit
labels are points instead of masks, drawn as the product draws them, the interval is the product's.

Wanted, written down before the run: of the product's intervals, nine in ten or more hold the truth with 8 labels and
more, and nine in ten or more of those with 3. With points likewise, and a mean error of less than a point of mIoU from
20 labels on.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import covered_pixels
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.datasets import Dataset, open_dataset
from ml_backend.learning.measuring.counts import HIT, PREDICTED, TRUE, Counts, pixels_of
from ml_backend.learning.measuring.uncertainty import Estimates, differences, estimates
from ml_backend.projects.audit_points import audit_points
from ml_backend.simulation.labels import Labels, Pick
from ml_backend.simulation.material import Material, Picture, background_of, load
from ml_backend.simulation.plan import Contender
from ml_backend.simulation.presets import PRESETS
from ml_backend.simulation.training.trainer import Trainer

TRAINED_ON = (10, 40)
LABELS = (2, 3, 5, 8, 20, 50, 100)
RESAMPLES = 1000
POINTS = (10, 30, 100)
"""Points of an audit image."""
SETS = 20
"""So often points are drawn of each image, of which a label has one set."""

Pixels = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Row:
    """How many of the draws had an interval, how many of these hold the truth, and how wide they are at the median.

    `error` is by how much the measure itself is off, on average over the draws: its bias.
    """

    dataset: str
    measure: str
    method: str
    labels: int
    draws: int
    with_interval: int
    hold: int
    width: float
    error: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/intervals.csv"))
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    if arguments.report is None:
        rows = [row for folder in arguments.datasets for row in measured(open_dataset(folder), arguments.draws)]
        with arguments.out.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, [field.name for field in dataclasses.fields(Row)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(dataclasses.asdict(row) for row in rows)
    report(arguments.report or arguments.out)


def measured(dataset: Dataset, draws: int) -> Iterator[Row]:
    """Train both networks, and count for each measure, method and number of labels."""
    of_masks, of_points = trained_counts(dataset)
    first, second = of_masks
    print(f"{dataset.name}: {len(first)} test images, mIoU {_miou(first):.3f} and {_miou(second):.3f}", flush=True)
    for labels in LABELS:
        random = np.random.default_rng(labels)
        drawn = [random.integers(len(first), size=labels) for _ in range(draws)]
        yield _row(dataset.name, "mIoU", "jackknife", labels, _miou(second), [_shown(second[at]) for at in drawn])
        resampled = [_bootstrap([second[at]], random) for at in drawn]
        yield _row(dataset.name, "mIoU", "bootstrap", labels, _miou(second), resampled)
        gain = _miou(second) - _miou(first)
        pairs = [_shown(second[at], first[at]) for at in drawn]
        yield _row(dataset.name, "difference", "jackknife", labels, gain, pairs)
        resampled = [_bootstrap([second[at], first[at]], random) for at in drawn]
        yield _row(dataset.name, "difference", "bootstrap", labels, gain, resampled)
        for count, (before, after) in of_points.items():
            chosen = [(random.integers(SETS, size=labels), at) for at in drawn]
            by_points = [_shown(after[at]) for at in chosen]
            yield _row(dataset.name, "mIoU", f"{count} points", labels, _miou(second), by_points)
            pairs = [_shown(after[at], before[at]) for at in chosen]
            yield _row(dataset.name, "difference", f"{count} points", labels, gain, pairs)
        print(f"{dataset.name}: {labels} labels", flush=True)


Interval = tuple[float, float | None, float | None]
"""A measure and both ends of its interval."""


def _row(dataset: str, measure: str, method: str, labels: int, truth: float, intervals: Sequence[Interval]) -> Row:
    known = [(low, high) for _, low, high in intervals if low is not None and high is not None]
    hold = sum(low <= truth <= high for low, high in known)
    width = float(np.median([high - low for low, high in known])) if known else 0.0
    error = float(np.mean([value for value, _, _ in intervals])) - truth
    return Row(dataset, measure, method, labels, len(intervals), len(known), hold, round(width, 4), round(error, 4))


def _shown(pixels: Pixels, less: Pixels | None = None) -> Interval:
    """Return the interval that the product shows of labels (N,C,3), or of the difference to a network before."""
    found: Estimates | None
    found = estimates(_counts(pixels)) if less is None else differences(_counts(less), _counts(pixels))
    if found is None:
        raise ValueError("no labelled pixel")
    return found.miou.value, found.miou.low, found.miou.high


def _counts(pixels: Pixels) -> Counts:
    names = tuple(str(position) for position in range(len(pixels)))
    return Counts(tuple(str(index) for index in range(pixels.shape[1])), names, names, pixels)


def _bootstrap(networks: Sequence[Pixels], random: np.random.Generator) -> Interval:
    """Return the percentile interval of the first network's mIoU, less that of the second where there is one."""
    images = len(networks[0])
    times = random.multinomial(images, np.full(images, 1 / images), size=RESAMPLES)  # (R,N)
    values = [_mious(np.tensordot(times, pixels, axes=1)) for pixels in networks]
    found = values[0] - values[1] if len(values) > 1 else values[0]
    own = [_miou(pixels) for pixels in networks]
    low, high = np.quantile(found, [0.025, 0.975])
    return own[0] - sum(own[1:]), float(low), float(high)


def _miou(pixels: Pixels) -> float:
    return float(_mious(pixels.sum(axis=0)))


def _mious(totals: Pixels) -> NDArray[np.float64]:
    """Return the mean IoU of totals (...,C,3) over the classes that have a true pixel."""
    there = totals[..., TRUE] > 0
    union = totals[..., TRUE] + totals[..., PREDICTED] - totals[..., HIT]
    iou = np.where(there, totals[..., HIT] / np.maximum(union, 1), 0.0)
    mean: NDArray[np.float64] = iou.sum(axis=-1) / there.sum(axis=-1)
    return mean


# -- networks ----------------------------------------------------------------------------------------------------------
def trained_counts(dataset: Dataset) -> tuple[list[Pixels], dict[int, list[Pixels]]]:
    """Train the networks; return the pixels of every test image (N,C,3) with each of them.

    And by the number of points what these say, in several sets: (S,N,C,3) with each network.
    """
    size, device = PRESETS["quick"].recipe.input_size, torch.device("cpu")
    samples = dataset.all_samples()
    pictures = load(dataset, samples, input_size=size, device=device, outlined=True)
    tests = [picture for picture, sample in zip(pictures, samples, strict=True) if sample in dataset.splits["test"]]
    everything = {picture.number: picture for picture in pictures}
    material = Material(dataset.name, dataset.classes, background_of(dataset), everything, tests)
    others = sorted(everything.keys() - {picture.number for picture in tests})
    order = np.random.default_rng(0).permutation(others).tolist()
    plan = dataclasses.replace(PRESETS["quick"], strategies=(Contender("random"),), seeds=(0,), device="cpu")
    found, by_points = [], dict[int, list[Pixels]]()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(plan, material, Path(scratch))
        for count in TRAINED_ON:
            labels = Labels(everything, material.background)
            labels.add([Pick(int(number)) for number in order[:count]])
            predicted = trainer.masks(trainer.train(labels, 0), tuple(picture.number for picture in tests))
            found.append(np.stack([_pixels(picture, predicted[picture.number], dataset) for picture in tests]))
            for points in POINTS:
                sets = [
                    np.stack([_pixels(picture, predicted[picture.number], dataset, points, drawn) for picture in tests])
                    for drawn in range(SETS)
                ]
                by_points.setdefault(points, []).append(np.stack(sets))
    return found, by_points


def _pixels(picture: Picture, predicted: torch.Tensor, dataset: Dataset, points: int = 0, drawn: int = 0) -> Pixels:
    """Count the pixels (C,3) of an image: all of them, or of the points of a draw as many as each stands for."""
    truth = picture.mask.numpy()
    known, each = truth != IGNORE_INDEX, 1
    if points:
        asked = covered_pixels(audit_points(str(picture.number), truth.shape, count=points, seed=drawn), truth.shape)
        known, each = known & asked, round(truth.size / points)
    return each * pixels_of(masks.confusion(truth[known], predicted.numpy()[known], len(dataset.classes)))


# -- the report --------------------------------------------------------------------------------------------------------
def report(file: Path) -> None:
    """Print the table of docs/measures.md."""
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    print("Share of intervals that hold the truth, and their median width.\n")
    print("| data | of | interval | " + " | ".join(f"{labels} labels" for labels in LABELS) + " |")
    print("|---|---|---|" + "--:|" * len(LABELS))
    for key in dict.fromkeys((row["dataset"], row["measure"], row["method"]) for row in rows):
        own = {row["labels"]: row for row in rows if (row["dataset"], row["measure"], row["method"]) == key}
        cells = [
            f"{100 * int(row['hold']) / max(1, int(row['with_interval'])):.0f} % ({float(row['width']):.2f})"
            for row in own.values()
        ]
        print(f"| {' | '.join(key)} | {' | '.join(cells)} |")
    print("\nMean error of the measure.\n")
    for key in dict.fromkeys((row["dataset"], row["measure"], row["method"]) for row in rows):
        own = {row["labels"]: row for row in rows if (row["dataset"], row["measure"], row["method"]) == key}
        errors = [f"{float(row['error']):+.3f}" for row in own.values()]
        print(f"| {' | '.join(key)} | {' | '.join(errors)} |")


if __name__ == "__main__":
    main()
