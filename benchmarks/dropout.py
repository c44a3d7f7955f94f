"""Where dropout sits, and how much: accuracy of the network, and what its committee of MC dropout is worth.

    python benchmarks/dropout.py FOLDER… [--seeds 0-2] [--out benchmarks/results/dropout.csv]

FOLDER is a data set (docs/datasets.md). The recipe's network for a CPU is trained on 20 labels for 150 steps with each
dropout; labels and validation images are drawn as in unlabelled.py, and test images are not looked at. The decoder's
own dropout and ours drop channels of the same map, one after the other: a network trained with 0.2 and 0.1 lost 28 %
of the channels in each step, of which the members of a committee lost 10 % before this was measured. `unet` is the
U-Net on the same frozen encoder, whose last map has 16 channels.

Contrasts, named before the run, paired over the seeds, with a 95 % t-interval, each of another dropout minus that which
is set: validation mIoU of the network without dropout; Spearman's correlation, over validation images, of the mean
mutual information of an image with the share of its pixels that the network gets wrong, which is what a committee is
for. A dropout becomes the default where the correlation is higher and mIoU is not lower, beyond the interval.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from unlabelled import (
    CPU,
    INPUT_SIZE,
    RECIPE,
    VIEWS,
    add,
    drawn,
    interval,
    miou,
    network_of,
    rows_of,
    seeds_of,
)

from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.datasets import Dataset, open_dataset
from ml_backend.learning.networks import MapFolder, MapMemory, SegmentationNetwork
from ml_backend.learning.prediction.committees import McDropout
from ml_backend.learning.training import Job
from ml_backend.learning.training.data import Sample, Samples
from ml_backend.learning.training.fit import fit, seeded

LABELS, STEPS, MEMBERS, MOST_IMAGES = 20, 150, 20, 30
MEASURES = ("miou", "intact", "disagreement", "information", "correlation")


@dataclass(frozen=True)
class Dropout:
    """Shares of the decoder's last map that are dropped: by the decoder itself, before the head, and in a member."""

    own: float
    head: float
    members: tuple[float, ...]
    architecture: str = "fpn"

    @property
    def options(self) -> dict[str, Any]:
        return {"decoder_dropout": self.own} if self.architecture == "fpn" else {}


