"""A training that takes a second, and what goes on while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from processes import children

from ml_backend.learning.training import Item, Job, Progress
from ml_backend.learning.training import process as training_process

if TYPE_CHECKING:
    from torch import Tensor

ROOT = Path(__file__).parents[1]
TEN_MINUTES = 10 * 60.0
FOREVER = 1_000_000


def noise_items(folder: Path, count: int, *, held_out: int = 0, side: int = 32) -> tuple[Item, ...]:
    """Square images of noise with masks of two classes, the last ones held out."""
    random = np.random.default_rng(0)
    items = []
    for index in range(count):
        image, mask = folder / f"{index}.png", folder / f"{index}-mask.png"
        Image.fromarray(random.integers(0, 255, (side, side, 3), np.uint8)).save(image)
        Image.fromarray(random.integers(0, 2, (side, side), np.uint8)).save(mask)
        items.append(Item(str(index), image, mask, index >= count - held_out, f"digest-{index}"))
    return tuple(items)


def same_weights(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def small_job(folder: Path, **changes: Any) -> Job:
    """Two images of noise, on the smallest network."""
    usual: dict[str, Any] = {"classes": ("a", "b"), "label_map_digest": "map", "data_digest": "data", "iterations": 2}
    usual |= {"encoder": "mobilenet_v2", "encoder_weights": "none", "device": "cpu", "batch_size": 2}
    return Job(items=noise_items(folder, 2), folder=folder / "models", **usual | changes)


def disc_item(folder: Path, index: int, *, held_out: bool = False, shape: tuple[int, int] = (40, 48)) -> Item:
    """A bright disc on a dark noisy ground; the mask says where."""
    random = np.random.default_rng(index)
    height, width = shape
    rows, columns = np.ogrid[:height, :width]
    row, column, radius = random.integers(12, height - 12), random.integers(12, width - 12), random.integers(7, 12)
    mask = ((rows - row) ** 2 + (columns - column) ** 2 < radius**2).astype(np.uint8)
    image = np.where(mask[..., None] == 1, [220, 180, 60], [40, 60, 90]) + random.normal(0, 12, (*shape, 3))
    paths = folder / f"{index}.jpg", folder / f"{index}.png"
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(paths[0], quality=95)
    Image.fromarray(mask).save(paths[1])
    return Item(str(index), *paths, held_out, f"digest-{index}")


def disc_job(folder: Path, *, training: int = 6, held_out: int = 3, **changes: Any) -> Job:
    folder.mkdir(exist_ok=True)
    items = [disc_item(folder, index, held_out=index >= training) for index in range(training + held_out)]
    defaults: dict[str, Any] = {"iterations": 20, "batch_size": 4, "input_size": 48, "device": "cpu"}
    return Job(
        items=tuple(items),
        classes=("background", "disc"),
        label_map_digest="map",
        data_digest="data",
        folder=folder / "models",
        **defaults | changes,
    )


def run(
    job: Job,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    heartbeat: Callable[[], None] = lambda: None,
    silence: float = TEN_MINUTES,
) -> int:
    return training_process.run(job, progress=progress, heartbeat=heartbeat, silence=silence)


def once_under_way(act: Callable[[int], None]) -> Callable[[Progress], None]:
    """Call `act` once, with the child's process id, when the child has begun to read its data."""
    before, acted = set(children()), threading.Event()

    def progress(_: Progress) -> None:
        if not acted.is_set():
            acted.set()
            (child,) = set(children()) - before
            act(child)

    return progress
