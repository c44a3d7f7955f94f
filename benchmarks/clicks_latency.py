"""How long a click takes at 1024x768, with what is kept of the image and without, alone and while a training runs."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from clicked import opened, untrained
from unlabelled import add

from ml_backend.images.decoding import load_image
from ml_backend.learning.refinement.features import FeatureRefiner
from ml_backend.learning.refinement.prompts import Prompt
from ml_backend.learning.training import Item, Job, Progress
from ml_backend.learning.training import process as training_process

SIZE = 1024, 768
FIELDS = ("training", "kept", "clicks", "ms", "processor_ms", "load")


class Ended(Exception):
    """The training is no longer wanted."""


def measure(clicks: int, out: Path) -> None:
    """Time clicks; add a row for each. A network of 11 classes answers, whose weights do not matter to the time."""
    sample = opened("sample")
    image = cv2.resize(load_image(sample.splits["test"][4].image), SIZE, interpolation=cv2.INTER_LINEAR)
    refiner = FeatureRefiner(untrained(11))
    refiner.refine(image, "image", 1, [])  # what is loaded once
    time_clicks(refiner, np.asarray(image, np.uint8), clicks, "no", out)
    with training():
        time_clicks(refiner, np.asarray(image, np.uint8), clicks, "yes", out)


def time_clicks(refiner: FeatureRefiner, image: np.ndarray, clicks: int, training: str, out: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(clicks):
        places = random.integers(0, SIZE[::-1], (1 + number % 5, 2))
        prompts = [
            Prompt.click(1, int(row), int(column), is_positive=at % 2 == 0) for at, (row, column) in enumerate(places)
        ]
        for kept in ("no", "yes"):
            if kept == "no":
                refiner.release()
            began, worked = time.perf_counter(), time.thread_time()
            refiner.refine(image, "image", 1, prompts)
            milliseconds = [
                round(1000 * seconds, 1) for seconds in (time.perf_counter() - began, time.thread_time() - worked)
            ]
            row = (training, kept, len(prompts), *milliseconds, round(os.getloadavg()[0], 2))
            add(out, dict(zip(FIELDS, row, strict=True)))
        time.sleep(0.2)


@contextmanager
def training() -> Iterator[None]:
    """Train on the sample data as the product does, in a process of its own, until the block ends."""
    sample = opened("sample")
    items = tuple(
        Item(str(at), one.image, one.mask, at % 5 == 0, str(at)) for at, one in enumerate(sample.splits["train"])
    )
    begun, ended = threading.Event(), threading.Event()

    def heard(progress: Progress) -> None:
        if progress.stage == "training" and progress.done > 3:
            begun.set()

    def heartbeat() -> None:
        if ended.is_set():
            raise Ended

    def run(folder: str) -> None:
        job = Job(
            items=items,
            classes=sample.classes,
            label_map_digest="",
            data_digest="",
            folder=Path(folder),
            device="cpu",
            iterations=1_000_000,
        )
        try:
            training_process.run(job, progress=heard, heartbeat=heartbeat)
        except Ended:
            return

    with tempfile.TemporaryDirectory() as folder:
        thread = threading.Thread(target=run, args=(folder,))
        thread.start()
        try:
            if not begun.wait(300):
                raise RuntimeError("the training did not begin")
            yield
        finally:
            ended.set()
            thread.join()
