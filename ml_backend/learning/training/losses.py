"""Losses as pure functions: logits (B,C,H,W) float32 and target (B,H,W) int64 of class indices, 255 = not labelled."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from ml_backend.annotations.label_map import IGNORE_INDEX


def cross_entropy_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice loss, a scalar; 0 with zero gradients where nothing is labelled."""
    return cross_entropy(logits, target) + dice(logits, target)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled pixels, in nats."""
    total = functional.cross_entropy(logits, target, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (target != IGNORE_INDEX).sum().clamp(min=1)  # torch's own mean over no pixel is NaN


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft Dice, averaged over the classes that the target contains (V-Net, arXiv 1606.04797, without squares).

    Sums run over the whole batch: an image with two pixels of a class then weighs two pixels.
    """
    labelled = target != IGNORE_INDEX
    truth = functional.one_hot(target.where(labelled, 0), logits.shape[1]).movedim(-1, 1)  # (B,C,H,W)
    truth = truth.to(logits.dtype) * labelled[:, None]
    probability = logits.softmax(dim=1) * labelled[:, None]
    overlap = (probability * truth).sum(dim=(0, 2, 3))  # (C)
    size = truth.sum(dim=(0, 2, 3))
    score = 2 * overlap / (probability.sum(dim=(0, 2, 3)) + size).clamp(min=1e-6)
    present = (size > 0).to(logits.dtype)
    return ((1 - score) * present).sum() / present.sum().clamp(min=1)
