"""Pixels that are labelled one by one, such as answered points: kept where a mask is shrunk or moved.

Masks are interpolated to the nearest pixel. That loses nothing of an area, but of single pixels most: a mask that is
shrunk to a quarter keeps one in sixteen, and a view at four fifths of the size drops a third of what is left.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors

from ml_backend.annotations.label_map import IGNORE_INDEX

_AREA = 4
"""So many labelled pixels among a pixel and its eight neighbours are an area: those at the corner of a square."""


def single_pixels(mask: Tensor) -> Tensor:
    """Return rows and columns (N,2) int64 of the labelled pixels of a mask (h,w) that are part of no area.

    >>> point_and_square = torch.tensor([[255, 255, 255, 1, 1], [0, 255, 255, 1, 1]], dtype=torch.uint8)
    >>> single_pixels(point_and_square).tolist()
    [[1, 0]]
    """
    labelled = mask != IGNORE_INDEX
    if bool(labelled.all()):
        return torch.zeros((0, 2), dtype=torch.int64, device=mask.device)
    around = functional.avg_pool2d(labelled[None, None].float(), 3, 1, 1, divisor_override=1)[0, 0]
    return (labelled & (around < _AREA)).nonzero()


def shrunk(mask: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """Shrink a mask (H,W) to `size` (h,w): areas to the nearest, each single pixel to the pixel that covers it.

    Where two single pixels meet in one, the last in reading order stays.
    """
    original = torch.from_numpy(mask)
    smaller: Tensor = functional.interpolate(original[None, None], size=size, mode="nearest-exact")[0, 0]
    if mask.shape == size:
        return smaller
    at = single_pixels(original)
    place = (2 * at + 1) * torch.tensor(size) // (2 * torch.tensor(mask.shape))
    return _with(smaller, place, original[tuple(at.T)])


def as_boxes(pixels: Tensor, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    """Return pixels (N,2) of an image of `size` as boxes, which transforms of images and masks move along."""
    low = pixels.flip(1).float()
    return tv_tensors.BoundingBoxes(torch.cat([low, low + 1], dim=1), format="XYXY", canvas_size=size)


def with_moved(mask: Tensor, boxes: Tensor, values: Tensor) -> Tensor:
    """Return a mask (h,w) with single pixels that were moved as boxes (N,4), of some classes (N).

    What was moved out of the picture is left out.
    """
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    last = torch.tensor(mask.shape, device=mask.device) - 1
    place = centre.flip(1).long().clamp(min=0).minimum(last)
    return _with(mask, place[inside], values[inside])


def _with(mask: Tensor, place: Tensor, values: Tensor) -> Tensor:
    """Put values (N) at pixels (N,2) of a mask, where it is not labelled."""
    filled = torch.full_like(mask, IGNORE_INDEX)
    for (row, column), value in zip(place.tolist(), values.tolist(), strict=True):
        filled[row, column] = value
    return torch.where(mask == IGNORE_INDEX, filled, mask)
