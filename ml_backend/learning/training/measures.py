"""Held-out measures, all from the same counts of pixels, at the size of the original masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ml_backend.annotations import masks
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.learning.measuring.counts import Counts, group_digest, pixels_of
from ml_backend.learning.measuring.uncertainty import estimates, measures_of
from ml_backend.learning.networks import autocast, labels_at
from ml_backend.learning.training.data import Samples


def count(
    network: nn.Module, samples: Samples, classes: Sequence[str], *, device: torch.device, report: Callable[[int], None]
) -> Counts:
    """Count the pixels of each of the samples, by class; a point counts for as many as it stands for.

    Args:
        network: left in evaluation mode.
        report: called with the number of images done.
    """
    pixels = []
    items = []
    network.eval()
    with torch.inference_mode(), autocast(device):
        for done, (item, image, truth) in enumerate(samples.with_original_masks(), start=1):
            logits = network(image.to(device)[None] / 255)[0]  # (C,h,w)
            predicted = labels_at(logits, *truth.shape)  # (H,W)
            labelled = truth != IGNORE_INDEX
            each = max(1, round(truth.size / item.points)) if item.points else 1
            pixels.append(each * pixels_of(masks.confusion(truth[labelled], predicted[labelled], len(classes))))
            items.append(item)
            report(done)
    groups = tuple(group_digest(item.group) or item.id for item in items)
    stacked = np.stack(pixels) if pixels else np.zeros((0, len(classes), 3), np.int64)
    return Counts(tuple(classes), tuple(item.id for item in items), groups, stacked)


def measures(confusion: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Turn a confusion matrix (C,C), rows are the truth, into measures in [0, 1].

    Classes without a true pixel are None, and left out of `miou`, so that two versions measured on the same labels
    are averaged over the same classes; pixels wrongly given to such a class still count as missed in their own.

    Returns:
        miou, mean_dice, pixel_accuracy: float, or None when nothing was measured.
        iou, dice: class name -> float or None.
        pixels: how many pixels measured.
    """
    return measures_of(pixels_of(confusion.numpy()), classes)


def held_out_measures(counts: Counts) -> dict[str, Any]:
    """Return `measures` of all labels together, with their intervals.

    Returns:
        what `measures` returns, and
        intervals: of miou, mean_dice and pixel_accuracy, and by class of iou and dice: [low, high], or None.
        images, groups: how many were measured.
    """
    found = estimates(counts)
    totals = {"images": len(counts.labels), "groups": len(set(counts.groups))}
    return (
        measures_of(counts.pixels.sum(axis=0), counts.classes)
        | totals
        | {"intervals": found.intervals() if found else {}}
    )
