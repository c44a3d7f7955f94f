"""The mask that agrees with prompts: a network's log-odds, corrected near clicks and where the image looks alike.

The log-odds of the class are a Gaussian process (Rasmussen and Williams 2006, equation 2.38). Its mean is what the
network says, or that nothing is of the class where no network knows it; clicks are what is observed. How far a click
reaches says the covariance: to pixels that are near, of like colour, and of like features of the encoder. What is
between is smoothed along the edges of the image by a guided filter (He et al. 2013), and what is connected to a click
stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ml_backend.learning.refinement.looks import Look, Map
from ml_backend.learning.refinement.prompts import Pixels, Prompt, bounds, settled


@dataclass(frozen=True)
class Reach:
    """How far a click reaches; distances at which covariance falls to 61 %.

    Attributes:
        near: distance in the image, as a share of its longest side.
        colour: distance of colours, in units of 100 of L*a*b*.
        feature: distance of features.
        certainty: log-odds that a click observes.
        trust: most log-odds that the network is heard with.
        doubt: log-odds of a class that no network knows, where nobody clicked.
        smooth: radius of the guided filter, in pixels.
    """

    near: float = 0.15
    colour: float = 0.15
    feature: float = 0.7
    certainty: float = 4.0
    trust: float = 3.0
    doubt: float = -1.5
    smooth: int = 4


REACH = Reach()


def agreed(look: Look, target: int, prompts: Sequence[Prompt], size: tuple[int, int], reach: Reach = REACH) -> Pixels:
    """Return the mask (H,W) of a class.

    Args:
        prompts: of the class, inside the image (`about`).
        size: height and width of the image.
    """
    inside, outside = settled(prompts, *size)
    odds = corrected(look, target, prompts, size, reach)
    odds = smoothed(odds, look.colours, reach.smooth)
    large = cv2.resize(odds, size[::-1], interpolation=cv2.INTER_LINEAR).reshape(size)
    allowed = bounds(prompts, *size)
    mask = ((large > 0) & allowed & ~outside) | inside
    return connected(mask, prompts, inside) & ~outside


def corrected(look: Look, target: int, prompts: Sequence[Prompt], size: tuple[int, int], reach: Reach) -> Map:
    """Return the log-odds of the class (h,w)."""
    margin = look.margin(target)
    height, width = look.colours.shape[:2]
    mean = np.full((height, width), reach.doubt, np.float32)
    if margin is not None:
        mean = np.clip(margin, -reach.trust, reach.trust)
    points, signs = observed(prompts, size, (height, width))
    if not len(points):
        return mean
    traits = _traits(look, reach)  # (h,w,K)
    at = traits[points[:, 0], points[:, 1]]  # (N,K)
    own = _covariance(at, at)
    missing = reach.certainty * signs - mean[points[:, 0], points[:, 1]]
    missing = np.where(signs * missing > 0, missing, 0)
    weights = np.linalg.solve(own + 0.05 * np.eye(len(points), dtype=np.float32), missing)
    flat = traits.reshape(-1, traits.shape[-1])
    corrections: Map = (_covariance(flat, at) @ weights.astype(np.float32)).reshape(height, width)
    return mean + corrections


def observed(
    prompts: Sequence[Prompt], size: tuple[int, int], small: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], Map]:
    """Return rows and columns (N,2) of the small image at which something is observed, and whether it is there (N)."""
    found: dict[tuple[int, int], float] = {}
    for prompt in prompts:
        row, column = prompt.centre
        place = row * small[0] // size[0], column * small[1] // size[1]
        found.pop(place, None)
        found[place] = 1.0 if prompt.is_positive else -1.0
    return np.array(list(found), np.int64).reshape(-1, 2), np.array([*found.values()], np.float32)


def _traits(look: Look, reach: Reach) -> Map:
    height, width = look.colours.shape[:2]
    rows, columns = np.indices((height, width), np.float32) / (max(height, width) * reach.near)
    features = look.enlarged(look.features) / reach.feature
    traits: Map = np.concatenate(
        [np.dstack([rows, columns]), look.colours / reach.colour, features], axis=2, dtype=np.float32
    )
    return traits


def _covariance(one: Map, other: Map) -> Map:
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
    covariance: Map = np.exp(-0.5 * np.maximum(squares, 0))
    return covariance


def smoothed(values: Map, guide: Map, radius: int, softness: float = 1e-4) -> Map:
    """Filter values (h,w) along the edges of a guide (h,w,3)."""

    def mean(of: Map) -> Map:
        blurred = cv2.blur(of, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)
        return np.asarray(blurred, np.float32).reshape(of.shape)

    middle = mean(values)
    means = mean(guide).reshape(guide.shape)
    products = mean(np.dstack([guide[..., i] * guide[..., j] for i, j in _PAIRS])) - np.dstack(
        [means[..., i] * means[..., j] for i, j in _PAIRS]
    )
    spread = products[..., _SQUARE].reshape(*values.shape, 3, 3) + softness * np.eye(3, dtype=np.float32)
    joint = mean(guide * values[..., None]).reshape(guide.shape) - means * middle[..., None]
    slope = np.linalg.solve(spread, joint[..., None])[..., 0]
    offset = middle - (slope * means).sum(-1)
    lines = mean(slope.astype(np.float32)).reshape(guide.shape) * guide
    filtered: Map = lines.sum(-1) + mean(offset.astype(np.float32))
    return filtered


_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
_SQUARE = [0, 1, 2, 1, 3, 4, 2, 4, 5]


def connected(mask: Pixels, prompts: Sequence[Prompt], inside: Pixels) -> Pixels:
    """Return the parts of a mask that a positive prompt touches; all of it without one."""
    wanted = inside.copy()
    for prompt in prompts:
        if prompt.is_positive and not prompt.is_point:
            wanted[prompt.area] = True
    if not wanted.any():
        return mask
    _, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return mask & np.isin(parts, np.unique(parts[wanted & mask]))
