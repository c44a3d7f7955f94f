"""Training and measuring the networks of a simulation, with the training loop of production.

Nothing is held out: every network takes all its steps, so that no label is used that is not counted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.learning.networks import SegmentationNetwork, resolve_device
from ml_backend.learning.prediction.committees import Committee, Ensemble, mc_dropout
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.learning.training.data import Augmentation, Sample, Samples
from ml_backend.learning.training.job import Item
from ml_backend.learning.training.loop import Data, fit, seeded
from ml_backend.learning.training.start import initial_network
from ml_backend.simulation.labels import Labels
from ml_backend.simulation.material import Material
from ml_backend.simulation.plan import Plan
from ml_backend.simulation.training.evaluation import Measured, by_image, evaluate
from ml_backend.simulation.training.frozen_encoder import MapMemory, freeze_encoder
from ml_backend.simulation.training.views import Views
from strategies import Strategy, catalogue


@dataclass(frozen=True, eq=False)
class Trained:
    """A network, how good it is, and the seconds that its training took."""

    predictor: Predictor
    measured: Measured
    seconds: float


class Trainer:
    """Trains and measures the networks of a simulation.

    Args:
        plan: how networks are trained.
        material: what they are trained on, and measured with.
        folder: keeps the networks that runs share.
    """

    def __init__(self, plan: Plan, material: Material, folder: Path) -> None:
        self._plan, self._material, self._folder = plan, material, folder
        self._device = resolve_device(plan.device)
        self._memory = MapMemory()
        self._views = Views(material.pool, plan.recipe)
        names = material.classes
        self._object_class = None if plan.object_class is None else names.index(plan.object_class)

    def train(self, labels: Labels, seed: int, pseudo_labels: Mapping[int, Tensor] | None = None) -> Trained:
        """Train a network from the initial weights on what is labelled, and measure it.

        Args:
            pseudo_labels: picture number -> predicted mask (h,w) uint8 of class indices.
        """
        started = time.monotonic()
        images = len(labels) + len(pseudo_labels or {})
        network = self._fitted(self._views.of(labels, pseudo_labels), seed, images)
        return self._measured(network, time.monotonic() - started)

    def first(self, labels: Labels, seed: int) -> Trained:
        """Train on the initial set of a seed. All strategies share it, so it is trained once and kept."""
        file = self._folder / f"first-{seed}.pt"
        if file.exists():
            kept: dict[str, Any] = torch.load(file, weights_only=True)
            network = self._initial(seed)
            network.load_state_dict(kept["state"])
            return Trained(self._predictor(network), Measured(**kept["measured"]), kept["seconds"])
        trained = self.train(labels, seed)
        kept = {
            "state": trained.predictor.network.state_dict(),
            "measured": asdict(trained.measured),
            "seconds": trained.seconds,
        }
        temporary = file.with_suffix(f".{os.getpid()}.part")
        torch.save(kept, temporary)
        temporary.replace(file)
        return trained

    def committee(self, strategy: Strategy, trained: Trained, labels: Labels, seed: int) -> Committee | None:
        """Make the committee that a strategy needs, as production does; None where it needs none."""
        if "committee" not in strategy.needs:
            return None
        if not catalogue.described(strategy.name).ensemble:
            return mc_dropout(trained.predictor.network, self._plan.recipe.members, seed)
        networks = [
            self._fitted(self._views.resampled(labels, random), seed + 1 + member, len(labels)).eval()
            for member in range(self._plan.recipe.ensemble)
            for random in [np.random.default_rng([seed, member])]
        ]
        return Ensemble(networks, len(self._material.classes))

    def masks(self, trained: Trained, numbers: tuple[int, ...]) -> dict[int, Tensor]:
        """Predict masks (h,w) uint8 of pictures of the pool."""
        masks: dict[int, Tensor] = {}
        items = [self._material.pool[number].shrunk() for number in numbers]
        for batch in trained.predictor.batches(items, features=False, batch_size=self._plan.recipe.score_size):
            for number, probabilities in by_image(batch):
                height, width = self._material.pool[number].mask.shape
                masks[number] = probabilities[:, :height, :width].argmax(dim=0).to(torch.uint8)
        return masks

    # -- fitting ------------------------------------------------------------------------------------------------------
    def _initial(self, seed: int) -> SegmentationNetwork:
        """Build a network with its initial weights."""
        job = self._plan.recipe.job(self._material.classes, seed, self._plan.device)
        network = initial_network(job, Checkpoints(self._folder), None)
        return network if self._plan.recipe.train_encoder else freeze_encoder(network, self._memory)

    def _fitted(self, samples: Sequence[tuple[Item, Sample]], seed: int, images: int) -> SegmentationNetwork:
        recipe = self._plan.recipe
        job = recipe.job(self._material.classes, seed, self._plan.device, images)
        augment: Augmentation | None = None if recipe.train_encoder else _unchanged
        with seeded(seed, self._device):
            network = self._initial(seed)
            fitted = fit(
                network,
                Data(training=Samples.in_memory(samples), held_out=Samples.in_memory([])),
                job,
                self._device,
                lambda _: None,
                pretrained=recipe.encoder_weights != "none",
                augment=augment,
            )
        network.load_state_dict(fitted.state)
        return network

    def _measured(self, network: SegmentationNetwork, seconds: float) -> Trained:
        predictor = self._predictor(network)
        measured = evaluate(
            predictor,
            self._material.test,
            at=self._plan.measure_at,
            batch_size=self._plan.recipe.score_size,
            object_class=self._object_class,
        )
        return Trained(predictor, measured, seconds)

    def _predictor(self, network: SegmentationNetwork) -> Predictor:
        return Predictor(network, self._material.classes, self._plan.recipe.input_size, self._device)


def _unchanged(image: Any, mask: Any) -> tuple[Tensor, Tensor]:
    return image, mask
