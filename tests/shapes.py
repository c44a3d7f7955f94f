"""A data set of tiny images, for tests that care about what happens and not about what is learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from ml_backend.datasets import Dataset, open_dataset

CLASSES = ("background", "disc", "square")
HEIGHT, WIDTH = 48, 64


def make_shapes(folder: Path, count: int) -> Dataset:
    """Write `count` pictures of one disc and one square each, with their masks, and open them."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps({"name": "shapes", "classes": CLASSES, "ignore_index": 255}))
    for number in range(count):
        image, mask = _draw(np.random.default_rng(number))
        Image.fromarray(image).save(folder / "images" / f"shape_{number:02}.png")
        Image.fromarray(mask).save(folder / "masks" / f"shape_{number:02}.png")
    return open_dataset(folder)


def _draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    row, column = random.integers(12, HEIGHT - 12), random.integers(12, WIDTH // 2 - 8)
    mask[(rows - row) ** 2 + (columns - column) ** 2 < 81] = 1
    row, column = random.integers(0, HEIGHT - 16), random.integers(WIDTH // 2 + 4, WIDTH - 16)
    mask[row : row + 16, column : column + 16] = 2
    colours = np.array([[30, 30, 30], [200, 60, 40], [40, 90, 220]])
    noise = random.normal(0, 12, (HEIGHT, WIDTH, 3))
    return np.clip(colours[mask] + noise, 0, 255).astype(np.uint8), mask
