"""Training and measuring the networks of a simulation, with the training loop of production.

Nothing is held out: every network takes all its steps, so that no label is used that is not counted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ml_backend.annotations.mending import mending_clicks
from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.learning.networks import MapMemory, SegmentationNetwork, labels_at, resolve_device
from ml_backend.learning.prediction.committees import Committee, Ensemble, mc_dropout
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.learning.training.data import Sample, Samples
from ml_backend.learning.training.fit import fit, seeded
from ml_backend.learning.training.job import Item
from ml_backend.learning.training.start import initial_network
from ml_backend.settings import Settings
from ml_backend.simulation.labels import Labels
from ml_backend.simulation.material import Material
from ml_backend.simulation.plan import Plan
from ml_backend.simulation.training.evaluation import Measured, by_image, evaluate
from strategies import Strategy, catalogue

_SPECK: int = Settings.model_fields["minimum_area"].default
"""Pixels of a part of a mask under which production shows none."""
_MAPS_BYTES = 4 << 30
"""Bytes of maps of encoders that are kept in memory, for all networks of a process."""


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
        self._memory = MapMemory(_MAPS_BYTES)
        names = material.classes
        self._object_class = None if plan.object_class is None else names.index(plan.object_class)

    def train(self, labels: Labels, seed: int, pseudo_labels: Mapping[int, Tensor] | None = None) -> Trained:
        """Train a network from the initial weights on what is labelled, and measure it.

        Args:
            pseudo_labels: picture number -> predicted mask (h,w) uint8 of class indices.
        """
        started = time.monotonic()
        network = self._fitted(self._samples(labels, pseudo_labels), seed)
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
        own = self._samples(labels)
        networks = [
            self._fitted(own.resampled(np.random.default_rng([seed, member])), seed + 1 + member).eval()
            for member in range(self._plan.recipe.ensemble)
        ]
        return Ensemble(networks, len(self._material.classes))

    def masks(self, trained: Trained, numbers: Iterable[int]) -> dict[int, Tensor]:
        """Predict masks (h,w) uint8 of pictures of the pool, at the network's size."""
        predicted = self._probabilities(trained, numbers)
        return {number: probabilities.argmax(dim=0).to(torch.uint8) for number, probabilities in predicted}

    def mending(self, trained: Trained, numbers: Iterable[int]) -> dict[int, int]:
        """Return the clicks that it takes to mend the predicted masks of pictures of the pool."""
        return {
            number: mending_clicks(
                labels_at(probabilities, *self._material.pool[number].size),
                self._material.pool[number].truth(),
                background=self._material.background,
                minimum_area=_SPECK,
            )
            for number, probabilities in self._probabilities(trained, numbers)
        }

    def _probabilities(self, trained: Trained, numbers: Iterable[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield the number and the probabilities (C,h,w) of pictures of the pool."""
        items = (self._material.pool[number].shrunk() for number in numbers)
        for batch in trained.predictor.batches(items, features=False, batch_size=self._plan.recipe.score_size):
            for number, probabilities in by_image(batch):
                height, width = self._material.pool[number].mask.shape
                yield number, probabilities[:, :height, :width]

    def untrained(self, seed: int) -> Predictor:
        """Return a predictor of the network with its initial weights: the encoder's may be pretrained."""
        return self._predictor(self._initial(seed))

    # -- fitting ------------------------------------------------------------------------------------------------------
    def _initial(self, seed: int) -> SegmentationNetwork:
        """Build a network with its initial weights."""
        job = self._plan.recipe.job(self._material.classes, seed, self._plan.device)
        return initial_network(job, Checkpoints(self._folder), None, self._memory)

    def _samples(self, labels: Labels, pseudo_labels: Mapping[int, Tensor] | None = None) -> Samples:
        """Return what is labelled, and what was predicted in the place of labels, but for masks without a label."""
        predicted = pseudo_labels or {}
        masks = {number: labels.mask(number) for number in labels.numbers} | dict(predicted)
        return Samples.in_memory(
            [
                (Item(str(number), Path(), Path(), held_out=False, digest="", pseudo=number in predicted), sample)
                for number, mask in masks.items()
                if (sample := Sample(self._material.pool[number].pixels, mask)).labelled_share > 0
            ]
        )

    def _fitted(self, samples: Samples, seed: int) -> SegmentationNetwork:
        recipe = self._plan.recipe
        job = recipe.job(self._material.classes, seed, self._plan.device, len(samples))
        with seeded(seed, self._device):
            network = self._initial(seed)
            pretrained = recipe.encoder_weights != "none"
            fit(network, samples, job, self._device, lambda _: None, pretrained=pretrained, views=recipe.views)
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
