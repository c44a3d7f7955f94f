"""Data, plans and networks of simulations that take a moment: what is tested is what happens, not what is learned."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from ml_backend.annotations.masks import png_bytes
from ml_backend.datasets import Dataset, open_dataset
from ml_backend.learning.networks import fit_size, resize_image
from ml_backend.simulation.material import Material, Picture
from ml_backend.simulation.plan import Amount, Contender, Plan, Recipe
from ml_backend.simulation.polygons import polygons
from ml_backend.simulation.results import Row

CLASSES = ("background", "disc", "square")
SIDE = 32
TINY = Recipe(
    architecture="fcn8s",
    train_encoder=False,
    input_size=SIDE,
    iterations=20,
    passes=0,
    batch_size=2,
    learning_rate=2e-2,
    views=2,
    members=4,
    ensemble=2,
    score_size=4,
)
"""The bundled encoder stays as it is; only the few weights behind it learn."""


def plan(*strategies: str, **changes: Any) -> Plan:
    """A plan of two images first, and two more in each of two rounds; changes of `Recipe`'s fields go there."""
    names = Recipe.__dataclass_fields__.keys()
    recipe = replace(TINY, **{name: value for name, value in changes.items() if name in names})
    values: dict[str, Any] = {
        "seeds": (0,),
        "start": Amount(2),
        "step": Amount(2),
        "rounds": 2,
        "recipe": recipe,
        "device": "cpu",
    }
    values |= {name: value for name, value in changes.items() if name not in names}
    return Plan(strategies=tuple(map(Contender.parse, strategies or ("random",))), **values)


def shapes(number: int, height: int = 40, width: int = 48) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image (H,W,3) of a disc and a square, and its mask (H,W)."""
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    row, column = random.integers(8, height - 8), random.integers(8, width // 2 - 4)
    mask[(rows - row) ** 2 + (columns - column) ** 2 < 49] = 1
    row, column = random.integers(0, height - 12), random.integers(width // 2 + 2, width - 12)
    mask[row : row + 12, column : column + 12] = 2
    colours = np.array([[30, 30, 30], [200, 60, 40], [40, 90, 220]])
    return np.clip(colours[mask] + random.normal(0, 25, (height, width, 3)), 0, 255).astype(np.uint8), mask


def picture(
    number: int,
    mask: NDArray[np.uint8] | None = None,
    image: NDArray[np.uint8] | None = None,
    *,
    input_size: int = SIDE,
    background: int | None = 0,
) -> Picture:
    """A picture in memory; of shapes where no mask is given, grey where no image is."""
    if mask is None:
        image, mask = shapes(number)
    if image is None:
        image = np.full((*mask.shape, 3), 128, np.uint8)
    size = (mask.shape[0], mask.shape[1])
    smaller = functional.interpolate(
        torch.from_numpy(mask)[None, None], size=fit_size(*size, input_size), mode="nearest-exact"
    )
    return Picture(
        number=number,
        name=f"{number}.png",
        pixels=resize_image(image, input_size),
        mask=smaller[0, 0],
        size=size,
        original=png_bytes(mask),
        outlines=polygons(mask, background=background),
    )


def with_mask(one: Picture, mask: NDArray[np.uint8]) -> Picture:
    """The same picture with another true mask."""
    other = picture(one.number, mask)
    return replace(one, mask=other.mask, original=other.original, outlines=other.outlines)


def material(count: int = 10, test: int = 2, *, pool: Sequence[Picture] | None = None) -> Material:
    """Pictures of shapes: `count` to choose from, `test` that measure."""
    pool = [picture(number) for number in range(count)] if pool is None else pool
    return Material(
        dataset="shapes",
        classes=CLASSES,
        background=0,
        pool={one.number: one for one in pool},
        test=[picture(1000 + number) for number in range(test)],
    )


def write_dataset(folder: Path, splits: Mapping[str, int], *, classes: Sequence[str] = CLASSES) -> Dataset:
    """Write a data set with so many images in each split, in nextmask's own layout, and open it."""
    number = 0
    for split, count in splits.items():
        for part in ("images", "masks"):
            (folder / part / split).mkdir(parents=True)
        for _ in range(count):
            image, mask = shapes(number)
            Image.fromarray(image).save(folder / "images" / split / f"shape_{number:02}.png")
            Image.fromarray(mask).save(folder / "masks" / split / f"shape_{number:02}.png")
            number += 1
    (folder / "dataset.json").write_text(json.dumps({"name": "shapes", "classes": classes, "ignore_index": 255}))
    return open_dataset(folder)


def without_rest(row: Row) -> Row:
    """A row without what the last of a plan has beside the others."""
    return replace(row, rest=None, rest_mended=None)


def without_seconds(rows: Iterable[Row]) -> list[Row]:
    """Rows but for what no two runs share."""
    return [replace(row, seconds_train=0.0, seconds_select=0.0) for row in rows]
