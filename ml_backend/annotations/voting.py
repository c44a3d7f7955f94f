"""Which annotations of a task count, and what several annotators say together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ml_backend.annotations.boxes import WHOLE_IMAGE, boxes_from_text, boxes_to_text, inside
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.annotations.masks import Mask, mask_from_png, png_bytes
from ml_backend.errors import MaskError
from ml_backend.store import Task

Policy = Literal["newest", "ground_truth", "majority"]
Annotation = Mapping[str, Any]


def annotations_that_count(annotations: Iterable[Annotation], policy: Policy) -> list[Annotation]:
    """Return the annotations that make a task's label, the newest first; none where nobody submitted one.

    Skips never count. The first one is that whose id and lead time are recorded.

    Args:
        annotations: of one task.
        policy: "newest": the newest one. "ground_truth": the newest ground truth, without one the newest.
            "majority": the newest ground truth alone, without one the newest of each annotator.

    >>> first = {"id": 1, "completed_by": 7, "updated_at": "1", "ground_truth": True}
    >>> second = {"id": 2, "completed_by": 8, "updated_at": "2"}
    >>> [[one["id"] for one in annotations_that_count([first, second], policy)] for policy in ("newest", "majority")]
    [[2], [1]]
    """
    newest_first = sorted((one for one in annotations if not one.get("was_cancelled")), key=_age, reverse=True)
    truths = [one for one in newest_first if one.get("ground_truth")]
    if policy != "newest" and truths:
        return truths[:1]
    return _newest_of_each(newest_first) if policy == "majority" else newest_first[:1]


def majority(masks: Sequence[Mask], votes: Sequence[NDArray[np.bool_] | None] = ()) -> Mask:
    """Return the mask (H,W) that most of the masks agree on, pixel by pixel.

    A tie goes to the newest of the tied masks. IGNORE_INDEX is an opinion like any class: a pixel that most leave out
    is left out.

    Args:
        masks: (H,W) uint8 each, the newest first, one per annotator.
        votes: (H,W) bool for each mask, the pixels that its annotator was asked about; None (or no entry): all.
            A pixel that nobody was asked about is IGNORE_INDEX.

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


def vote(read: Sequence[Task]) -> tuple[bytes, str]:
    """Return the majority of the masks that annotators drew for one task.

    Args:
        read: the task as each of them labels it, the newest first.

    Returns:
        the mask as PNG, and the boxes that it covers as the store keeps them.

    Raises:
        MaskError: their masks differ in size.
    """
    masks = [mask_from_png(Path(one.mask_file).read_bytes()) for one in read]
    asked = [boxes_from_text(one.boxes) for one in read]
    sizes = [(mask.shape[0], mask.shape[1]) for mask in masks]
    votes = [inside(boxes, size) if boxes else None for boxes, size in zip(asked, sizes, strict=True)]
    together = dict.fromkeys(box for boxes in asked for box in boxes)
    return png_bytes(majority(masks, votes)), boxes_to_text(together) if all(asked) else WHOLE_IMAGE


def _within(pixels: NDArray[np.bool_], inside: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    return pixels if inside is None else pixels & inside


def _age(annotation: Annotation) -> tuple[str, int]:
    return str(annotation.get("updated_at") or annotation.get("created_at") or ""), int(annotation["id"])


def _newest_of_each(newest_first: Iterable[Annotation]) -> list[Annotation]:
    """Keep one annotation per annotator; one of an annotator who is not known (any more) stands alone."""
    kept: dict[object, Annotation] = {}
    for one in newest_first:
        who = one.get("completed_by")
        who = who.get("id") if isinstance(who, Mapping) else who
        kept.setdefault(("unknown", one["id"]) if who is None else who, one)
    return list(kept.values())
