"""What of the encoder should learn on a CPU, at about the same processor time: ways to train, on validation images.

    python benchmarks/recipes.py FOLDER… [--seeds 0] [--labels 40] [--arms NAME…] [--out benchmarks/results/recipes.csv]

FOLDER is a data set (docs/datasets.md). A seed draws the labels, of which four fifths train, and, where a data set has
no validation split, the validation images, all from the training split; test images are not looked at. The number of
steps of each way is fixed, so that a busy machine changes no mIoU. Rows that are there are not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2
from training import add, rows_of

from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.datasets import open_dataset
from ml_backend.learning.networks import MapMemory, SegmentationNetwork, build
from ml_backend.learning.networks.geometry import pad_to
from ml_backend.learning.networks.recipe import RECIPES
from ml_backend.learning.training import Item, Job
from ml_backend.learning.training import data as training_data
from ml_backend.learning.training import fit as fitting
from ml_backend.learning.training.data import Samples, unchanged
from ml_backend.learning.training.fit import Fitted, seeded
from ml_backend.learning.training.measures import count, held_out_measures

FIELDS = ("dataset", "labels", "validation", "seed", "arm", "steps", "seconds", "loss", "miou")
LABELS, INPUT_SIZE = 40, 384
MAPS_BYTES = 4 << 30
LEVELS = (0, 1, 2, 4, 6)
"""Blocks of EfficientNet-Lite0 whose maps are handed to a decoder."""
CPU = torch.device("cpu")
RECIPE = RECIPES["cpu"]


@dataclass(frozen=True)
class Arm:
    """A way to train.

    Attributes:
        steps: with the part of the encoder that learns.
        learns_from: first block of the encoder that learns, of seven; 0: the whole encoder; None: nothing of it.
        rate: of the encoder, as a share of the decoder's.
        decoder_first: steps on kept maps before, with a learning rate that rises and falls on its own.
        keeps_statistics: batch normalisation of the encoder keeps ImageNet's.
        adapts_statistics: it has those of the training and validation images instead.
        views: of each label, with stronger augmentation (both flips, scales of 0.7 to 1.6); 0: as in the recipe.
    """

    steps: int
    learns_from: int | None = None
    rate: float = 0.3
    decoder_first: int = 0
    keeps_statistics: bool = False
    adapts_statistics: bool = False
    views: int = 0


ARMS = {
    "frozen": Arm(350),
    "frozen, 12 views": Arm(350, views=12),
    "frozen, statistics adapted": Arm(350, adapts_statistics=True),
    "blocks 5 to 6 learn": Arm(250, learns_from=5),
    "blocks 3 to 6 learn": Arm(200, learns_from=3),
    "frozen, 240 steps": Arm(240),
    "after frozen, 240 steps": Arm(160, learns_from=0, decoder_first=240),
    "after frozen, 240 steps, at full rate": Arm(160, learns_from=0, decoder_first=240, rate=1.0),
    "decoder first": Arm(80, learns_from=0, decoder_first=150),
    "decoder first, statistics kept": Arm(80, learns_from=0, decoder_first=150, keeps_statistics=True),
    "encoder learns": Arm(120, learns_from=0),
    "encoder learns at full rate": Arm(120, learns_from=0, rate=1.0),
    "encoder learns, 200 steps": Arm(200, learns_from=0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--labels", type=int, default=LABELS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/recipes.csv"))
    options = parser.parse_args()
    for seed in options.seeds:
        for folder in options.datasets:
            for arm in options.arms:
                if not known(options.out, folder.name, options.labels, seed, arm):
                    add(options.out, [measured(folder, options.labels, seed, arm)], FIELDS)


def measured(folder: Path, labels: int, seed: int, name: str) -> dict[str, Any]:
    """Train in one way, and measure; return the row."""
    classes, training, validation = drawn(folder, labels, seed)
    with seeded(seed, CPU):
        began = time.process_time()
        network, fitted = trained(ARMS[name], classes, training, validation, seed)
        seconds = time.process_time() - began
    counts = count(network, validation, classes, device=CPU, report=lambda _: None)
    row = {
        "dataset": folder.name,
        "labels": labels,
        "validation": len(validation),
        "seed": seed,
        "arm": name,
        "steps": ARMS[name].decoder_first + ARMS[name].steps,
        "seconds": round(seconds, 1),
        "loss": round(statistics.fmean(fitted.losses[-20:]), 3),
        "miou": round(held_out_measures(counts)["miou"], 4),
    }
    print(row, flush=True)
    return row


def drawn(folder: Path, labels: int, seed: int) -> tuple[tuple[str, ...], Samples, Samples]:
    """Draw training and validation images, none of them test images."""
    dataset = open_dataset(folder)
    order = list(dataset.splits["train"])
    random.Random(seed).shuffle(order)
    validation = dataset.splits["val"][::2] if "val" in dataset.splits else order[LABELS:]

    def samples(chosen: Sequence[Any]) -> Samples:
        items = [Item(str(at), one.image, one.mask, False, "") for at, one in enumerate(chosen)]
        return Samples(items, classes=len(dataset.classes), input_size=INPUT_SIZE)

    return dataset.classes, samples(order[: labels * 4 // 5]), samples(validation)


def trained(
    arm: Arm, classes: tuple[str, ...], training: Samples, validation: Samples, seed: int
) -> tuple[SegmentationNetwork, Fitted]:
    """Train the recipe's network in one way."""
    options = dict(RECIPE.network_options)
    network = build(RECIPE.architecture, classes=len(classes), dropout=0.1, options=options)
    if arm.adapts_statistics:
        adapt_statistics(network, [training, validation])
    job = Job(
        items=(),
        classes=classes,
        label_map_digest="",
        data_digest="",
        folder=Path(),
        batch_size=RECIPE.batch_size,
        learning_rate=RECIPE.learning_rate,
        seed=seed,
    )

    def fit(samples: Samples, steps: int) -> Fitted:
        own = dataclasses.replace(job, iterations=steps)
        return fitting.fit(network, samples, own, CPU, lambda _: None, pretrained=True, views=arm.views)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(fitting, "_ENCODER_RATE", arm.rate))
        if arm.views:
            stack.enter_context(mock.patch.object(training_data, "augmentation", stronger_augmentation))
        if arm.decoder_first or arm.learns_from is None:
            network.freeze_encoder(MapMemory(MAPS_BYTES))
            fitted = fit(training, arm.decoder_first or arm.steps)
        if arm.learns_from == 0:
            thaw(network)
            if arm.keeps_statistics:
                keep_statistics(network, [network.model.get_submodule("encoder")])
            fitted = fit(training, arm.steps)
        elif arm.learns_from:
            split_encoder(network, arm.learns_from)
            stack.enter_context(mock.patch.object(fitting, "augmentation", return_value=unchanged))
            fitted = fit(training.views(4), arm.steps)
    return network, fitted


