"""What a network makes of an image, as prompts need it: colours, features of its places, opinions on classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ml_backend.learning.prediction.predictor import Encoded

Map = npt.NDArray[np.float32]

CELL = 4
"""Side in pixels, of the image as the network sees it, of a cell of what is kept."""
_SIDES = (4, 16)
"""Cells of the encoder's maps that tell objects apart, in pixels: finer ones are colours, coarser ones blur."""
DIMENSIONS = 16


@dataclass(frozen=True, eq=False)
class Look:
    """An image as the network sees it.

    Attributes:
        colours: (h,w,3) float32, L*a*b* in units of 100.
        features: (r,c,D) float32 of cells: main directions of the encoder's maps, the first with variance 1.
        opinions: (C,r,c) float32, log-probabilities of the classes; None before the first training.
    """

    colours: Map
    features: Map
    opinions: Map | None

    @property
    def nbytes(self) -> int:
        """Bytes of its maps."""
        return self.colours.nbytes + self.features.nbytes + (0 if self.opinions is None else self.opinions.nbytes)

    def margin(self, target: int) -> Map | None:
        """Return by how much a class is likelier than all others together, (h,w) in log-odds; None: it is not known."""
        if self.opinions is None or not 0 <= target < len(self.opinions):
            return None
        own = self.opinions[target]
        others = np.log1p(-np.exp(np.minimum(own, -1e-6)))
        return self.enlarged(own - others)

    def enlarged(self, cells: Map) -> Map:
        """Return a map of cells, (r,c) or (r,c,D), at the pixels (h,w)."""
        height, width = self.colours.shape[:2]
        large = cv2.resize(cells, (cells.shape[1] * CELL, cells.shape[0] * CELL), interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(large[:height, :width])


def look(encoded: Encoded, *, is_trained: bool) -> Look:
    """Return what is kept of an image.

    Args:
        is_trained: whether the network learned classes.
    """
    pixels = np.ascontiguousarray(encoded.pixels.permute(1, 2, 0).numpy())
    colours = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) / np.float32(100)
    rows, columns = (-(-side // CELL) for side in encoded.size)
    opinions = None
    if is_trained:
        logits = _padded(encoded.logits, encoded.size)
        cells = functional.interpolate(logits[None], size=(rows, columns), mode="bilinear", antialias=True)[0]
        opinions = cells.log_softmax(dim=0).cpu().numpy()
    return Look(colours, _features(encoded.maps, encoded.size, (rows, columns)), opinions)


def _features(maps: Sequence[Tensor], size: tuple[int, int], cells: tuple[int, int]) -> Map:
    """Return the main directions of maps (D,r,c), each map with the same weight: (rows,columns,D')."""
    chosen = [one for one in maps if _SIDES[0] <= size[0] // one.shape[1] <= _SIDES[1] and one.any()]
    levels = []
    for one in chosen or [maps[-1]]:
        flat = one - one.mean(dim=(1, 2), keepdim=True)
        flat = flat / flat.square().sum(dim=0).mean().sqrt().clamp(min=1e-6)
        levels.append(functional.interpolate(flat[None], size=cells, mode="bilinear")[0])
    joined = torch.cat(levels).flatten(1)  # (D,N)
    values, directions = torch.linalg.eigh(joined @ joined.T / joined.shape[1])
    main = directions[:, -DIMENSIONS:].flip(1)  # (D,D')
    projected = (main.T @ joined) / values[-1].clamp(min=1e-6).sqrt()
    features: Map = projected.T.reshape(*cells, -1).contiguous().cpu().numpy()
    return features


def _padded(logits: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = logits.shape[1:]
    return functional.pad(logits[None], (0, size[1] - width, 0, size[0] - height), mode="replicate")[0]
