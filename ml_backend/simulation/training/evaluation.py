"""Measuring a network of a simulation on the test images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.learning.networks import labels_at
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.learning.training.measures import measures
from ml_backend.simulation.material import Picture
from ml_backend.simulation.training.objects import ObjectScores, instances_of, object_scores
from strategies import Batch

_SPECK = 20
"""Predicted objects of fewer pixels are noise, and left out."""


@dataclass(frozen=True)
class Measured:
    """Measures of a network, each in [0, 1]; see `results.Row`."""

    miou: float
    dice: float
    object_f1: float | None = None
    object_dice: float | None = None


def evaluate(
    predictor: Predictor,
    pictures: Sequence[Picture],
    *,
    at: Literal["original", "network"],
    batch_size: int,
    object_class: int | None = None,
) -> Measured:
    """Compare predictions with the true masks.

    Args:
        at: the size of both; see `Plan.measure_at`.
        object_class: the class whose connected components are compared, too, at the original size.
    """
    classes = len(predictor.classes)
    counts = torch.zeros(classes * classes, dtype=torch.int64)
    objects = ObjectScores()
    by_number = {picture.number: picture for picture in pictures}
    for batch in predictor.batches((picture.shrunk() for picture in pictures), features=False, batch_size=batch_size):
        for number, probabilities in by_image(batch):
            predicted, truth = _pair(by_number[number], probabilities, at)
            counts += _counts(predicted, truth, classes)
            if object_class is not None:
                objects += _objects(by_number[number], probabilities, object_class)
    measured = measures(counts.view(classes, classes), predictor.classes)
    f1, dice = (None, None) if object_class is None else (objects.f1, objects.dice)
    return Measured(miou=measured["miou"] or 0.0, dice=measured["mean_dice"] or 0.0, object_f1=f1, object_dice=dice)


def _objects(picture: Picture, probabilities: Tensor, object_class: int) -> ObjectScores:
    """Compare the objects of an image at its original size."""
    predicted, truth = _pair(picture, probabilities, "original")
    ignored = (truth == IGNORE_INDEX).numpy()
    instances = picture.instances
    if instances is None:
        instances = instances_of(truth.numpy(), object_class, ignored)
    return object_scores(
        instances, instances_of(predicted.numpy(), object_class, ignored, minimum_area=_SPECK), ignored
    )


def by_image(batch: Batch) -> Iterator[tuple[int, Tensor]]:
    """Yield the number and the probabilities (C,H,W), padding included, of each image of a predictor's batch."""
    if batch.probabilities is not None:
        yield from zip(map(int, batch.ids), batch.probabilities[0], strict=True)


def _pair(picture: Picture, probabilities: Tensor, at: str) -> tuple[Tensor, Tensor]:
    """Return predicted and true class indices of an image, both of the same size."""
    own = probabilities[:, : picture.mask.shape[0], : picture.mask.shape[1]]
    if at == "network":
        return own.argmax(dim=0), picture.mask
    return torch.from_numpy(labels_at(own, *picture.size)), torch.from_numpy(picture.truth())


def _counts(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Count pixels (C*C) by true and predicted class, without those that are ignored."""
    counted = truth != IGNORE_INDEX
    pairs = truth[counted].long() * classes + predicted[counted].long()
    return torch.bincount(pairs, minlength=classes * classes).cpu()
