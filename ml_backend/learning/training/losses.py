"""Losses as pure functions: logits (B,C,H,W) float32 and target (B,H,W) int64 of class indices, 255 = not labelled.

Each image of a batch counts alike, whatever part of it is labelled: by pixels, ten answered points are one part in a
thousand beside a whole mask. What an image is worth is how often it is drawn (`data.Samples.batches`).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from ml_backend.annotations.label_map import IGNORE_INDEX

_RAREST = 1e-3
"""Least share of a class: what is rarer weighs no more, since a few pixels would outweigh all others."""


def cross_entropy_dice(logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy plus soft Dice loss, a scalar; 0 with zero gradients where nothing is labelled.

    Args:
        class_weights: (C) float32 of the cross-entropy; None: all alike.
    """
    return cross_entropy(logits, target, class_weights) + dice(logits, target)


def cross_entropy(logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean over the images of the mean cross-entropy of their labelled pixels, in nats, times the weight of a class."""
    each = functional.cross_entropy(
        logits, target, weight=class_weights, ignore_index=IGNORE_INDEX, reduction="none"
    )  # (B,H,W)
    weights = pixel_weights(target).to(each.dtype)
    return (each * weights).sum() / weights.sum().clamp(min=1)  # torch's own mean over no pixel is NaN


def class_weights_of(shares: Tensor) -> Tensor:
    """Return the weight (C) float32 of each class: the inverse root of its share (C) of the labelled pixels.

    The mean over the labelled pixels is 1, so that the loss is as large as without weights, and with classes that are
    equally frequent the same.

    >>> import torch
    >>> class_weights_of(torch.tensor([0.5, 0.5])).tolist(), class_weights_of(torch.tensor([0.9, 0.1])).tolist()
    ([1.0, 1.0], [0.8333333730697632, 2.5])
    """
    weights = shares.double().clamp(min=_RAREST).rsqrt()
    return (weights / (weights * shares).sum().clamp(min=1e-9)).float()


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft Dice, averaged over the classes that the target contains (V-Net, arXiv 1606.04797, without squares).

    Sums run over the whole batch: an image with two pixels of a class then weighs two pixels.
    """
    labelled, weights = target != IGNORE_INDEX, pixel_weights(target)[:, None].to(logits.dtype)  # (B,1,H,W)
    truth = functional.one_hot(target.where(labelled, 0), logits.shape[1]).movedim(-1, 1) * weights  # (B,C,H,W)
    probability = logits.softmax(dim=1)
    overlap = (probability * truth).sum(dim=(0, 2, 3))  # (C)
    size = truth.sum(dim=(0, 2, 3))
    score = 2 * overlap / ((probability * weights).sum(dim=(0, 2, 3)) + size).clamp(min=1e-6)
    present = (size > 0).to(logits.dtype)
    return ((1 - score) * present).sum() / present.sum().clamp(min=1)


def pixel_weights(target: Tensor) -> Tensor:
    """Return the weight of each pixel (B,H,W): that of an image's pixels is the same for every image that has any.

    Their mean over the labelled pixels is 1, so where images are labelled alike all weights are.

    >>> import torch
    >>> pixel_weights(torch.tensor([[[0, 1, 1, 255]], [[0, 255, 255, 255]]])).tolist()  # two pixels each
    [[[0.6666666865348816, 0.6666666865348816, 0.6666666865348816, 0.0]], [[2.0, 0.0, 0.0, 0.0]]]
    """
    labelled = (target != IGNORE_INDEX).float()
    counts = labelled.sum(dim=(1, 2), keepdim=True)  # (B,1,1)
    mean = counts.sum() / (counts > 0).sum().clamp(min=1)
    return labelled * (mean / counts.clamp(min=1))
