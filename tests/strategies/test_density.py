from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import Budget, Observation, create
from strategies.density import Density


def pool(descriptors, information=None, ids=None):
    descriptors = torch.as_tensor(descriptors, dtype=torch.float32)
    count = len(descriptors)
    return Observation(
        ids=tuple(range(count)) if ids is None else ids,
        information=torch.ones(count) if information is None else torch.as_tensor(information),
        descriptors=descriptors,
        size=torch.full((count, 2), 8),
    )


def ranked(seen, **options):
    return create("density", **options).rank(seen, None, budget=Budget(images=1), generator=torch.Generator()).ids


def table(descriptors):
    """The N x N cosines, the obvious way in float64."""
    x = np.asarray(descriptors, dtype=np.float64)
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
    return unit @ unit.T


@pytest.mark.parametrize("beta", [0, 0.5, 1, 3])
def test_agrees_with_the_table_of_all_pairs(beta, monkeypatch):
    monkeypatch.setattr("strategies.descriptors.CHUNK", 7)
    generator = np.random.default_rng(0)
    x, information = generator.normal(0.3, 1, (50, 6)), generator.random(50)
    expected = information * np.maximum(table(x.astype(np.float32)).mean(axis=1), 0) ** beta
    assert np.allclose(Density(beta=beta).scores(pool(x, information)), expected, rtol=0, atol=1e-12)


def test_clipped_after_the_mean():
    # the first are like three and unlike four: clipped one by one, their similarities would have a positive mean
    x = [[1, 0], [1, 0], [1, 0], [-1, 0], [-1, 0], [-1, 0], [-1, 0]]
    scores = Density().scores(pool(x))
    assert scores[:3].tolist() == [0, 0, 0]
    assert scores[3:] == pytest.approx([1 / 7] * 4)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_powers_of_negative_means_are_no_numbers_and_no_merit(beta):
    scores = Density(beta=beta).scores(pool([[1, 0.1], [1, -0.1], [-5, 0]]))
    assert np.isfinite(scores).all()
    assert scores[2] == 0


def test_outliers_come_last_and_beta_says_how_much():
    x, information = [[1, 0], [1, 0.1], [1, -0.1], [0, 1]], [0.5, 0.6, 0.5, 0.9]
    assert ranked(pool(x, information), beta=0) == (3, 1, 0, 2)
    assert ranked(pool(x, information), beta=1)[0] == 1
    assert ranked(pool(x, information), beta=1)[-1] == 3


def test_length_of_descriptors_does_not_matter():
    x = np.random.default_rng(0).normal(0.5, 1, (9, 4))
    factors = 10.0 ** np.arange(-15, 12, 3)[:, None]
    assert Density().scores(pool(x * factors)) == pytest.approx(Density().scores(pool(x)), rel=1e-5)


def test_a_descriptor_of_zeros_is_like_nothing():
    assert Density().scores(pool([[0, 0], [1, 0]])).tolist() == [0, 0.5]


def test_over_any_measure(pools):
    batch = pools.batch(pools.samples())
    for measure in ("least_confidence", "vote_entropy", "bald", "std"):
        base = create("density", measure=measure).observe(batch).information
        if measure != "least_confidence":
            assert torch.equal(base, create(measure).observe(batch).information)
    with pytest.raises(ValueError, match=r"measure: expected one of bald, .*vote_entropy, received 'gini'"):
        create("density", measure="gini")


@pytest.mark.parametrize("beta", [-1, float("nan"), float("inf"), "1", True])
def test_wrong_beta_is_refused(beta):
    with pytest.raises(ValueError, match="beta: expected"):
        create("density", beta=beta)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_order_of_the_pool_does_not_matter(count, seed, randomness):
    generator = np.random.default_rng(seed)
    x, information = generator.normal(size=(count, 3)), generator.random(count)
    order = list(range(count))
    randomness.shuffle(order)
    shuffled = pool(x[order], information[order], tuple(order))
    assert ranked(shuffled) == ranked(pool(x, information))


def test_not_even_the_last_bit_depends_on_the_order_of_the_pool():
    generator = np.random.default_rng(0)
    x, order = generator.normal(size=(500, 6)), generator.permutation(500)
    shuffled = Density().scores(pool(x[order], ids=tuple(order.tolist())))
    assert (shuffled == Density().scores(pool(x))[order]).all()


def test_descriptors_are_asked_for(pools):
    seen = create("entropy").observe(pools.batch(pools.samples()))
    with pytest.raises(ValueError, match=r"density needs Observation.descriptors: expected \(N,D\), received None"):
        ranked(seen)
