"""Held-out measures, all from the same confusion matrix at the size of the original masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ml_backend.annotations import masks
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.learning.networks import autocast, labels_at
from ml_backend.learning.training.data import Samples


def confusion(
    network: nn.Module, samples: Samples, *, classes: int, device: torch.device, report: Callable[[int], None]
) -> Tensor:
    """Count pixels of all `samples`: (C,C) int64 on the CPU, rows are the truth, columns the prediction.

    Args:
        network: left in evaluation mode.
        report: called with the number of images done.
    """
    counts = np.zeros((classes, classes), np.int64)
    network.eval()
    with torch.inference_mode(), autocast(device):
        for done, (image, truth) in enumerate(samples.with_original_masks(), start=1):
            logits = network(image.to(device)[None] / 255)[0]  # (C,h,w)
            predicted = labels_at(logits, *truth.shape)  # (H,W)
            labelled = truth != IGNORE_INDEX
            counts += masks.confusion(truth[labelled], predicted[labelled], classes)
            report(done)
    return torch.from_numpy(counts)


def measures(counts: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Turn a confusion matrix (C,C) into measures in [0, 1].

    Classes without a true pixel are None, and left out of `miou`, so that two versions measured on the same labels
    are averaged over the same classes; pixels wrongly given to such a class still count as missed in their own.

    Returns:
        miou, mean_dice, pixel_accuracy: float, or None when nothing was measured.
        iou, dice: class name -> float or None.
        pixels: how many pixels measured.
    """
    truth, predicted, hit = counts.sum(dim=1), counts.sum(dim=0), counts.diagonal()
    present = truth > 0
    iou = (hit / (truth + predicted - hit).clamp(min=1)).double()
    dice = (2 * hit / (truth + predicted).clamp(min=1)).double()
    total = int(truth.sum())
    return {
        "miou": float(iou[present].mean()) if total else None,
        "mean_dice": float(dice[present].mean()) if total else None,
        "pixel_accuracy": int(hit.sum()) / total if total else None,
        "iou": _by_class(iou, present, classes),
        "dice": _by_class(dice, present, classes),
        "pixels": total,
    }


def _by_class(values: Tensor, present: Tensor, classes: Sequence[str]) -> dict[str, float | None]:
    return {
        name: value if there else None
        for name, value, there in zip(classes, values.tolist(), present.tolist(), strict=True)
    }
