from __future__ import annotations

import pytest
import torch

from strategies import Batch, Budget, create


def observed(*images):
    """Each image: (M,C) on its single pixel."""
    probabilities = torch.tensor(images).transpose(0, 1)[..., None, None]  # (M,B,C,1,1)
    ids = tuple(range(len(images)))
    return create("std").observe(Batch(ids=ids, images=torch.zeros(len(ids), 3, 1, 1), probabilities=probabilities))


def test_by_hand():
    # foreground 0.2, 0.4, 0.6, 0.8: mean 0.5, variance (0.09 + 0.01 + 0.01 + 0.09) / 4
    foreground = [0.2, 0.4, 0.6, 0.8]
    seen = observed([[1 - p, p] for p in foreground])
    assert seen.information.item() == pytest.approx(0.05**0.5, abs=1e-7)


def test_deviations_are_averaged_over_pixels_not_variances():
    left, right = [[0.5, 0.5], [0.6, 0.4]], [[0.1, 0.9], [0.9, 0.1]]  # 0.05 and 0.4 off
    both = torch.stack([torch.tensor(left), torch.tensor(right)], dim=-1)[:, None, :, None]  # (M,1,C,1,2)
    batch = Batch(ids=(1,), images=torch.zeros(1, 3, 1, 2), probabilities=both)
    assert create("std").observe(batch).information.item() == pytest.approx((0.05 + 0.4) / 2, abs=1e-7)


def test_opinions_matter_that_change_no_vote():
    ranking = create("std").rank(
        observed([[0.9, 0.1], [0.9, 0.1]], [[0.9, 0.1], [0.6, 0.4]], [[0.55, 0.45], [0.45, 0.55]]),
        None,
        budget=Budget(images=1),
        generator=torch.Generator(),
    )
    assert ranking.ids == (1, 2, 0)
