"""A training that takes a second, and what goes on while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from processes import children

from ml_backend.learning.training import Item, Job, Progress
from ml_backend.learning.training import process as training_process

ROOT = Path(__file__).parents[1]
TEN_MINUTES = 10 * 60.0
FOREVER = 1_000_000


def small_job(folder: Path, **changes: Any) -> Job:
    """Two images of noise, on the smallest network."""
    random = np.random.default_rng(0)
    items = []
    for index in range(2):
        image, mask = folder / f"{index}.png", folder / f"{index}-mask.png"
        Image.fromarray(random.integers(0, 255, (32, 32, 3), np.uint8)).save(image)
        Image.fromarray(random.integers(0, 2, (32, 32), np.uint8)).save(mask)
        items.append(Item(str(index), image, mask, False, ""))
    usual: dict[str, Any] = {"classes": ("a", "b"), "label_map_digest": "map", "data_digest": "data", "iterations": 2}
    usual |= {"encoder": "mobilenet_v2", "encoder_weights": "none", "device": "cpu", "batch_size": 2}
    return Job(items=tuple(items), folder=folder / "models", **usual | changes)


def run(
    job: Job,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    heartbeat: Callable[[], None] = lambda: None,
    timeout: float = TEN_MINUTES,
) -> int:
    return training_process.run(job, progress=progress, heartbeat=heartbeat, timeout=timeout)


def once_under_way(act: Callable[[int], None]) -> Callable[[Progress], None]:
    """Call `act` once, with the child's process id, when the child has begun to read its data."""
    before, acted = set(children()), threading.Event()

    def progress(_: Progress) -> None:
        if not acted.is_set():
            acted.set()
            (child,) = set(children()) - before
            act(child)

    return progress
