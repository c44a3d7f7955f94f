"""The effort of labelling as points in an image: maps, rescaling, and files.

Points are (N,3) float32: x and y in pixels of the original image, and effort in clicks or seconds. The effort map of an
image is their sum per pixel.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ml_backend.system.files import Files

Points = NDArray[np.float32]

_GRID = 8
"""Points along each side of a box, at most, when effort is spread over it."""


def effort_map(points: Points, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return (H,W) float32, the effort at each pixel of an image of `size` (height, width).

    >>> effort_map(np.array([[1.5, 0.0, 2.0], [1.0, 0.9, 1.0]], np.float32), (1, 3)).tolist()
    [[0.0, 3.0, 0.0]]
    """
    total = np.zeros(size, dtype=np.float32)
    rows = np.clip(points[:, 1].astype(np.int64), 0, size[0] - 1)
    columns = np.clip(points[:, 0].astype(np.int64), 0, size[1] - 1)
    np.add.at(total, (rows, columns), points[:, 2])
    return total


def as_points(rows: Sequence[Sequence[float]]) -> Points:
    """Return rows of x, y and effort as points (N,3); (0,3) when there are no rows."""
    points: Points = np.asarray(rows, dtype=np.float32).reshape(-1, 3)
    return points


def spread(points: Points, total: float, boxes: Sequence[tuple[int, int, int, int]]) -> Points:
    """Return points rescaled so that their effort sums to `total`.

    When nothing was changed, the annotator only looked: the effort is spread evenly over the boxes.

    Args:
        points: (N,3) float32.
        total: the effort, in any unit.
        boxes: (left, top, width, height), in pixels, of what was labelled; at least one box.
    """
    now = float(points[:, 2].sum())
    if now == 0:
        points = np.concatenate([_evenly(box) for box in boxes])
        now = float(points[:, 2].sum())
    scaled = points.copy()
    scaled[:, 2] *= total / now
    return scaled


def _evenly(box: tuple[int, int, int, int]) -> Points:
    left, top, width, height = box
    across, down = ((np.arange(count) + 0.5) / count for count in (min(_GRID, width), min(_GRID, height)))
    x, y = np.meshgrid(left + across * width, top + down * height)
    each = width * height / x.size  # as much per pixel in a small box as in a large one
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, each)], axis=1).astype(np.float32)


def write_points(files: Files, folder: str, task_id: int, points: Points) -> str:
    """Write points (N,3) to a file in a folder, named after the task and their digest; return its key.

    Raises:
        OSError: the disk refuses.
    """
    content = io.BytesIO()
    np.save(content, points.astype(np.float32), allow_pickle=False)
    digest = hashlib.sha256(content.getvalue()).hexdigest()[:20]
    return files.write_once(f"{folder}/{task_id}-{digest}.npy", content.getvalue())


def read_points(content: bytes) -> Points:
    """Return the points (N,3) float32 of a file that `write_points` wrote.

    Raises:
        OSError, ValueError: it is damaged.
    """
    points: Points = np.load(io.BytesIO(content), allow_pickle=False)
    return points
