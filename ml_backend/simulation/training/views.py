"""Labelled images as samples to train on, each in several augmented views that are the same in every training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.learning.training.data import Sample, augmentation
from ml_backend.learning.training.job import Item
from ml_backend.simulation.labels import Labels
from ml_backend.simulation.material import Picture
from ml_backend.simulation.plan import Recipe


class Views:
    """The views of a pool's images; the first view of an image is the image itself.

    Args:
        pool: pictures by number.
        recipe: an encoder that does not learn computes `views` views of each image once for all trainings; for an
            encoder that learns there is one view, which the training augments in every step.
    """

    def __init__(self, pool: Mapping[int, Picture], recipe: Recipe) -> None:
        self._pool = pool
        self._count = 1 if recipe.train_encoder else recipe.views
        self._pixels: dict[tuple[int, int], Tensor] = {}

    def of(self, labels: Labels, pseudo_labels: Mapping[int, Tensor] | None = None) -> list[tuple[Item, Sample]]:
        """Return the views of all labelled images, without those in which no pixel is labelled.

        Args:
            pseudo_labels: picture number -> predicted mask (h,w) uint8 of class indices; these train, too.
        """
        predicted = pseudo_labels or {}
        masks = {number: labels.mask(number) for number in labels.numbers} | dict(predicted)
        return [
            view for number, mask in masks.items() for view in self._views(number, mask, is_pseudo=number in predicted)
        ]

    def resampled(self, labels: Labels, random: np.random.Generator) -> list[tuple[Item, Sample]]:
        """Draw as many labelled images as there are, with replacement, each with all its views."""
        numbers = labels.numbers
        drawn = [numbers[index] for index in random.integers(len(numbers), size=len(numbers))]
        return [view for number in drawn for view in self._views(number, labels.mask(number), is_pseudo=False)]

    def _views(self, number: int, mask: Tensor, *, is_pseudo: bool) -> list[tuple[Item, Sample]]:
        item = Item(str(number), Path(), Path(), held_out=False, digest="", pseudo=is_pseudo)
        samples = [self._view(self._pool[number], mask, view) for view in range(self._count)]
        return [(item, sample) for sample in samples if (sample.mask != IGNORE_INDEX).any()]

    def _view(self, picture: Picture, mask: Tensor, view: int) -> Sample:
        if view == 0:
            return Sample(picture.pixels, mask)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(picture.number * 1009 + view)
            pixels, changed = augmentation()(tv_tensors.Image(picture.pixels), tv_tensors.Mask(mask))
        kept = self._pixels.setdefault((picture.number, view), pixels.as_subclass(Tensor))
        return Sample(kept, changed.as_subclass(Tensor))
