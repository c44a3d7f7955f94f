"""The job of a training, and its progress. Imports no torch, which processes that only start trainings do without."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ml_backend.errors import TrainingError
from ml_backend.settings import AUTO
from ml_backend.system.bucket import Bucket


@dataclass(frozen=True)
class Item:
    """A labelled image.

    Attributes:
        id: the task's id, as text; the ids of tasks that label parts of the same image are joined by "+".
        image: file in any format that `images.load_image` reads.
        mask: PNG of class indices, of the image's size; 255 is not labelled.
        held_out: the label measures, and does not train.
        digest: changes when the label changes; joined likewise.
        pseudo: the mask was predicted, not drawn: it trains, and counts as no label.
        group: what the image is of, such as a video: measures of images of a group are alike. Empty: of itself alone.
        points: of a label that measures, how many pixels were drawn for it evenly over the image: each that has an
            answer stands for its share of the image. 0: every labelled pixel stands for itself.
    """

    id: str
    image: Path
    mask: Path
    held_out: bool
    digest: str
    pseudo: bool = False
    group: str = ""
    points: int = 0

    @property
    def labels(self) -> dict[str, str]:
        """Task id -> digest of its label."""
        return dict(zip(self.id.split("+"), self.digest.split("+"), strict=True))


@dataclass(frozen=True)
class Job:
    """All that a training needs.

    Attributes:
        label_map_digest, data_digest: written into the version's record, for the caller to compare later.
        folder: the project's `Checkpoints` folder, or the bucket that they are in.
        parent: number of the published version: it is measured on the same held-out labels, and with
            `train_from` "last" its weights are where the training starts.
        encoder_weights: initial encoder weights where there is no parent to start from.
        architecture: a name, or "auto": by the device.
        network_options: keyword arguments of the architecture, as JSON has them.
        input_size: longest image side that the network sees, in pixels; smaller images are not enlarged.
        iterations: optimiser steps; 0: as many as fit into the budget.
        training_budget: minutes that reading and optimising may take; a committee's members share them. Few labels need
            less, very many labels get more. 0: by the device; see `recipe`.
        batch_size: images per step; batch normalisation needs two, so 1 counts as 2. 0: by the device.
        learning_rate: peak rate of the decoder; that of a pretrained encoder is three tenths of it. 0: by the device.
        train_encoder: False: the encoder stays as it was at the start, statistics included. "auto": by the device.
        trigger: why it is trained, in words, for the version's record.
        device: auto, cpu, cuda or cuda:N.
        seed: the same job with the same seed and number of `iterations` gives the same weights on a CPU.
        maps_folder: keeps the maps of encoders that are not trained; None: they are kept in memory, for this job.
        maps_bytes: most bytes in that folder.
        unavailable: id of labelled tasks whose image could not be read -> why; they are recorded as skipped.
        committee_of: number of the version that a committee is trained for, in the place of a new version: networks
            that all start from the encoder's weights, each on another bootstrap resample of the training items.
        members: networks of that committee.
        trial: it tries the other way with the encoder on the labels of the parent; see `gate.judge_trial`.

    Raises:
        TrainingError: a value is out of range.
    """

    items: tuple[Item, ...]
    classes: tuple[str, ...]
    label_map_digest: str
    data_digest: str
    folder: Path | Bucket
    parent: int | None = None
    trigger: str = ""
    train_from: Literal["last", "scratch"] = "last"
    architecture: str = AUTO
    encoder: str = "tu-tf_efficientnet_lite0"
    encoder_weights: str = "bundled"
    network_options: Mapping[str, Any] = field(default_factory=dict)
    dropout: float = 0.1
    input_size: int = 384
    iterations: int = 0
    training_budget: float = 0.0
    batch_size: int = 0
    learning_rate: float = 0.0
    train_encoder: bool | Literal["auto"] = AUTO
    device: str = "auto"
    seed: int = 0
    unavailable: Mapping[str, str] = field(default_factory=dict)
    committee_of: int | None = None
    members: int = 0
    maps_folder: Path | None = None
    maps_bytes: int = 0
    trial: bool = False

    def __post_init__(self) -> None:
        if not self.input_size > 0:
            raise TrainingError(f"input_size of a training must be positive, not {self.input_size!r}.")
        for name in ("iterations", "training_budget", "batch_size", "learning_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TrainingError(f"{name} of a training must be 0 or more, not {getattr(self, name)!r}.")
        if not 1 <= len(self.classes) <= 255:
            raise TrainingError(f"A training needs 1 to 255 classes, not {len(self.classes)}.")
        if self.train_from not in ("last", "scratch"):
            raise TrainingError(f"train_from must be 'last' or 'scratch', not {self.train_from!r}.")
        if len({item.id for item in self.items}) < len(self.items):
            raise TrainingError("Two items of a training have the same id.")
        if any(item.pseudo and item.held_out for item in self.items):
            raise TrainingError("A pseudo-label cannot be held out: it would measure the network with itself.")
        if self.committee_of is not None and self.members < 2:
            raise TrainingError(f"A committee needs at least 2 members, not {self.members!r}: set NEXTMASK_MEMBERS.")

    @property
    def local_folder(self) -> Path:
        """A folder on this machine that has to have room for what is trained."""
        return self.folder.cache if isinstance(self.folder, Bucket) else self.folder

    @property
    def networks(self) -> int:
        """Number of networks that this job trains, one after another."""
        return 1 if self.committee_of is None else self.members

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
        changed = {"items": items, "classes": tuple(values["classes"]), "folder": _place(values["folder"])}
        if values["maps_folder"] is not None:
            changed["maps_folder"] = Path(values["maps_folder"])
        return cls(**values | changed)


def _place(value: str | Mapping[str, Any]) -> Path | Bucket:
    return Path(value) if isinstance(value, str) else Bucket(**{**value, "cache": Path(value["cache"])})


@dataclass(frozen=True)
class Progress:
    """How far a training is: `done` of `total` images read, steps taken, or held-out images measured.

    `loss` is that of the newest step, None before the first; `held_out` is the newest held-out mIoU in words, empty as
    long as there is none.
    `seconds_left` is how long steps will still be taken, None as long as that is not known. `member` of `members`,
    counted from 1, is the network of a committee that is being trained; both are 0 elsewhere.
    """

    stage: Literal["waiting for the cluster", "reading", "training", "measuring", "training committee"]
    done: int
    total: int
    loss: float | None = None
    held_out: str = ""
    member: int = 0
    members: int = 0
    seconds_left: float | None = None

    @property
    def label(self) -> str:
        """The stage as people are shown it."""
        return f"{self.stage}: member {self.member} of {self.members}" if self.members else self.stage
