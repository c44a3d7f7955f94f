"""What a network makes of an image, as prompts need it: colours, features of its places, opinions on classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ml_backend.learning.prediction.predictor import Encoded
from ml_backend.learning.refinement.likeness import traits
from ml_backend.learning.refinement.paths import Paths, paths

Map = npt.NDArray[np.float32]

CELL: Final = 2
"""Side of a cell of the graph, in pixels of the image as the network sees it."""
_COARSE: Final = 4
"""Side of a cell of features and opinions, likewise."""
_COARSEST: Final = 16
"""Cells of the encoder's maps that are listened to: finer than `_COARSE` they are colours, coarser than this a blur."""
_DIMENSIONS: Final = 16
_COLOUR: Final = {True: 1.0, False: 3.0}
"""Weight of colours on paths, by whether a network learned classes; and that of features."""
_FEATURE: Final = 0.3


@dataclass(frozen=True, eq=False)
class Look:
    """An image as the network sees it.

    Attributes:
        colours: (h,w,3) float32, L*a*b* in units of 100.
        opinions: (C,r,c) float32, log-probabilities of the classes in coarse cells; None before the first training.
        paths: the graph of cells, R rows and S columns.
        places: (R·S,T) float32, what cells are compared by.
    """

    colours: Map
    opinions: Map | None
    paths: Paths
    places: Map

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        opinions = 0 if self.opinions is None else self.opinions.nbytes
        return self.colours.nbytes + opinions + self.paths.nbytes + self.places.nbytes

    def margin(self, target: int) -> Map | None:
        """Return by how much a class is likelier than all others together, (h,w) in log-odds; None: it is not known."""
        if self.opinions is None or not 0 <= target < len(self.opinions) or len(self.opinions) == 1:
            return None
        own = np.minimum(self.opinions[target], np.float32(-1e-6))
        return _enlarged(own - np.log(-np.expm1(own)), self.colours.shape[:2])


def look(encoded: Encoded, *, is_trained: bool) -> Look:
    """Return what is kept of an image.

    Args:
        is_trained: whether the network learned classes.
    """
    pixels = np.ascontiguousarray(encoded.pixels.permute(1, 2, 0).cpu().numpy())
    colours = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) / np.float32(100)
    features = _features(encoded.maps, encoded.size)
    opinions = _opinions(encoded.logits, encoded.size) if is_trained else None
    return look_of(colours, features, opinions)


def look_of(colours: Map, features: Map, opinions: Map | None) -> Look:
    """Put together a look at colours (h,w,3) with features (r,c,D) and opinions (C,r,c) of coarse cells."""
    height, width = colours.shape[:2]
    cells = max(1, height // CELL), max(1, width // CELL)
    fine: Map = cv2.resize(colours, cells[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    near = _sampled(features, (height, width), cells)
    shares = None
    if opinions is not None:
        shares = _sampled(np.exp(opinions).transpose(1, 2, 0), (height, width), cells)
    graph = paths(fine, near, shares, colour=_COLOUR[opinions is not None], feature=_FEATURE)
    return Look(colours, opinions, graph, traits(fine, near))


def _features(maps: Sequence[Tensor], size: tuple[int, int]) -> Map:
    """Return the main directions of maps (D,r,c), each map with the same weight, in coarse cells: (r,c,D')."""
    chosen = [one for one in maps if _COARSE <= size[0] // one.shape[1] <= _COARSEST and one.any()]
    levels = []
    for one in chosen or [maps[-1]]:
        centred = one - one.mean(dim=(1, 2), keepdim=True)
        scaled = centred / centred.square().sum(dim=0).mean().sqrt().clamp(min=1e-6)
        levels.append(functional.interpolate(scaled[None], size=_coarse(size), mode="bilinear")[0])
    joined = torch.cat(levels).flatten(1)  # (D,N)
    values, directions = torch.linalg.eigh(joined @ joined.T / joined.shape[1])
    main = directions[:, -_DIMENSIONS:].flip(1)  # (D,D')
    projected = (main.T @ joined) / values[-1].clamp(min=1e-6).sqrt()
    features: Map = projected.T.reshape(*_coarse(size), -1).contiguous().cpu().numpy()
    return features


def _opinions(logits: Tensor, size: tuple[int, int]) -> Map:
    """Return log-probabilities in coarse cells, (C,r,c), of logits (C,h,w)."""
    height, width = logits.shape[1:]
    padded = functional.pad(logits[None], (0, size[1] - width, 0, size[0] - height), mode="replicate")
    cells = functional.interpolate(padded, size=_coarse(size), mode="bilinear", antialias=True)[0]
    opinions: Map = cells.log_softmax(dim=0).cpu().numpy()
    return opinions


def _coarse(size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // _COARSE), -(-size[1] // _COARSE)


def _enlarged(cells: Map, size: tuple[int, int]) -> Map:
    """Return a map (r,c) or (r,c,D) of coarse cells at the pixels (h,w)."""
    full = cells.shape[1] * _COARSE, cells.shape[0] * _COARSE
    large = cv2.resize(np.ascontiguousarray(cells), full, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(large.reshape(full[1], full[0], *cells.shape[2:])[: size[0], : size[1]])


def _sampled(coarse: Map, size: tuple[int, int], cells: tuple[int, int]) -> Map:
    """Return a map (r,c,D) of coarse cells at the middles of the graph's cells."""
    first = min(CELL // 2, size[0] - 1, size[1] - 1)
    sampled = _enlarged(coarse, size)[first::CELL, first::CELL][: cells[0], : cells[1]]
    return np.ascontiguousarray(sampled)
