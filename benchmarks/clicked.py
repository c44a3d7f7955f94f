"""What interactive.py clicks on: networks trained as the product trains, and objects of images that they never saw."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from unlabelled import CPU, INPUT_SIZE, RECIPE, VIEWS, network_of, samples_of

from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.annotations.mending import drawing_clicks
from ml_backend.datasets import Dataset, Sample, open_dataset, read_mask, sample_dataset
from ml_backend.images.decoding import load_image
from ml_backend.learning.networks import MapMemory
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.learning.training import Job
from ml_backend.learning.training.fit import fit, seeded

LEAST_AREA = 200
"""Pixels of the smallest object that is clicked on."""

Pixels = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Object:
    """A connected component of a class.

    Attributes:
        image: (H,W,3) uint8 RGB.
        key: of the image.
        klass: index of the class.
        truth: (H,W) bool.
        ignored: (H,W) bool, pixels that nobody labelled.
        name: what it is told apart by from the other objects of its data set.
    """

    image: NDArray[np.uint8]
    key: str
    klass: int
    truth: Pixels
    ignored: Pixels
    name: str

    @property
    def outline_clicks(self) -> int:
        """Clicks that drawing it takes: its simplified outline, and its class."""
        return drawing_clicks(self.truth.astype(np.uint8), background=0)


def trained(dataset: Dataset, labels: int, steps: int, seed: int, folder: Path) -> Predictor:
    """Return the network for a CPU, trained on labels drawn from the training images; one of the folder, if it is."""
    file = folder / f"{dataset.name}-{labels}-{steps}-{seed}.pt"
    network = network_of(len(dataset.classes), seed, MapMemory(1 << 30))
    if not file.exists():
        labelled = samples_of(shuffled(dataset, seed)[:labels], dataset)
        job = Job(
            items=(),
            classes=dataset.classes,
            label_map_digest="",
            data_digest="",
            folder=folder,
            iterations=steps,
            batch_size=RECIPE.batch_size,
            learning_rate=RECIPE.learning_rate,
            input_size=INPUT_SIZE,
            seed=seed,
        )
        with seeded(seed, CPU):
            fit(network, labelled, job, CPU, lambda _: None, pretrained=True, views=VIEWS)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), file)
    network.load_state_dict(torch.load(file))
    return Predictor(network, dataset.classes, INPUT_SIZE, CPU)


def shuffled(dataset: Dataset, seed: int) -> list[Sample]:
    """Return the training images in the order in which they are labelled."""
    order = list(dataset.splits["train"])
    random.Random(seed).shuffle(order)
    return order


def untrained(classes: int, seed: int = 0) -> Predictor:
    """Return the pretrained encoder under a decoder that learned nothing."""
    names = [str(index) for index in range(classes)]
    return Predictor(network_of(classes, seed, MapMemory(0)), names, INPUT_SIZE, CPU)


def opened(name: str) -> Dataset:
    """Open a data set by its folder, or the sample data."""
    return sample_dataset() if name == "sample" else open_dataset(Path(name))


def objects(dataset: Dataset, samples: Sequence[Sample], count: int, seed: int) -> list[Object]:
    """Draw objects evenly from all of some images; in the order of the images."""
    background = 0 if dataset.unpainted == "background" else None
    found = [
        (number, klass, component)
        for number, sample in enumerate(samples)
        for klass, component in _components(read_mask(sample.mask), background)
    ]
    chosen = sorted(np.random.default_rng(seed).permutation(len(found))[:count].tolist())
    return [_object(samples[found[at][0]], *found[at][1:]) for at in chosen]


def _components(mask: NDArray[np.uint8], background: int | None) -> list[tuple[int, int]]:
    components = []
    for klass in np.unique(mask):
        if klass in (IGNORE_INDEX, background):
            continue
        _, _, statistics, _ = cv2.connectedComponentsWithStats((mask == klass).astype(np.uint8), connectivity=8)
        large = np.flatnonzero(statistics[1:, cv2.CC_STAT_AREA] > LEAST_AREA) + 1
        components += [(int(klass), int(component)) for component in large]
    return components


def _object(sample: Sample, klass: int, component: int) -> Object:
    mask = read_mask(sample.mask)
    _, parts = cv2.connectedComponents((mask == klass).astype(np.uint8), connectivity=8)
    return Object(
        load_image(sample.image),
        sample.image.name,
        klass,
        parts == component,
        mask == IGNORE_INDEX,
        f"{sample.image.stem}:{klass}:{component}",
    )
