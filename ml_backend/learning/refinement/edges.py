"""Maps smoothed along the edges of an image."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Map = npt.NDArray[np.float32]

_SOFTNESS = 1e-4
"""Variance of colours that is no edge, in units of 100 of L*a*b*."""
_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
_SQUARE = [0, 1, 2, 1, 3, 4, 2, 4, 5]


def smoothed(values: Map, guide: Map, radius: int) -> Map:
    """Return values (h,w) filtered along the edges of a guide (h,w,3): He et al. 2013, equations 19 to 21."""

    def mean(of: Map) -> Map:
        blurred = cv2.blur(of, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)
        return np.asarray(blurred, np.float32).reshape(of.shape)

    middle, means = mean(values), mean(guide)
    products = mean(_products(guide)) - _products(means)
    spread = products[..., _SQUARE].reshape(*values.shape, 3, 3) + _SOFTNESS * np.eye(3, dtype=np.float32)
    joint = mean(guide * values[..., None]) - means * middle[..., None]
    slopes = np.linalg.solve(spread, joint[..., None])[..., 0].astype(np.float32)
    offsets = middle - (slopes * means).sum(-1)
    filtered: Map = (mean(slopes) * guide).sum(-1) + mean(offsets)
    return filtered


def _products(values: Map) -> Map:
    products: Map = np.stack([values[..., one] * values[..., other] for one, other in _PAIRS], axis=-1)
    return products
