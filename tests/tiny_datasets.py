"""Data sets of a few small images in the layouts of the papers' data, with objects that a network can find."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.uint8]


def scene(number: int, side: int, values: Iterable[int]) -> tuple[Array, Array]:
    """Return an image (H,W,3) and its mask (H,W): a bright disc of each value on noise."""
    random = np.random.default_rng(number)
    image = random.integers(0, 60, (side, side, 3)).astype(np.uint8)
    mask = np.zeros((side, side), np.uint8)
    rows, columns = np.mgrid[:side, :side]
    for value in values:
        middle, radius = random.uniform(0.25, 0.75, 2) * side, random.uniform(0.15, 0.25) * side
        inside = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < radius**2
        image[inside] = 120 + (40 * value) % 130
        mask[inside] = value
    return image, mask


def write(path: Path, pixels: Array) -> None:
    """Write an image file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def own(folder: Path, *, splits: dict[str, int], side: int = 48, classes: tuple[str, ...] = ("road", "car")) -> Path:
    """Write our own layout, as CamVid's folders have it: so many images in each split."""
    number = 0
    for split, count in splits.items():
        for _ in range(count):
            image, mask = scene(number, side, range(1, len(classes)))
            write(folder / "images" / split / f"{number:03d}.png", image)
            write(folder / "masks" / split / f"{number:03d}.png", mask)
            number += 1
    (folder / "dataset.json").write_text(json.dumps({"name": folder.name, "classes": classes}))
    return folder


def camvid(folder: Path) -> Path:
    """Write streets of three classes without a background."""
    return own(folder, splits={"train": 12, "val": 2, "test": 3}, classes=("sky", "road", "car"))


def glas(folder: Path) -> Path:
    """Write glands as the challenge publishes them: objects are numbered."""
    for number, name in enumerate([*(f"train_{n}" for n in range(1, 19)), "testA_1", "testA_2", "testB_1"]):
        image, mask = scene(number, 48, (1, 2))
        write(folder / f"{name}.bmp", image)
        write(folder / f"{name}_anno.bmp", mask)
    return folder


def isic2017(folder: Path) -> Path:
    """Write lesions in the folders of the challenge's archives."""
    number = 0
    for part, count in (("Training", 14), ("Validation", 2), ("Test_v2", 3)):
        for _ in range(count):
            image, mask = scene(number, 48, (1,))
            write(folder / f"ISIC-2017_{part}_Data" / f"ISIC_{number:07d}.jpg", image)
            stem = f"ISIC_{number:07d}_segmentation.png"
            write(folder / f"ISIC-2017_{part}_Part1_GroundTruth" / stem, (mask * 255).astype(np.uint8))
            number += 1
    return folder