# -- what is changed ---------------------------------------------------------------------------------------------------
def stronger_augmentation() -> Any:
    """Flips to both sides, and scales of a wider range, than the recipe's."""
    fill = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORE_INDEX}
    bilinear = v2.InterpolationMode.BILINEAR
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomAffine(degrees=0, translate=(0.1, 0.1), scale=(0.7, 1.6), interpolation=bilinear, fill=fill),
            v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
        ]
    )


def thaw(network: SegmentationNetwork) -> None:
    """Let an encoder learn that was frozen."""
    network._is_frozen, network._frozen = False, None
    network.model.get_submodule("encoder").requires_grad_(True)


def keep_statistics(network: SegmentationNetwork, parts: Sequence[nn.Module]) -> None:
    """Leave parts in evaluation mode, whatever the network's."""
    plain = network.train

    def train(mode: bool = True) -> SegmentationNetwork:
        plain(mode)
        for part in parts:
            part.eval()
        return network

    network.train = train  # type: ignore[method-assign]


def normalised(network: SegmentationNetwork, images: Tensor) -> Tensor:
    """Return images (B,3,H,W) in [0, 1] as the encoder takes them."""
    return (pad_to(images, *network.padded_size(*images.shape[-2:])) - network.mean) / network.std


def adapt_statistics(network: SegmentationNetwork, several: Sequence[Samples]) -> None:
    """Give the encoder's batch normalisation the mean statistics of some images."""
    encoder = network.model.get_submodule("encoder").train()
    layers = [layer for layer in encoder.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    with torch.no_grad():
        for samples in several:
            for _, image, _ in samples.with_original_masks():
                encoder(normalised(network, image[None] / 255))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def split_encoder(network: SegmentationNetwork, first: int) -> None:
    """Let the blocks from `first` on learn, from kept maps of those before."""
    layers: Any = network.model.get_submodule("encoder.model")
    shallow = [layers.conv_stem, layers.bn1, *layers.blocks[:first]]
    for part in shallow:
        part.requires_grad_(False)
    keep_statistics(network, shallow)
    kept: dict[bytes, list[Tensor]] = {}

    def maps_of(image: Tensor) -> list[Tensor]:
        """Return the map (1,D,h,w) of each shallow block, in half precision."""
        key = image.numpy().tobytes()
        if key not in kept:
            with torch.no_grad():
                kept[key] = list(half(through(layers.bn1(layers.conv_stem(image)), layers.blocks[:first])))
        return kept[key]

    def encode(images: Tensor) -> tuple[list[Tensor], ...]:
        inputs = normalised(network, images)
        before = [torch.cat(level).float() for level in zip(*map(maps_of, inputs.split(1)), strict=True)]
        after = list(through(before[-1], layers.blocks[first:]))
        every = [*before, *after]
        return ([inputs, *(every[level] for level in LEVELS)],)

    network._encode = encode  # type: ignore[method-assign]


def through(maps: Tensor, blocks: Sequence[Callable[[Tensor], Tensor]]) -> Iterator[Tensor]:
    for block in blocks:
        maps = block(maps)
        yield maps


def half(levels: Iterator[Tensor]) -> Iterator[Tensor]:
    return (level.half() for level in levels)


# -- rows --------------------------------------------------------------------------------------------------------------
def known(file: Path, dataset: str, labels: int, seed: int, arm: str) -> bool:
    wanted = (dataset, str(labels), str(seed), arm)
    return any((row["dataset"], row["labels"], row["seed"], row["arm"]) == wanted for row in rows_of(file))


if __name__ == "__main__":
    main()
