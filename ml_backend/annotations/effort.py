"""What labelling cost: where in an image an annotator worked, and how much.

Kept as points: (N,3) float32 of x, y (pixels of the original image) and effort. The map of an image is their sum per
pixel.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml_backend.system.whole_files import write_once

Points = NDArray[np.float32]

_GRID = 8
"""Points along each side of a box over which effort without a place of its own is spread."""


def effort_map(points: Points, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return (H,W) float32, the effort at each pixel of an image of that size (height, width).

    >>> effort_map(np.array([[1.5, 0.0, 2.0], [1.0, 0.9, 1.0]], np.float32), (1, 3)).tolist()
    [[0.0, 3.0, 0.0]]
    """
    total = np.zeros(size, dtype=np.float32)
    rows = np.clip(points[:, 1].astype(np.int64), 0, size[0] - 1)
    columns = np.clip(points[:, 0].astype(np.int64), 0, size[1] - 1)
    np.add.at(total, (rows, columns), points[:, 2])
    return total


def as_points(rows: Sequence[Sequence[float]]) -> Points:
    """Return rows of x, y and effort as points; (0,3) of none."""
    points: Points = np.asarray(rows, dtype=np.float32).reshape(-1, 3)
    return points


def spread(points: Points, total: float, boxes: Sequence[tuple[int, int, int, int]]) -> Points:
    """Rescale points so that their effort sums to `total`.

    Effort that has no place, since nothing was changed, went into looking: it is spread evenly over the boxes.

    Args:
        boxes: (left, top, width, height) of what was labelled, in pixels.
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


def write_points(folder: Path, task_id: int, points: Points) -> str:
    """Keep points in a file whose name carries their digest; return where."""
    content = io.BytesIO()
    np.save(content, points.astype(np.float32), allow_pickle=False)
    digest = hashlib.sha256(content.getvalue()).hexdigest()[:20]
    return write_once(folder / f"{task_id}-{digest}.npy", content.getvalue())


def read_points(file: Path) -> Points:
    """Read points that `write_points` wrote.

    Raises:
        OSError, ValueError: the file cannot be read.
    """
    points: Points = np.load(file, allow_pickle=False)
    return points