DROPOUTS = {
    "fpn": (
        Dropout(0.2, 0.1, (0.1, 0.28)),
        Dropout(0.0, 0.3, (0.3,)),
        Dropout(0.0, 0.5, (0.5,)),
        Dropout(0.2, 0.3, (0.3,)),
    ),
    "unet": tuple(Dropout(0.0, head, (head,), "unet") for head in (0.1, 0.3, 0.5)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--architectures", nargs="+", default=["fpn"], choices=list(DROPOUTS))
    parser.add_argument("--seeds", type=seeds_of, default=range(3), metavar="FIRST-LAST")
    parser.add_argument("--maps", type=Path, default=Path("maps"), help="keeps the encoder's maps between runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/dropout.csv"))
    options = parser.parse_args()
    maps = MapFolder(options.maps, 4_000_000_000)
    for architecture in options.architectures:
        for seed in options.seeds:
            for folder in options.datasets:
                for dropout in DROPOUTS[architecture]:
                    measure(open_dataset(folder), folder.name, dropout, seed, maps, options.out)
    report(rows_of(options.out))


def measure(dataset: Dataset, name: str, dropout: Dropout, seed: int, maps: MapFolder, out: Path) -> None:
    """Train a network; add a row for each committee that is made of it."""
    key = {
        "dataset": name,
        "architecture": dropout.architecture,
        "own": dropout.own,
        "head": dropout.head,
        "seed": seed,
    }
    if any(all(row[field] == str(value) for field, value in key.items()) for row in rows_of(out)):
        return
    images = drawn(dataset, LABELS, seed)
    memory = MapMemory(1 << 30, maps)
    network = network_of(
        len(dataset.classes), seed, memory, dropout.head, architecture=dropout.architecture, **dropout.options
    )
    job = Job(
        items=(),
        classes=dataset.classes,
        label_map_digest="",
        data_digest="",
        folder=out.parent,
        iterations=STEPS,
        batch_size=RECIPE.batch_size,
        learning_rate=RECIPE.learning_rate,
        input_size=INPUT_SIZE,
        seed=seed,
    )
    with seeded(seed, CPU):
        fit(network, images.labelled, job, CPU, lambda _: None, pretrained=True, views=VIEWS)
    accuracy = round(miou(network, images.validation, dataset.classes), 4)
    for share in dropout.members:
        row = key | {"members": share, "miou": accuracy} | committee_measures(network, images.validation, share, seed)
        print(row, flush=True)
        add(out, row)


def committee_measures(network: SegmentationNetwork, validation: Samples, share: float, seed: int) -> dict[str, float]:
    """Measure a committee of masks that drop a share of the channels."""
    network.eval()
    channels = network.decode(torch.zeros(1, 3, 64, 64))[0].shape[1]
    kept = torch.rand(MEMBERS, channels, generator=torch.Generator().manual_seed(seed)) >= share  # (M,K)
    committee = McDropout(kept.float() / (1 - share), 0)
    found = [of_image(network, committee, sample.image, sample.mask) for sample in some_of(validation)]
    errors, disagreements, informations = zip(*found, strict=True)
    return {
        "intact": round(float(kept.all(1).float().mean()), 3),
        "disagreement": round(statistics.fmean(disagreements), 5),
        "information": round(statistics.fmean(informations), 6),
        "correlation": round(float(spearmanr(informations, errors).statistic), 4),
    }


def some_of(samples: Samples) -> list[Sample]:
    """Return up to `MOST_IMAGES` of the samples, always the same ones."""
    batches = samples.batches(1, torch.Generator().manual_seed(0))
    return [batch[0] for batch in itertools.islice(batches, min(MOST_IMAGES, len(samples)))]


def of_image(
    network: SegmentationNetwork, committee: McDropout, image: Tensor, mask: Tensor
) -> tuple[float, float, float]:
    """Return the share of wrong pixels, of pixels at which two members differ, and the mean mutual information."""
    images = image[None] / 255
    with torch.inference_mode():
        predicted = network(images)[0].argmax(0)  # (H,W)
        opinions, _ = committee.opinions(network, images, features=False)
        total = entropy = votes = torch.zeros(())
        for logits in opinions:
            surprise = logits[0].log_softmax(0)  # (C,H,W)
            chance = surprise.exp()
            total = total + chance
            entropy = entropy - (chance * surprise).sum(0)
            votes = votes + torch.nn.functional.one_hot(chance.argmax(0), len(chance)).permute(2, 0, 1)
        mean = total / committee.members
        information = -(mean * mean.clamp(min=1e-12).log()).sum(0) - entropy / committee.members  # (H,W)
        alike = (votes * (votes - 1)).sum(0) / (committee.members * (committee.members - 1))
    labelled = mask != IGNORE_INDEX
    wrong = (predicted != mask)[labelled].float().mean()
    return float(wrong), float(1 - alike.float().mean()), float(information.mean())


# -- what the rows say -------------------------------------------------------------------------------------------------
def report(rows: Sequence[Mapping[str, str]]) -> None:
    print(
        "| data | network | own, head | members | seeds | mIoU | intact members | disagreement | mutual information "
        "| correlation | mIoU, against the first | correlation, against the first |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for dataset, network in dict.fromkeys((row["dataset"], row["architecture"]) for row in rows):
        own = [row for row in rows if (row["dataset"], row["architecture"]) == (dataset, network)]
        first = {row["seed"]: row for row in own if variant(row) == variant(own[0])}
        for name in dict.fromkeys(map(variant, own)):
            of_variant = [row for row in own if variant(row) == name and row["seed"] in first]
            mean = {measure: np.mean([float(row[measure]) for row in of_variant]) for measure in MEASURES}
            against = [
                interval([float(row[measure]) - float(first[row["seed"]][measure]) for row in of_variant])
                if name != variant(own[0])
                else ""
                for measure in ("miou", "correlation")
            ]
            print(
                f"| {dataset} | {network} | {name[0]}, {name[1]} | {name[2]} | {len(of_variant)} | {mean['miou']:.3f} "
                f"| {mean['intact']:.2f} | {mean['disagreement']:.4f} | {mean['information']:.5f} "
                f"| {mean['correlation']:.2f} | {against[0]} | {against[1]} |"
            )


def variant(row: Mapping[str, str]) -> tuple[str, str, str]:
    return row["own"], row["head"], row["members"]


if __name__ == "__main__":
    main()
