"""Chooses the annotations of a task that count, and combines the masks of several annotators by majority."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ml_backend.annotations.fields import annotator_of
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.annotations.masks import Mask
from ml_backend.errors import MaskError

Policy = Literal["newest", "ground_truth", "majority"]
Annotation = Mapping[str, Any]


def annotations_that_count(annotations: Iterable[Annotation], policy: Policy) -> list[Annotation]:
    """Return the annotations that make the label of a task, the newest first; an empty list when nobody submitted any.

    Skips never count. Id and lead time of the label are those of the first annotation.

    Args:
        annotations: all annotations of a task.
        policy: "newest": only the newest counts. "ground_truth": only the newest ground truth, or the newest when
            there is none. "majority": only the newest ground truth, or the newest of each annotator when there is none.

    >>> first = {"id": 1, "completed_by": 7, "updated_at": "1", "ground_truth": True}
    >>> second = {"id": 2, "completed_by": 8, "updated_at": "2"}
    >>> [row["id"] for row in annotations_that_count([first, second], "newest")]
    [2]
    >>> [row["id"] for row in annotations_that_count([first, second], "majority")]
    [1]
    """
    submitted = (row for row in annotations if not row.get("was_cancelled"))
    newest_first = sorted(submitted, key=_age, reverse=True)
    truths = [row for row in newest_first if row.get("ground_truth")]
    if policy != "newest" and truths:
        return truths[:1]
    return _newest_of_each(newest_first) if policy == "majority" else newest_first[:1]


def majority(masks: Sequence[Mask], votes: Sequence[NDArray[np.bool_] | None] = ()) -> Mask:
    """Return the mask (H,W) that most of the masks agree on, pixel by pixel.

    The newest of tied masks wins. IGNORE_INDEX counts as a value like any class.

    Args:
        masks: (H,W) uint8, one per annotator, the newest first.
        votes: for each mask the pixels that its annotator was asked about, (H,W) bool; None or no entry: all pixels.
            Pixels that nobody was asked about become IGNORE_INDEX.

    Raises:
        MaskError: no mask, or masks of different sizes.
    """
    if len({mask.shape for mask in masks}) != 1:
        sizes = ", ".join(f"{mask.shape[1]} x {mask.shape[0]}" for mask in masks) or "none"
        raise MaskError(f"the masks of a task's annotators must have one size: {sizes}")
    asked = [*votes, *([None] * (len(masks) - len(votes)))]
    best, most = np.full_like(masks[0], IGNORE_INDEX), np.zeros(masks[0].shape, np.int16)
    for mask, ours in zip(masks, asked, strict=True):
        count = np.zeros(mask.shape, np.int16)
        for other, theirs in zip(masks, asked, strict=True):
            count += _within(other == mask, theirs)
        better = _within(count > most, ours)
        best[better], most[better] = mask[better], count[better]
    return best


def _within(pixels: NDArray[np.bool_], inside: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    return pixels if inside is None else pixels & inside


def _age(annotation: Annotation) -> tuple[str, int]:
    return str(annotation.get("updated_at") or annotation.get("created_at") or ""), int(annotation["id"])


def _newest_of_each(newest_first: Iterable[Annotation]) -> list[Annotation]:
    """Keep the newest annotation of each annotator, and every annotation whose annotator is unknown."""
    kept: dict[object, Annotation] = {}
    for annotation in newest_first:
        annotator = annotator_of(annotation)
        kept.setdefault(("unknown", annotation["id"]) if annotator is None else annotator, annotation)
    return list(kept.values())
