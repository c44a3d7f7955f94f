"""Do unlabelled images help a decoder on a frozen encoder? A semi-supervised term, measured before it is built in.

    python benchmarks/unlabelled.py FOLDER… [--seeds 0-4] [--out benchmarks/results/unlabelled.csv]

FOLDER is a data set (docs/datasets.md). The term is that of FixMatch (arXiv 2001.07685) with the perturbations that
kept maps allow: the teacher, a moving average of the decoder's weights, predicts unlabelled images from their clean
maps; the decoder learns what the teacher says, where it is surer than a threshold, from maps of which channels are
dropped and a rectangle is another image's (CutMix). The term's weight rises to 1 over the first third of the steps.

Contrasts, named before the run; each is paired over the seeds, with a 95 % t-interval, on validation images:

    time    mIoU with the term, trained as long as without it, minus mIoU without it > 0, for each data set and number
            of labels: it would be built in where that holds on both data sets, beyond the interval
    steps   the same for as many steps as without it, which takes longer: whether it would help if it cost nothing

A seed draws the labelled images, the unlabelled ones and, where a data set has no validation split, the validation
images, all from the training split; test images are not looked at. What a step costs is measured in processor time, in
turns, at the start. Rows that are in the file already are not measured again.
"""

from __future__ import annotations

import argparse
import copy
import csv
import functools
import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.datasets import Dataset, open_dataset
from ml_backend.learning.networks import MapFolder, MapMemory, SegmentationNetwork, build
from ml_backend.learning.networks.frozen_encoder import FrozenEncoder, used_maps
from ml_backend.learning.networks.geometry import pad_to
from ml_backend.learning.networks.recipe import RECIPES
from ml_backend.learning.training import Item
from ml_backend.learning.training.data import Sample, Samples, collate, unchanged
from ml_backend.learning.training.fit import Average, parameter_groups, rate
from ml_backend.learning.training.losses import cross_entropy_dice
from ml_backend.learning.training.measures import count, held_out_measures

FIELDS = ("dataset", "labels", "unlabelled", "validation", "seed", "arm", "steps", "seconds", "confident", "miou")
STEPS = {10: 150, 40: 300}
"""Steps without the term, by labels."""
MOST_UNLABELLED, MOST_VALIDATION, OWN_VALIDATION = 100, 51, 20
VIEWS, INPUT_SIZE, STRIDE = 4, 384, 32
CPU = torch.device("cpu")
RECIPE = RECIPES["cpu"]
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t by degrees of freedom."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--labels", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--seeds", type=seeds_of, default=range(5), metavar="FIRST-LAST")
    parser.add_argument("--arms", nargs="+", default=["without", "time", "steps"])
    parser.add_argument("--threshold", type=float, default=0.95, help="the teacher is heard where it is surer")
    parser.add_argument("--drop", type=float, default=0.5, help="share of the maps' channels that are dropped")
    parser.add_argument("--unlabelled-batch", type=int, default=2, help="unlabelled images a step")
    parser.add_argument("--maps", type=Path, default=Path("maps"), help="keeps the encoder's maps between runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/unlabelled.csv"))
    options = parser.parse_args()
    term = Term(options.threshold, options.drop, options.unlabelled_batch)
    maps = MapFolder(options.maps, 4_000_000_000)
    for seed in options.seeds:
        for folder in options.datasets:
            for labels in options.labels:
                measure(open_dataset(folder), folder.name, labels, seed, options.arms, term, maps, options.out)
    report(rows_of(options.out))


