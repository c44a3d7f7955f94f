"""A simulated annotator who clicks on the centre of the largest error; and what is clicked without a network."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from clicked import Object, Pixels
from numpy.typing import NDArray

from ml_backend.annotations.masks import touched
from ml_backend.learning.networks import fit_size
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.learning.refinement.prompts import Prompt

MOST_CLICKS = 20
Answer = Callable[[Object, Sequence[Prompt], Pixels], Pixels]
"""What answers clicks, and what was drawn before the last one."""

_DISC, _NEAR = 3, 0.1
"""Radius of a click for GrabCut and the random walker, in pixels; and of what GrabCut takes for likely, as a share of
the image's longest side."""


def played(item: Object, answer: Answer, start: Pixels | None = None, until: float = 0.9) -> list[float]:
    """Click until a mask is good; return IoU before the first click and after each.

    Args:
        start: the mask before the first click; None: an empty one.
        until: IoU at which nobody clicks any more.
    """
    mask = np.zeros_like(item.truth) if start is None else start
    found, prompts = [overlap(mask, item)], list[Prompt]()
    while found[-1] < until and len(prompts) < MOST_CLICKS:
        prompts.append(next_click(mask, item))
        mask = answer(item, prompts, mask)
        found.append(overlap(mask, item))
    return found


def overlap(mask: Pixels, item: Object) -> float:
    """Return IoU on the pixels that somebody labelled."""
    mask = mask & ~item.ignored
    return float((mask & item.truth).sum() / (mask | item.truth).sum())


def next_click(mask: Pixels, item: Object) -> Prompt:
    """Return a click where the largest connected part of the error is thickest."""
    missing, superfluous = item.truth & ~mask, mask & ~item.truth & ~item.ignored
    parts = [(_largest(wrong), is_missing) for wrong, is_missing in ((missing, True), (superfluous, False))]
    part, is_missing = max(parts, key=lambda one: int(one[0].sum()))
    depth = cv2.distanceTransform(np.pad(part.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = divmod(int(depth.argmax()), depth.shape[1])
    return Prompt.click(item.klass, row, column, is_positive=is_missing)


def _largest(pixels: Pixels) -> Pixels:
    count, parts, statistics, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)
    if count == 1:
        return pixels
    largest: Pixels = parts == 1 + statistics[1:, cv2.CC_STAT_AREA].argmax()
    return largest


def network_alone(item: Object, predictor: Predictor) -> float:
    """Return IoU of the part of the network's mask that the first click is in, without any refinement."""
    first = next_click(np.zeros_like(item.truth), item)
    (prediction,) = predictor.predict([item.image])
    return overlap(_touched(prediction.mask == item.klass, [first]), item)


def predicted(item: Object, predictor: Predictor) -> Pixels:
    """Return the parts of the network's mask that hold something of an object: what a person opens and mends."""
    (prediction,) = predictor.predict([item.image])
    return touched(prediction.mask == item.klass, item.truth)


# -- without a network -------------------------------------------------------------------------------------------------
def grab_cut(item: Object, prompts: Sequence[Prompt], _: Pixels) -> Pixels:
    """Cut by colours from the clicks; near those on the object, pixels are likely of it, others likely not."""
    image, places = shrunk(item, prompts, 256)
    marks = np.full(image.shape[:2], cv2.GC_PR_BGD, np.uint8)
    for (row, column), is_positive in places:
        if is_positive:
            cv2.circle(marks, (column, row), round(_NEAR * max(marks.shape)), int(cv2.GC_PR_FGD), -1)
    for (row, column), is_positive in places:
        cv2.circle(marks, (column, row), _DISC, int(cv2.GC_FGD if is_positive else cv2.GC_BGD), -1)
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cut, *_ = cv2.grabCut(image[..., ::-1].copy(), marks, None, *models, 3, cv2.GC_INIT_WITH_MASK)
    return enlarged(np.isin(cut, (cv2.GC_FGD, cv2.GC_PR_FGD)), item, prompts)


def random_walker(item: Object, prompts: Sequence[Prompt], _: Pixels) -> Pixels:
    """Walk from each pixel to the clicks, along like colours; until a click is negative, to the border, too."""
    from skimage.segmentation import random_walker as walk

    image, places = shrunk(item, prompts, 256)
    marks = np.zeros(image.shape[:2], np.uint8)
    if all(prompt.is_positive for prompt in prompts):
        marks[[0, -1]] = marks[:, [0, -1]] = 2
    for (row, column), is_positive in places:
        cv2.circle(marks, (column, row), _DISC, 1 if is_positive else 2, -1)
    if not {1, 2} <= set(np.unique(marks).tolist()):
        return enlarged(marks == 1, item, prompts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells that its solver is slow, and of rounding
        found: NDArray[np.integer] = walk(image / 255.0, marks, beta=130, mode="cg_j", channel_axis=-1)
    return enlarged(found == 1, item, prompts)


def shrunk(
    item: Object, prompts: Sequence[Prompt], longest: int
) -> tuple[NDArray[np.uint8], list[tuple[tuple[int, int], bool]]]:
    """Return the image with a longest side, and the clicks in it: row and column, and whether they are positive."""
    height, width = item.truth.shape
    rows, columns = fit_size(height, width, longest)
    image = cv2.resize(item.image, (columns, rows), interpolation=cv2.INTER_AREA)
    places = [((prompt.top * rows // height, prompt.left * columns // width), prompt.is_positive) for prompt in prompts]
    return np.asarray(image, np.uint8), places


def enlarged(mask: Pixels, item: Object, prompts: Sequence[Prompt]) -> Pixels:
    """Return a mask at the size of the image: the connected parts that a positive click is in."""
    large = cv2.resize(mask.astype(np.float32), item.truth.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
    return _touched(large, prompts)


def _touched(mask: Pixels, prompts: Sequence[Prompt]) -> Pixels:
    """Return the connected parts of a mask that a positive click is in."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    clicked = {int(parts[prompt.centre]) for prompt in prompts if prompt.is_positive} - {0}
    return np.isin(parts, list(clicked))
