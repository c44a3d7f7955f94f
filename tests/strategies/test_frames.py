from __future__ import annotations

import pytest
import torch

from strategies.frames import extents


def test_images_of_different_size():
    valid = torch.zeros(3, 6, 8, dtype=torch.bool)
    valid[0] = True
    valid[1, :2, :5] = True
    valid[2, 0, 0] = True
    assert extents(valid) == [(6, 8), (2, 5), (1, 1)]


def test_holes_are_inside():
    valid = torch.zeros(1, 4, 4, dtype=torch.bool)
    valid[0, 0, 2] = valid[0, 3, 1] = True
    assert extents(valid) == [(4, 3)]


def test_no_images():
    assert extents(torch.zeros(0, 4, 4, dtype=torch.bool)) == []


def test_wrong_masks_are_refused():
    with pytest.raises(ValueError, match=r"valid: expected torch\.bool"):
        extents(torch.ones(1, 2, 2))
    with pytest.raises(ValueError, match=r"valid: expected shape \(B=2, H, W\), received \(2, 3\)"):
        extents(torch.ones(2, 3, dtype=torch.bool))
