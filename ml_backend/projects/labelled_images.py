"""An image with what is labelled of it, as strategies are given it: here, and on a machine without the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ml_backend.annotations.effort import effort_map, read_points
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.errors import ImageError, MaskError
from ml_backend.images.decoding import Array
from ml_backend.projects.parts import merged
from ml_backend.store import Task
from ml_backend.system.files import Files

if TYPE_CHECKING:
    from ml_backend.learning.prediction.batches import Item


@dataclass(frozen=True)
class Labels:
    """The labels of an image's parts, in the order in which they lie over each other.

    Attributes:
        masks: PNG files of class indices, all of the image's size.
        efforts: files that `effort.write_points` wrote.
    """

    masks: tuple[bytes, ...] = ()
    efforts: tuple[bytes, ...] = ()


def read_labels(files: Files, parts: Sequence[Task]) -> Labels | ImageError:
    """Read the files of the tasks that label parts of an image, or return why that cannot be done.

    Raises:
        FilesUnavailable: the bucket is away, which is nobody's fault here.
    """
    try:
        masks = tuple(files.read(part.mask_file) for part in parts)
        efforts = tuple(files.read(part.effort_file) for part in parts if part.effort_file)
    except OSError as error:
        return _unreadable(error)
    return Labels(masks, efforts)


def labelled_image(task_id: int, image: Array, labels: Labels) -> Item | ImageError:
    """Put what is labelled of an image (H,W,3) uint8 RGB, and what that cost, beside it."""
    from ml_backend.learning.prediction.batches import Item

    size = (image.shape[0], image.shape[1])
    try:
        labelled = merged(labels.masks) != IGNORE_INDEX if labels.masks else None
        cost = _cost(labels.efforts, size)
    except (MaskError, OSError, EOFError, ValueError) as error:  # the last three: a file of effort that is damaged
        return _unreadable(error)
    if labelled is not None and labelled.shape != size:
        return ImageError(f"The mask is {labelled.shape[1]}x{labelled.shape[0]}, the image {size[1]}x{size[0]} pixels.")
    return Item(task_id, image, labelled, cost)


def _unreadable(error: Exception) -> ImageError:
    return ImageError(f"What is labelled of the image cannot be read: {error}")


def _cost(efforts: Sequence[bytes], size: tuple[int, int]) -> NDArray[np.float32] | None:
    """Return the effort that the labels of an image took (H,W); None where none of them tells."""
    if not efforts:
        return None
    return effort_map(np.concatenate([read_points(effort) for effort in efforts]), size)
