"""Object-level F1 and Dice of the GlaS challenge (Sirinukunwattana et al., Medical Image Analysis 35, 2017, section 3).

Objects are given as maps (H, W) of integers: 0 is background, every other number an object. Numbers carry no meaning:
ties between equal overlaps go to the object that comes first in reading order, so renumbering changes nothing.

- F1: a predicted object belongs to the true object that it overlaps most, and is a true positive when it covers at
  least half of it; every other predicted object is a false positive, every true object without a true positive a false
  negative. Two predictions that cover exactly half of one object each are one true and one false positive; the
  organisers' program asks for more than half and so counts neither, their text says "at least 50%".
- Dice: of every predicted object with the true one that it overlaps most, weighted by its area, and the same from the
  true objects to the predicted ones; the mean of the two. An object that overlaps none counts 0.

Over several images the challenge takes the objects of all of them together: counts are added before F1 is formed, and
an object's weight is its share in the area of all objects of all images.

Neither true nor predicted objects: both measures are 1. Only one of the two: both are 0, as in the organisers' program.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Objects = npt.NDArray[np.integer]
_Counts = npt.NDArray[np.int64]
_COVERED = 0.5  # share of a true object that a true positive covers


@dataclass(frozen=True)
class ObjectScores:
    """Sums over the objects of some images; add those of several images to measure all together.

    Attributes:
        true_positives, false_positives, false_negatives: numbers of objects.
        truth_area, predicted_area: pixels of all true and of all predicted objects.
        truth_dice, predicted_dice: sum of area times Dice over the true and over the predicted objects.
    """

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0
    truth_area: int = 0
    predicted_area: int = 0
    truth_dice: float = 0.0
    predicted_dice: float = 0.0

    def __add__(self, other: ObjectScores) -> ObjectScores:
        return ObjectScores(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
            self.truth_area + other.truth_area,
            self.predicted_area + other.predicted_area,
            self.truth_dice + other.truth_dice,
            self.predicted_dice + other.predicted_dice,
        )

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall of objects, in [0, 1]."""
        objects = 2 * self.true_positives + self.false_positives + self.false_negatives
        return 2 * self.true_positives / objects if objects else 1.0

    @property
    def dice(self) -> float:
        """Object-level Dice, in [0, 1]."""
        if self.truth_area == 0 or self.predicted_area == 0:
            return float(self.truth_area == self.predicted_area)
        return (self.truth_dice / self.truth_area + self.predicted_dice / self.predicted_area) / 2


def object_scores(truth: Objects, predicted: Objects, ignored: npt.NDArray[np.bool_] | None = None) -> ObjectScores:
    """Return the sums of an image.

    Args:
        truth: (H, W) integers, 0 is background, every other number an object.
        predicted: (H, W), likewise.
        ignored: (H, W) bool, pixels that are left out of both; None: none.

    Raises:
        ValueError: the shapes differ.
    """
    if truth.shape != predicted.shape or (ignored is not None and ignored.shape != truth.shape):
        shapes = [truth.shape, predicted.shape, *([] if ignored is None else [ignored.shape])]
        raise ValueError(f"objects and ignored pixels must have one shape, got {shapes}")
    truth_index, truth_areas = _numbered(truth, ignored)
    predicted_index, predicted_areas = _numbered(predicted, ignored)
    overlaps = _overlaps(truth_index, predicted_index, len(predicted_areas))
    hits = _true_positives(overlaps, truth_areas)
    return ObjectScores(
        true_positives=hits,
        false_positives=len(predicted_areas) - hits,
        false_negatives=len(truth_areas) - hits,
        truth_area=int(truth_areas.sum()),
        predicted_area=int(predicted_areas.sum()),
        truth_dice=_weighted_dice(overlaps, truth_areas, predicted_areas),
        predicted_dice=_weighted_dice(overlaps[:, [1, 0, 2]], predicted_areas, truth_areas),
    )


def instances_of(
    mask: npt.NDArray[np.uint8], class_index: int, ignored: npt.NDArray[np.bool_] | None = None, minimum_area: int = 0
) -> npt.NDArray[np.int32]:
    """Return the objects (H, W) of a class: its parts, numbered from 1, whose pixels touch by a side or a corner.

    Corners count, as for the parts of a mask elsewhere (`ml_backend.annotations.clicks`).

    Args:
        mask: (H, W) class indices.
        class_index: the class.
        ignored: (H, W), pixels that belong to no object. They are removed before parts are formed, so an object that
            they cut is two, in truth and prediction alike.
        minimum_area: smaller parts become background, in pixels.
    """
    pixels = mask == class_index
    if ignored is not None:
        pixels &= ~ignored
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)
    kept = statistics[:, cv2.CC_STAT_AREA] >= minimum_area
    kept[0] = False  # the background
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    objects: npt.NDArray[np.int32] = numbers[parts]
    return objects


def _numbered(objects: Objects, ignored: npt.NDArray[np.bool_] | None) -> tuple[_Counts, _Counts]:
    """Renumber objects from 0 in reading order: (H*W,) numbers, -1 where there is none, and their areas (N,)."""
    flat = (objects if ignored is None else np.where(ignored, 0, objects)).ravel()
    pixels = np.flatnonzero(flat)
    _, first, inverse, areas = np.unique(flat[pixels], return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)
    index = np.full(flat.shape, -1, dtype=np.int64)
    index[pixels] = np.argsort(order)[inverse]
    return index, areas[order].astype(np.int64)


def _overlaps(truth: _Counts, predicted: _Counts, predictions: int) -> _Counts:
    """Return the pairs that overlap: (K, 3) true object, predicted object, shared pixels; sorted by the pair."""
    both = (truth >= 0) & (predicted >= 0)
    pairs, shared = np.unique(truth[both] * max(1, predictions) + predicted[both], return_counts=True)
    return np.stack([*np.divmod(pairs, max(1, predictions)), shared], axis=1)  # (K, 3)


def _best(overlaps: _Counts, column: int) -> _Counts:
    """Returns, for each object of a column that overlaps any, its largest overlap, the first among equals: (N, 3)."""
    other = 1 - column
    order = np.lexsort((overlaps[:, other], -overlaps[:, 2], overlaps[:, column]))
    ranked = overlaps[order]
    _, first = np.unique(ranked[:, column], return_index=True)
    best: _Counts = ranked[first]
    return best


def _true_positives(overlaps: _Counts, truth_areas: _Counts) -> int:
    """Return how many true objects are covered by a predicted object that belongs to them."""
    best = _best(overlaps, column=1)
    covered = best[:, 2] >= _COVERED * truth_areas[best[:, 0]]
    return len(np.unique(best[covered, 0]))


def _weighted_dice(overlaps: _Counts, areas: _Counts, other_areas: _Counts) -> float:
    """Return the sum of area times Dice over the objects of the first column, each with its largest overlap."""
    own, other, shared = _best(overlaps, column=0).T
    return float((areas[own] * 2 * shared / (areas[own] + other_areas[other])).sum())
