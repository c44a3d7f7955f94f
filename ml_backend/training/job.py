"""What a training is told, and what it tells while it runs. Light: the processes that only start one need no torch."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ml_backend.errors import TrainingError


@dataclass(frozen=True)
class Item:
    """One labelled image.

    Attributes:
        id: the task's id, as text.
        image: file in any format that `images.load_image` reads.
        mask: PNG of class indices, of the image's size; 255 is not labelled.
        held_out: it measures, and does not train.
        digest: changes when the label changes.
    """

    id: str
    image: Path
    mask: Path
    held_out: bool
    digest: str


@dataclass(frozen=True)
class Job:
    """All that one training needs.

    Attributes:
        label_map_digest, data_digest: written into the version's record, for the caller to compare later.
        folder: the project's `Checkpoints` folder.
        parent: number of the version that serves now: it is measured on the same held-out labels, and with
            `train_from` "last" its weights are where the training starts.
        encoder_weights: initial encoder weights where there is no parent to start from.
        input_size: longest image side that the network sees, in pixels; smaller images are not enlarged.
        iterations: most optimiser steps.
        batch_size: images per step; batch normalisation needs two, so 1 counts as 2.
        learning_rate: peak rate of the decoder; that of a pretrained encoder is three tenths of it.
        patience: evaluations without a better held-out mIoU after which the training stops.
        publish_tolerance: loss of held-out mIoU against the parent that is still accepted.
        held_out_minimum: held-out labels from which on a worse version is refused.
        device: auto, cpu, cuda or cuda:N.
        seed: the same job with the same seed gives the same weights on a CPU.

    Raises:
        TrainingError: a value is out of range.
    """

    items: tuple[Item, ...]
    classes: tuple[str, ...]
    label_map_digest: str
    data_digest: str
    folder: Path
    parent: int | None = None
    train_from: Literal["last", "scratch"] = "last"
    architecture: str = "unet"
    encoder: str = "tu-tf_efficientnet_lite0"
    encoder_weights: str = "bundled"
    dropout: float = 0.1
    input_size: int = 384
    iterations: int = 200
    batch_size: int = 8
    learning_rate: float = 3e-3
    patience: int = 4
    publish_tolerance: float = 0.02
    held_out_minimum: int = 8
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("input_size", "iterations", "batch_size", "patience", "held_out_minimum", "learning_rate"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name} of a training must be positive, not {getattr(self, name)!r}.")
        if not 1 <= len(self.classes) <= 255:
            raise TrainingError(f"A training needs 1 to 255 classes, not {len(self.classes)}.")
        if self.train_from not in ("last", "scratch"):
            raise TrainingError(f"train_from must be 'last' or 'scratch', not {self.train_from!r}.")
        if len({item.id for item in self.items}) < len(self.items):
            raise TrainingError("Two items of a training have the same id.")

    def to_json(self) -> str:
        """Return this job as JSON text; `from_json` is the way back."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Rebuild a job from `to_json`."""
        values: dict[str, Any] = json.loads(text)
        items = tuple(
            Item(**item | {"image": Path(item["image"]), "mask": Path(item["mask"])}) for item in values["items"]
        )
        changed = {"items": items, "classes": tuple(values["classes"]), "folder": Path(values["folder"])}
        return cls(**values | changed)


@dataclass(frozen=True)
class Progress:
    """How far a training is: `done` of `total` images read, steps taken, or held-out images measured.

    `loss` is that of the step, None in other stages.
    """

    stage: Literal["reading", "training", "measuring"]
    done: int
    total: int
    loss: float | None = None
