"""What can be read off a predicted segmentation: its classes and the length of their boundaries."""

from __future__ import annotations

import torch
from torch import Tensor

from strategies.checks import check_shape


def predicted_classes(probabilities: Tensor) -> Tensor:
    """Return the class with the largest mean probability, the first when they tie: (M,B,C,H,W) -> (B,H,W) int64.

    Class by class, so that a large committee is not copied.

    >>> predicted_classes(torch.tensor([0.2, 0.4, 0.4]).view(1, 1, 3, 1, 1)).item()
    1
    """
    images = probabilities.shape[1] if probabilities.ndim > 1 else None
    check_shape("probabilities", probabilities, M=None, B=images, C=None, H=None, W=None)
    best = torch.full_like(probabilities[0, :, 0], -1, dtype=torch.float64)  # (B,H,W)
    predicted = torch.zeros_like(best, dtype=torch.int64)
    for index, plane in enumerate(probabilities.unbind(dim=2)):  # (M,B,H,W)
        total = torch.zeros_like(best)
        for member in plane:
            total += member
        predicted.masked_fill_(total > best, index)
        torch.maximum(best, total, out=best)
    return predicted


def boundary_length(classes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return how long the boundary between classes is at each pixel, in pixels of the original image.

    The edge between two neighbours (of four) of different class counts half for either. The border of the image is
    no boundary.

    Args:
        classes: (h,w) integers, the segmentation of the whole image without padding.
        size: height and width of the original image.

    Returns:
        (h,w) float64; its sum is the length of all boundaries.

    >>> boundary_length(torch.tensor([[0, 1], [0, 1]]), (2, 2)).tolist()  # an edge of two pixels
    [[0.5, 0.5], [0.5, 0.5]]
    >>> boundary_length(torch.tensor([[0, 1], [0, 1]]), (4, 8)).sum().item()  # the same, in an image twice as high
    4.0
    """
    check_shape("classes", classes, h=None, w=None)
    height, width = classes.shape
    length = torch.zeros_like(classes, dtype=torch.float64)
    upright = (classes[:, 1:] != classes[:, :-1]) * (size[0] / height / 2)  # edges between left and right, (h,w-1)
    level = (classes[1:] != classes[:-1]) * (size[1] / width / 2)  # edges between above and below, (h-1,w)
    length[:, 1:] += upright
    length[:, :-1] += upright
    length[1:] += level
    length[:-1] += level
    return length
