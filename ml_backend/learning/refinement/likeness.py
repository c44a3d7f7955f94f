"""How alike places are to those that were clicked on: kernel ridge regression on colours and features.

Places around positive clicks are 1, those around negative clicks -1. So are some places of the whole image, which are
hardly listened to: most of an image is not the object.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Map = npt.NDArray[np.float32]

_AROUND = 20
"""Cells around the clicks that are observed, of either kind."""
_ANYWHERE, _ANYWHERE_WEIGHT = 150, 0.3
_SCALE, _NOISE, _MIDDLE = 0.5, 1.0, -0.5
"""Length of the kernel, in standard deviations of the image; variance of an observation; likeness of what is unlike."""


def traits(colours: Map, features: Map) -> Map:
    """Return what places are compared by, (N,T), of colours (r,c,3) and features (r,c,D): each with variance 1."""
    parts = []
    for values in (colours, features):
        flat = values.reshape(-1, values.shape[-1])
        flat = flat - flat.mean(0)
        parts.append(flat / max(float(np.sqrt(flat.var(0).sum())), 1e-6))
    joined: Map = np.concatenate(parts, axis=1, dtype=np.float32)
    return joined


def likeness(places: Map, to_positive: Map, to_negative: Map, reach: float) -> Map:
    """Return how alike each place is to positive clicks rather than to negative ones, (N) of about -1 to 1.

    Args:
        places: (N,T), of `traits`.
        to_positive: (N) distances from positive clicks; `reach` where there is none near.
        to_negative: (N) distances from negative clicks.
    """
    positive, negative = _nearest(to_positive, reach), _nearest(to_negative, reach)
    anywhere = np.random.default_rng(0).permutation(len(places))[:_ANYWHERE]
    observed = places[np.concatenate([positive, negative, anywhere])]
    values = np.repeat([1.0, -1.0, -1.0], [len(positive), len(negative), len(anywhere)])
    weights = np.repeat([1.0, 1.0, _ANYWHERE_WEIGHT], [len(positive), len(negative), len(anywhere)])
    among = _kernel(observed, observed) + np.diag(_NOISE / weights)
    slopes = np.linalg.solve(among, values - _MIDDLE).astype(np.float32)
    alike: Map = _kernel(places, observed) @ slopes + np.float32(_MIDDLE)
    return alike


def _nearest(distances: Map, reach: float) -> npt.NDArray[np.intp]:
    near = np.argpartition(distances, min(_AROUND, len(distances) - 1))[:_AROUND]
    return near[distances[near] < reach]


def _kernel(one: Map, other: Map) -> Map:
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
    kernel: Map = np.exp(-np.maximum(squares, 0) / np.float32(4 * _SCALE**2))
    return kernel
