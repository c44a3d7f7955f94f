"""Relates the mask of an annotation to what its annotator was shown: agreement, boxes, and the starting mask.

`masks` paints the mask itself; `query_regions` reads the boxes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Box, covered_pixels
from ml_backend.annotations.fields import regions_of
from ml_backend.annotations.key_points import Answer, read_points
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap
from ml_backend.annotations.regions import mask_regions
from ml_backend.annotations.voting import Annotation


def agreement_with(
    before: bytes | None, mask: masks.Mask, label_map: LabelMap, *, minimum_area: int, tolerance: float
) -> float | None:
    """Return the agreement of a label with the mask that was shown.

    Annotators see what the regions of a prediction paint: without specks, and with simplified polygons. That is what
    the label is compared with, so that a mask that was kept agrees in full.

    Args:
        before: the mask that was predicted, a PNG of class indices; None when it is unknown.
        mask: (H,W) uint8, the label.
        minimum_area, tolerance: as of `masks.write_result`.

    Returns:
        Mean IoU in [0, 1]; None when no mask is known, its size or classes differ, or no pixel is known in both.

    Raises:
        MaskError: `before` is no PNG of a mask.
    """
    predicted = None if before is None else _fitting(masks.mask_from_png(before), mask.shape, label_map)
    if predicted is None:
        return None
    shown = masks.as_written(predicted, label_map, minimum_area=minimum_area, tolerance=tolerance)
    return masks.agreement(shown, mask, len(label_map.classes))


def is_unchanged(result: Sequence[object], predicted: Sequence[object], label_map: LabelMap) -> bool | None:
    """Whether an annotation consists of the masks of a prediction, as they were, by what Label Studio says of each.

    Args:
        result: of the annotation.
        predicted: of the prediction that it started from; what is drawn need not be there, only the labels.

    Returns:
        None where all masks of the annotation are as they were predicted, and those of the prediction are not known.
    """
    kept, given = mask_regions(result, label_map), mask_regions(predicted, label_map)
    if any(region.get("origin") != "prediction" for region in kept):
        return False
    return Counter(map(label_map.class_of, kept)) == Counter(map(label_map.class_of, given)) if given else None


def guesses_answered(
    predicted: Sequence[object], before: bytes | None, mask: masks.Mask, label_map: LabelMap
) -> tuple[int, int]:
    """Return how many of the guesses at points a label answers, and how many of these it repeats.

    Args:
        predicted: regions of the prediction, whose points name classes; none where it is not known, or guesses were
            hidden. before: the guesses that are kept, a PNG of class indices; what counts then.
        mask: (H,W) uint8, the label.

    Raises:
        MaskError: `before` is no PNG of a mask.
    """
    points, _ = read_points(predicted, label_map, (mask.shape[0], mask.shape[1]))
    guessed = np.full_like(mask, IGNORE_INDEX)
    for point in points:
        guessed[point.row, point.column] = point.index
    kept = None if points or before is None else masks.mask_from_png(before)
    if kept is not None and kept.shape == mask.shape:
        guessed = kept
    answered = (guessed != IGNORE_INDEX) & (mask != IGNORE_INDEX)
    return int(answered.sum()), int((answered & (guessed == mask)).sum())


def _fitting(mask: masks.Mask, size: tuple[int, ...], label_map: LabelMap) -> masks.Mask | None:
    """Return a mask that was shown, if it has the image's size and the classes of the label map."""
    known = mask[mask != IGNORE_INDEX]
    fits = mask.shape == size and not (known >= len(label_map.classes)).any()
    return mask if fits else None


def inside_boxes(mask: masks.Mask, boxes: Sequence[Box], answers: Iterable[Answer] = ()) -> masks.Mask:
    """Return a mask (H,W) uint8 with IGNORE_INDEX outside of the boxes; the same mask when there are no boxes.

    Args:
        answers: what points say of their pixels, which count outside of the boxes, too.
    """
    if not boxes:
        return mask
    inside = np.where(covered_pixels(boxes, (mask.shape[0], mask.shape[1])), mask, IGNORE_INDEX).astype(np.uint8)
    for answer in answers:
        inside[answer.row, answer.column] = answer.index
    return inside


def starting_mask(
    annotation: Annotation,
    before: bytes | None,
    *,
    was_masked: bool | None,
    size: tuple[int, int],
    label_map: LabelMap,
) -> masks.Mask | None:
    """Return the mask that an annotator started from.

    Args:
        annotation: Label Studio's.
        before: the mask that was shown, a PNG of class indices; None when it is not stored.
        was_masked: whether predictions of the version that was shown carry masks; None when no version is known.
        size: (height, width) of the image.

    Returns:
        (H,W) uint8, unpainted when the annotator started from nothing; None when it is unknown.

    Raises:
        MaskError: `before` is no PNG of a mask.
    """
    if before is not None:
        return _fitting(masks.mask_from_png(before), size, label_map)
    origins = {str(region.get("origin")) for region in regions_of(annotation) if isinstance(region, Mapping)}
    from_prediction = annotation.get("parent_prediction") or origins & {"prediction", "prediction-changed"}
    from_nothing = not from_prediction if was_masked is None else not was_masked
    return np.full(size, label_map.unpainted_index, np.uint8) if from_nothing else None
