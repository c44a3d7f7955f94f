"""Where an image lies in its padded batch: every image fills the upper left corner of its tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from strategies.checks import check_mask, check_shape


def extents(valid: Tensor) -> list[tuple[int, int]]:
    """Return height and width of each image: the rows and columns up to the last valid pixel of (B,H,W) bool.

    What is computed on an image cut out this way depends neither on its padding nor on the rest of its batch.

    >>> valid = torch.zeros(1, 4, 5, dtype=torch.bool)
    >>> valid[0, :2, :3] = True
    >>> extents(valid)
    [(2, 3)]
    """
    check_shape("valid", valid, B=valid.shape[0] if valid.ndim else None, H=None, W=None)
    check_mask("valid", valid)
    rows, columns = (_last_true(valid.any(dim=axis)) for axis in (2, 1))
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _last_true(line: Tensor) -> Tensor:
    """Return the last position (B) at which (B,L) is True, plus 1; 0 where none is."""
    numbers = torch.arange(1, line.shape[1] + 1, device=line.device)
    return (line * numbers).amax(dim=1)  # (B)