def seeds_of(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def measure(
    dataset: Dataset, name: str, labels: int, seed: int, arms: Sequence[str], term: Term, maps: MapFolder, out: Path
) -> None:
    """Train each arm from the same initial weights; add a row for each."""
    done = {
        row["arm"] for row in rows_of(out) if (row["dataset"], row["labels"], row["seed"]) == key(name, labels, seed)
    }
    if not set(arms) - done:
        return
    images = drawn(dataset, labels, seed)
    memory = MapMemory(1 << 30, maps)
    fresh = functools.partial(network_of, len(dataset.classes), seed, memory)
    pool = Unlabelled(fresh(), images.unlabelled, memory)
    ratio = cost(fresh, images.labelled, pool, term, seed)
    for arm in arms:
        if arm in done:
            continue
        network = fresh()
        steps = round(STEPS[labels] / ratio) if arm == "time" else STEPS[labels]
        began = time.process_time()
        course = Training(network, images.labelled, pool, None if arm == "without" else term, steps, seed)
        for _ in range(steps):
            course.step()
        course.average.load()
        seconds = time.process_time() - began
        row = {
            "dataset": name,
            "labels": labels,
            "unlabelled": len(pool),
            "validation": len(images.validation),
            "seed": seed,
            "arm": arm,
            "steps": steps,
            "seconds": round(seconds, 1),
            "confident": "" if arm == "without" else round(statistics.fmean(course.confident[-20:]), 3),
            "miou": round(miou(network, images.validation, dataset.classes), 4),
        }
        print(row, flush=True)
        add(out, row)


# -- images ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Images:
    """What a seed drew."""

    labelled: Samples
    unlabelled: list[Tensor]
    validation: Samples


def drawn(dataset: Dataset, labels: int, seed: int) -> Images:
    """Draw labelled, unlabelled and validation images, none of them test images."""
    order = list(dataset.splits["train"])
    random.Random(seed).shuffle(order)
    if "val" in dataset.splits:
        every = dataset.splits["val"]
        validation = every[:: math.ceil(len(every) / MOST_VALIDATION)]
    else:
        order, validation = order[:-OWN_VALIDATION], order[-OWN_VALIDATION:]
    rest = samples_of(order[labels : labels + MOST_UNLABELLED], dataset)
    size = max(_by_size(rest).values(), key=len)  # of one size, so that rectangles can be exchanged
    return Images(samples_of(order[:labels], dataset), size, samples_of(validation, dataset))


def samples_of(samples: Sequence[Any], dataset: Dataset) -> Samples:
    items = [Item(str(at), sample.image, sample.mask, False, "") for at, sample in enumerate(samples)]
    return Samples(items, classes=len(dataset.classes), input_size=INPUT_SIZE)


def _by_size(samples: Samples) -> dict[torch.Size, list[Tensor]]:
    found: dict[torch.Size, list[Tensor]] = {}
    for _, image, _ in samples.with_original_masks():
        found.setdefault(image.shape, []).append(image)
    return found


# -- training ----------------------------------------------------------------------------------------------------------
def network_of(
    classes: int,
    seed: int,
    maps: MapMemory,
    dropout: float = 0.1,
    *,
    architecture: str = RECIPE.architecture,
    **options: Any,
) -> SegmentationNetwork:
    """Build the recipe's network for a CPU, or another one, on the frozen encoder."""
    torch.manual_seed(seed)
    if architecture == RECIPE.architecture:
        options = {**RECIPE.network_options, **options}
    return build(architecture, classes=classes, dropout=dropout, options=options).freeze_encoder(maps)


class Unlabelled:
    """Unlabelled images, and the maps that the frozen encoder makes of them."""

    def __init__(self, network: SegmentationNetwork, images: Sequence[Tensor], maps: MapMemory) -> None:
        self._images, self._network = images, network
        encoder, decoder = (network.model.get_submodule(name) for name in ("encoder", "decoder"))
        training = network.training
        network.eval()
        used = used_maps(encoder, decoder, torch.zeros(1, 3, 64, 64))
        network.train(training)
        assert used is not None
        self._encoder = FrozenEncoder(encoder, used, maps)

    def __len__(self) -> int:
        return len(self._images)

    def keep_all(self) -> None:
        for image in self._images:
            self._maps([image])

    def batches(self, size: int, seed: int) -> Iterator[list[Tensor]]:
        """Yield the maps, shallow to deep, of batches for ever."""
        drawing = random.Random(seed)
        while True:
            yield self._maps(drawing.sample(self._images, min(size, len(self._images))))

    def _maps(self, images: Sequence[Tensor]) -> list[Tensor]:
        stacked = torch.stack(list(images)) / 255  # (U,3,h,w)
        padded = pad_to(stacked, *self._network.padded_size(*stacked.shape[-2:]))
        return self._encoder.maps((padded - self._network.mean) / self._network.std)


@dataclass(frozen=True)
class Term:
    """The semi-supervised term."""

    threshold: float
    drop: float
    batch: int
    ramp: float = 1 / 3

    def weight(self, share: float) -> float:
        return min(1.0, share / self.ramp)

    def loss(self, student: nn.ModuleDict, teacher: nn.ModuleDict, levels: Sequence[Tensor]) -> tuple[Tensor, float]:
        """Return the loss of a batch, averaged over all its pixels, and the share of them on which there was one."""
        with torch.no_grad():
            surest, target = decoded(teacher, levels).softmax(1).max(1)  # (U,H,W) each
            target[surest <= self.threshold] = IGNORE_INDEX
        mixed, target = cut_mixed(levels, target)
        mixed = [functional.dropout2d(level, self.drop) for level in mixed]
        total = functional.cross_entropy(decoded(student, mixed), target, ignore_index=IGNORE_INDEX, reduction="sum")
        return total / target.numel(), float((target != IGNORE_INDEX).float().mean())


def decoded(part: nn.ModuleDict, levels: Sequence[Tensor]) -> Tensor:
    """Return logits (U,C,H,W) of maps."""
    logits: Tensor = part["head"](part["dropout"](part["decoder"](list(levels))))
    return logits


def cut_mixed(levels: Sequence[Tensor], target: Tensor) -> tuple[list[Tensor], Tensor]:
    """Put the same rectangle of the next image of the batch into each map and target."""
    rows, columns = levels[-1].shape[-2:]
    height, width = (random.randint(side // 2, 3 * side // 4) for side in (rows, columns))
    top, left = random.randint(0, rows - height), random.randint(0, columns - width)
    mixed = []
    for level in [*levels, target]:
        scale = level.shape[-2] // rows
        part = (..., slice(top * scale, (top + height) * scale), slice(left * scale, (left + width) * scale))
        level = level.clone() if level.is_contiguous() else level  # those that are not used are one zero, expanded
        if level.is_contiguous():
            level[part] = level.roll(1, 0)[part]
        mixed.append(level)
    return mixed[:-1], mixed[-1]


class Training:
    """Step by step what `fit` does with a frozen encoder, with a term or without."""

    def __init__(
        self,
        network: SegmentationNetwork,
        labelled: Samples,
        pool: Unlabelled,
        term: Term | None,
        steps: int,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        random.seed(seed)
        self._network, self._term, self._steps, self._taken = network, term, steps, 0
        self._optimizer = torch.optim.AdamW(parameter_groups(network, RECIPE.learning_rate, 0.3))
        self._peaks = [group["lr"] for group in self._optimizer.param_groups]
        self._batches = labelled.views(VIEWS).batches(RECIPE.batch_size, torch.Generator().manual_seed(seed))
        self._student = nn.ModuleDict(
            {
                "decoder": network.model.get_submodule("decoder"),
                "dropout": network.dropout,
                "head": network.model.get_submodule("segmentation_head"),
            }
        )
        self._teacher = copy.deepcopy(self._student).eval().requires_grad_(False)
        self._unlabelled = pool.batches(term.batch, seed) if term else iter(())
        self.average = Average(network)
        self.confident: list[float] = []

    def step(self) -> None:
        share = self._taken / self._steps
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * rate(share)
        self._network.train()
        self._network.zero_grad()
        batch: list[Sample] = next(self._batches)
        images, target = collate(batch, CPU, unchanged)
        cross_entropy_dice(self._network.forward_each(images), target).backward()
        if self._term:
            loss, confident = self._term.loss(self._student, self._teacher, next(self._unlabelled))
            (self._term.weight(share) * loss).backward()
            self.confident.append(confident)
        self._optimizer.step()
        self._taken += 1
        if self._term:
            self._follow()
        if share >= Average.FROM:
            self.average.add()

    def _follow(self) -> None:
        """Move the teacher towards the decoder."""
        memory = min(0.99, self._taken / (self._taken + 9))
        with torch.no_grad():
            for mean, value in zip(self._teacher.parameters(), self._student.parameters(), strict=True):
                mean.lerp_(value, 1 - memory)


def cost(fresh: Callable[[], SegmentationNetwork], labelled: Samples, pool: Unlabelled, term: Term, seed: int) -> float:
    """Return how many times as long a step takes with the term: medians of steps in turns, maps kept."""
    courses = [Training(fresh(), labelled, pool, one, 1000, seed) for one in (None, term)]
    network = fresh().eval()
    views, generator = labelled.views(VIEWS), torch.Generator().manual_seed(seed)
    with torch.no_grad():  # maps are kept from here on
        for batch in itertools.islice(views.batches(1, generator), len(views)):
            network.features(collate(batch, CPU, unchanged)[0][0][None])
    pool.keep_all()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(8):
        for course, own in zip(courses, seconds, strict=True):
            began = time.process_time()
            course.step()
            own.append(time.process_time() - began)
    without, with_term = (statistics.median(own[1:]) for own in seconds)
    print(f"a step: {without:.2f} s without the term, {with_term:.2f} s with it", flush=True)
    return with_term / without


def miou(network: SegmentationNetwork, validation: Samples, classes: Sequence[str]) -> float:
    found = held_out_measures(count(network, validation, classes, device=CPU, report=lambda _: None))
    return float(found["miou"])


# -- rows, and what they say -------------------------------------------------------------------------------------------
def key(name: str, labels: int, seed: int) -> tuple[str, str, str]:
    return name, str(labels), str(seed)


def rows_of(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def add(file: Path, row: Mapping[str, Any]) -> None:
    is_new = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def interval(values: Sequence[float]) -> str:
    """Return the mean and its 95 % t-interval."""
    middle = statistics.fmean(values)
    if len(values) < 2:
        return f"{middle:+.3f}"
    half = T_95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{middle:+.3f} ({middle - half:+.3f} to {middle + half:+.3f})"


def report(rows: Sequence[Mapping[str, str]]) -> None:
    print("| data | labels | arm | seeds | steps | processor, s | confident | mIoU | minus without |")
    print("|---|--:|---|--:|--:|--:|--:|--:|--:|")
    for dataset, labels in dict.fromkeys((row["dataset"], row["labels"]) for row in rows):
        own = [row for row in rows if (row["dataset"], row["labels"]) == (dataset, labels)]
        without = {row["seed"]: float(row["miou"]) for row in own if row["arm"] == "without"}
        for arm in dict.fromkeys(row["arm"] for row in own):
            of_arm = [row for row in own if row["arm"] == arm]
            differences = [float(row["miou"]) - without[row["seed"]] for row in of_arm if row["seed"] in without]
            mean = {
                name: statistics.fmean(float(row[name] or 0) for row in of_arm)
                for name in ("steps", "seconds", "confident", "miou")
            }
            against = "" if arm == "without" else interval(differences)
            print(
                f"| {dataset} | {labels} | {arm} | {len(of_arm)} | {mean['steps']:.0f} | {mean['seconds']:.0f} "
                f"| {mean['confident']:.2f} | {mean['miou']:.3f} | {against} |"
            )


if __name__ == "__main__":
    main()
