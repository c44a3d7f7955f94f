from __future__ import annotations

from collections import Counter

import pytest
import torch

from strategies import Batch, Budget, Observation, create


def pool(ids):
    return Observation(ids=ids, information=torch.zeros(len(ids)), size=torch.ones(len(ids), 2, dtype=torch.int64))


def drawn(unlabelled, seed):
    generator = torch.Generator().manual_seed(seed)
    return create("random").rank(unlabelled, None, budget=Budget(images=1), generator=generator).ids


def test_needs_no_network():
    batch = Batch(ids=("a", "b"), images=torch.rand(2, 3, 4, 4))
    seen = create("random").observe(batch)
    assert seen.information.tolist() == [0, 0]
    assert seen.confidence is None
    assert seen.class_fraction is None


def test_keeps_the_prediction_when_there_is_one(pools):
    seen = create("random").observe(pools.batch(pools.samples()))
    assert seen.confidence.shape == (7,)
    assert seen.class_fraction.sum(dim=1).tolist() == pytest.approx([1] * 7)


def test_every_order_is_as_likely():
    counts = Counter(drawn(pool((1, 2, 3)), seed) for seed in range(1200))
    assert len(counts) == 6
    assert all(150 < count < 250 for count in counts.values())  # 200 expected, standard deviation 13


def test_drawn_after_sorting_by_id():
    assert drawn(pool(("c", "a", "d", "b")), 5) == drawn(pool(("b", "d", "a", "c")), 5)


def test_two_draws_from_one_generator_differ():
    generator = torch.Generator().manual_seed(0)
    many = pool(tuple(range(50)))
    first, second = (
        create("random").rank(many, None, budget=Budget(images=1), generator=generator).ids for _ in range(2)
    )
    assert first != second
