"""The mask that agrees with prompts.

What is of the class is a sum of log-odds: what the network says, heard up to a limit; how alike a place is to those
that were clicked on; and whose click is nearer, along paths that cross few edges. The last one is what cuts objects
apart that the network takes for one, and it ends at some distance: far from all clicks, the network decides alone. The
sum is smoothed along the image's edges, and what is connected to a positive prompt, or was drawn before, stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from ml_backend.annotations.masks import touched
from ml_backend.learning.refinement.edges import smoothed
from ml_backend.learning.refinement.likeness import likeness
from ml_backend.learning.refinement.looks import Look
from ml_backend.learning.refinement.prompts import Pixels, Prompt, bounds, settled

Map = npt.NDArray[np.float32]
Size = tuple[int, int]

TRUST: Final = 3.0
"""Most log-odds that the network is heard with."""
NEARNESS: Final = 6.0
"""Log-odds at a click: more than the network has."""
LIKENESS: Final = {True: 1.5, False: 3.0}
"""Log-odds of what is alike, by whether a network knows the class."""
_RADIUS: Final = 7
"""Most pixels of the network's image on each side over which is smoothed."""
_RADIUS_SHARE: Final = 0.1
"""The same as a share of the side of a square as large as the object: small ones would be smoothed away."""


def agreed(look: Look, target: int, prompts: Sequence[Prompt], size: Size, drawn: Pixels | None = None) -> Pixels:
    """Return the mask (H,W) of a class.

    Args:
        prompts: of the class, inside the image (`about`).
        size: height and width of the image.
        drawn: (H,W) what is drawn of the class and is to be mended; None: nothing.
    """
    odds = log_odds(look, target, prompts, size, drawn)
    odds = smoothed(odds, look.colours, _radius(odds > 0, prompts, size))
    large = cv2.resize(odds, size[::-1], interpolation=cv2.INTER_LINEAR).reshape(size)
    return connected(large > 0, prompts, drawn)


def connected(mask: Pixels, prompts: Sequence[Prompt], drawn: Pixels | None = None) -> Pixels:
    """Return a mask (H,W) that no prompt contradicts: what is connected to a positive prompt, or was drawn before.

    Boxes say nothing of what is drawn around them.
    """
    size = (mask.shape[0], mask.shape[1])
    inside, outside = settled(prompts, *size)
    allowed = bounds(prompts, *size)
    held = np.zeros(size, np.bool_) if drawn is None else drawn
    mask = (((mask & allowed) | (held & ~allowed)) & ~outside) | inside
    wanted = inside | held
    for prompt in prompts:
        if prompt.is_positive:
            wanted[prompt.area] = True
    return touched(mask, wanted) if wanted.any() else mask


def log_odds(look: Look, target: int, prompts: Sequence[Prompt], size: Size, drawn: Pixels | None = None) -> Map:
    """Return the log-odds of the class (h,w), not smoothed. Where it is drawn, a network's doubt is not heard."""
    height, width = look.colours.shape[:2]
    margin = look.margin(target)
    odds = np.zeros((height, width), np.float32) if margin is None else np.clip(margin, -TRUST, TRUST)
    if drawn is not None:
        share = cv2.resize(drawn.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        odds = np.where(share.reshape(height, width) > 0.5, np.maximum(odds, 0), odds)
    positive, negative = seeds(prompts, size, look.paths.shape)
    if not positive.any() and not negative.any():
        return odds if margin is not None else odds - 1
    to_positive, to_negative = look.paths.distances(positive), look.paths.distances(negative)
    nearness = (to_negative - to_positive) / np.maximum(to_negative + to_positive, np.float32(1e-6))
    alike = likeness(look.places, to_positive.ravel(), to_negative.ravel(), look.paths.reach)
    said = np.float32(NEARNESS) * nearness + np.float32(LIKENESS[margin is not None]) * alike.reshape(nearness.shape)
    corrected: Map = odds + cv2.resize(said, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width)
    return corrected


def seeds(prompts: Sequence[Prompt], size: Size, cells: Size) -> tuple[Pixels, Pixels]:
    """Return the cells (r,c) that are of the class, and those that are not; in each the last prompt counts.

    The middle third of a positive box is of the class, unless something was clicked on in it; what surrounds the box is
    not.
    """
    marks = np.zeros(cells, np.int8)
    clicks = [prompt for prompt in prompts if prompt.is_point or not prompt.is_positive]
    for box in (prompt for prompt in prompts if prompt.is_positive and not prompt.is_point):
        area = _cells(box, size, cells)
        around = np.zeros(cells, np.uint8)
        around[area] = 1
        marks[(cv2.dilate(around, np.ones((3, 3), np.uint8)) > around) & (marks == 0)] = -1
        if not any(box.holds(click) for click in clicks):
            marks[_cells(_middle(box), size, cells)] = 1
    for click in clicks:
        marks[_cells(click, size, cells)] = 1 if click.is_positive else -1
    return marks > 0, marks < 0


def _cells(prompt: Prompt, size: Size, cells: Size) -> tuple[slice, slice]:
    """Return the cells that a prompt touches."""
    rows = slice(prompt.top * cells[0] // size[0], (prompt.bottom - 1) * cells[0] // size[0] + 1)
    return rows, slice(prompt.left * cells[1] // size[1], (prompt.right - 1) * cells[1] // size[1] + 1)


def _middle(box: Prompt) -> Prompt:
    """Return the middle third of a box, in each direction."""
    height, width = box.bottom - box.top, box.right - box.left
    top, left = box.top + height // 3, box.left + width // 3
    return replace(box, top=top, left=left, bottom=top + max(1, height // 3), right=left + max(1, width // 3))


def _radius(mask: Pixels, prompts: Sequence[Prompt], size: Size) -> int:
    """Return the radius for the parts of a mask (h,w) that positive prompts touch."""
    wanted = np.zeros(mask.shape, np.bool_)
    for prompt in prompts:
        if prompt.is_positive:
            wanted[_cells(prompt, size, mask.shape)] = True
    area = float(touched(mask, wanted).sum()) if wanted.any() else float(mask.size)
    return int(np.clip(round(_RADIUS_SHARE * area**0.5), 1, _RADIUS))
