from __future__ import annotations

import pytest
import torch

from strategies import Batch, create


def test_by_hand():
    probabilities = torch.tensor([[[0.5, 0.25], [0.5, 0.5], [0.0, 0.25]]])  # (B,C,W): two pixels
    batch = Batch(ids=(1,), images=torch.zeros(1, 3, 1, 2), probabilities=probabilities.view(1, 1, 3, 1, 2))
    seen = create("least_confidence").observe(batch)
    assert seen.information.tolist() == [0.5]  # (1 - 0.5 + 1 - 0.5) / 2
    assert seen.confidence.tolist() == [0.5]
    assert seen.class_fraction.tolist() == [[0.5, 0.5, 0.0]]


def test_is_what_confidence_lacks(pools):
    seen = create("least_confidence").observe(pools.batch(pools.samples()))
    assert torch.allclose(seen.information, 1 - seen.confidence, rtol=0, atol=1e-12)


def test_rivals_do_not_count():
    probabilities = torch.tensor([[0.6, 0.4, 0.0], [0.6, 0.2, 0.2]]).view(1, 2, 3, 1, 1)
    first, second = (
        create("least_confidence")
        .observe(Batch(ids=(1, 2), images=torch.zeros(2, 3, 1, 1), probabilities=probabilities))
        .information.tolist()
    )
    assert first == second == pytest.approx(0.4)
