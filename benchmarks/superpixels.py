"""What a click teaches that labels a superpixel, against one that labels a pixel.

    pip install scikit-image
    python benchmarks/superpixels.py DATASET… [--seeds 3] [--out benchmarks/results/superpixels.csv]

The same places in the same images, drawn evenly, ten of each of 100 images; one click each. Three ways to label them:

    point     the pixel gets its class
    spread    the superpixel around it gets the class of the pixel: the same click, and no other tool
    dominant  the superpixel gets the class of most of its pixels: the editor shows it, the annotator says what it is

Superpixels are SLIC's, some 60 pixels large, in the image as the network sees it. Trained with the preset `quick` of
`nextmask simulate`, measured on every fifth of the training images, which is not learned from. Written down
before the run: `spread` or `dominant` becomes an option of the strategy `points` where the mean difference from `point`
over the seeds is above 0 on both CamVid and GlaS, and the interval of one of them excludes 0.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from averaging import material_of, trainer_of
from numpy.typing import NDArray
from skimage.segmentation import slic
from torch import Tensor

from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.datasets import Dataset, open_dataset
from ml_backend.simulation.labels import Labels, Pick
from ml_backend.simulation.material import Picture
from ml_backend.simulation.report.statistics import mean_interval

IMAGES, POINTS, SUPERPIXEL = 100, 10, 60

Mask = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/superpixels.csv"))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for folder in arguments.datasets:
        for row in measured(open_dataset(folder), arguments.seeds):
            rows.append(row)
            with arguments.out.open("w", newline="") as stream:
                writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
    report(rows)


def measured(dataset: Dataset, seeds: int) -> Iterator[dict[str, Any]]:
    """Train with each seed and each way of labelling; yield the mIoU on validation images."""
    files = list(dataset.splits["train"])
    validation = files[::5]
    material = material_of(dataset, [file for file in files if file not in validation], validation)
    segments: dict[int, NDArray[np.int64]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(seeds):
            generator = np.random.default_rng(seed)
            labels = Labels(material.pool, material.background)
            chosen = generator.permutation(sorted(material.pool))[:IMAGES]
            labels.add([Pick(int(number), points=drawn(material.pool[number], generator)) for number in chosen])
            for name, fill in (("point", alone), ("spread", spread), ("dominant", dominant)):
                with mock.patch.object(Labels, "mask", labelled(fill, segments, Labels.mask)):
                    miou = trainer_of(material, seed, Path(scratch)).train(labels, seed).measured.miou
                print(f"{dataset.name} seed {seed}, {name}: {miou:.4f}", flush=True)
                yield {
                    "dataset": dataset.name,
                    "seed": seed,
                    "label": name,
                    "clicks": labels.clicks,
                    "miou": round(miou, 5),
                }


def drawn(picture: Picture, generator: np.random.Generator) -> tuple[tuple[int, int], ...]:
    """Draw distinct pixels of an image that have a class."""
    rows, columns = np.nonzero(picture.truth() != IGNORE_INDEX)
    chosen = generator.choice(len(rows), size=min(POINTS, len(rows)), replace=False)
    return tuple((int(rows[at]), int(columns[at])) for at in chosen)


def labelled(
    fill: Callable[[Mask, Mask, NDArray[np.int64]], Mask],
    segments: dict[int, NDArray[np.int64]],
    mask_of: Callable[[Labels, int], Tensor],
) -> Callable[[Labels, int], Tensor]:
    """Return a method of `Labels` that labels what `fill` makes of the points of an image."""

    def mask(self: Labels, number: int) -> Tensor:
        points: Mask = mask_of(self, number).numpy()
        picture = self.pictures[number]
        if number not in segments:
            count = max(POINTS, points.size // SUPERPIXEL)
            segments[number] = slic(picture.pixels.permute(1, 2, 0).numpy(), n_segments=count, start_label=0)
        return torch.from_numpy(fill(points, picture.mask.numpy(), segments[number]))

    return mask


def alone(points: Mask, truth: Mask, parts: NDArray[np.int64]) -> Mask:
    """Label the pixels alone."""
    del truth, parts
    return points


def spread(points: Mask, truth: Mask, parts: NDArray[np.int64]) -> Mask:
    """Label the superpixels with the class of their pixel; a pixel keeps its own."""
    del truth
    filled = np.full_like(points, IGNORE_INDEX)
    for row, column in zip(*np.nonzero(points != IGNORE_INDEX), strict=True):
        filled[parts == parts[row, column]] = points[row, column]
    return np.where(points == IGNORE_INDEX, filled, points)


def dominant(points: Mask, truth: Mask, parts: NDArray[np.int64]) -> Mask:
    """Label the superpixels with the class that most of their pixels have."""
    filled = np.full_like(points, IGNORE_INDEX)
    for row, column in zip(*np.nonzero(points != IGNORE_INDEX), strict=True):
        here = parts == parts[row, column]
        known = truth[here & (truth != IGNORE_INDEX)]
        filled[here] = np.bincount(known).argmax() if len(known) else IGNORE_INDEX
    return filled


def report(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table of docs/label-efficiency.md."""
    print("| data | label | seeds | mIoU | against a pixel |")
    print("|---|---|--:|--:|--:|")
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        own = [row for row in rows if row["dataset"] == dataset]
        base = {row["seed"]: row["miou"] for row in own if row["label"] == "point"}
        for name in dict.fromkeys(row["label"] for row in own):
            of = {row["seed"]: row["miou"] for row in own if row["label"] == name}
            shared = sorted(of.keys() & base.keys())
            against = ""
            if name != "point" and len(shared) > 1:
                found = mean_interval([of[seed] - base[seed] for seed in shared])
                against = f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
            print(f"| {dataset} | {name} | {len(of)} | {statistics.fmean(of.values()):.3f} | {against} |")


if __name__ == "__main__":
    main()
