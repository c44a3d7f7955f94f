from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import Budget, Observation, create
from strategies.k_centre import KCentre


def seen(x, ids=None, side=8):
    x = torch.as_tensor(np.asarray(x))
    ids = tuple(range(len(x))) if ids is None else ids
    return Observation(ids=ids, information=torch.zeros(len(x)), descriptors=x, size=torch.full((len(x), 2), side))


def ranked(pool, labelled=None, budget=Budget(images=3)):  # noqa: B008  (frozen)
    return create("coreset").rank(pool, labelled, budget=budget, generator=torch.Generator()).ids


def plain_greedy(x, centres, count):
    """The rule, the obvious way in float64: a table of all distances, farthest first, ties by position."""
    x, centres = np.asarray(x, dtype=np.float64), [np.asarray(one, dtype=np.float64) for one in centres]
    picks = []
    for _ in range(count):
        nearest = np.min([((x - centre) ** 2).sum(axis=1) for centre in centres], axis=0)
        nearest[picks] = -1
        picks.append(int(np.argmax(nearest)))
        centres.append(x[picks[-1]])
    return picks


def radius(x, centres):
    return np.sqrt(min_squares(x, centres).max())


def min_squares(x, centres):
    return ((x[:, None] - centres[None]) ** 2).sum(axis=-1).min(axis=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 100.0])  # far from 0, products say little about distances
def test_equals_the_plain_greedy_rule(dtype, offset, monkeypatch):
    monkeypatch.setattr("strategies.descriptors.CHUNK", 37)
    generator = np.random.default_rng(0)
    x, centres = ((generator.normal(size=(count, 16)) + offset).astype(dtype) for count in (300, 5))
    expected = plain_greedy(x, centres, 60)
    assert list(ranked(seen(x), seen(centres, range(1000, 1005)), Budget(images=60)))[:60] == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(0, 2), st.integers(1, 4), st.integers(0, 2**32))
def test_at_most_twice_the_best_radius(count, labelled, picks, seed):
    generator = np.random.default_rng(seed)
    x, centres = generator.normal(size=(count, 2)), generator.normal(size=(labelled, 2))
    picks = min(picks, count)
    best = min(radius(x, np.concatenate([centres, x[list(one)]])) for one in combinations(range(count), picks))
    order = ranked(seen(x), seen(centres, tuple(range(100, 100 + labelled))), Budget(images=picks))
    # the bound holds against any centres; with those of the pool alone the greedy rule can only look better
    assert radius(x, np.concatenate([centres, x[list(order[:picks])]])) <= 2 * best + 1e-9


def test_starts_from_what_is_labelled():
    x = [[0.0], [1.0], [5.0], [9.0], [10.0]]
    assert ranked(seen(x), seen([[10.0]], (9,)))[:2] == (0, 2)
    assert ranked(seen(x), seen([[0.0]], (9,)))[:2] == (4, 2)
    assert ranked(seen(x), seen([[0.0], [10.0]], (8, 9)))[0] == 2


def test_nothing_labelled_starts_near_the_mean():
    assert ranked(seen([[0.0], [4.0], [6.0], [20.0]])) == (2, 3, 0, 1)  # the mean is 7.5


def test_an_image_is_never_its_own_neighbour_again():
    # chosen images are at distance 0 like their copies: a farthest-first rule that forgets what it chose repeats them
    x = [[0.0]] * 4 + [[1.0]] * 3
    order = ranked(seen(x), budget=Budget(images=7))
    assert sorted(order) == list(range(7))
    assert order[:2] == (0, 4)
    assert order[2:] == (1, 2, 3, 5, 6)


def test_copies_are_at_a_distance_of_exactly_zero():
    # as |x|² - 2 x·y + |y|² in single precision, copies far from 0 are apart by more than real neighbours
    x = np.random.default_rng(0).normal(1000, 1e-3, (50, 64)).astype(np.float32)
    twice = np.concatenate([x, x])
    order = list(ranked(seen(twice), seen(x[:1], (1000,)), Budget(images=49)))
    assert len({one % 50 for one in order[:49]}) == 49
    assert all(one % 50 for one in order[:49])


def test_outliers_are_what_k_centre_looks_for():
    x = np.concatenate([np.random.default_rng(0).normal(size=(50, 3)), [[30.0, 0, 0]]])
    assert ranked(seen(x), seen([[0.0, 0, 0]], (99,)))[0] == 50


def test_budget_in_pixels():
    x = [[0.0], [10.0], [4.0], [7.0], [9.0]]
    assert ranked(seen(x), seen([[0.0]], (9,)), Budget(pixels=65))[:2] == (1, 2)
    assert ranked(seen(x), seen([[0.0]], (9,)), Budget(pixels=64)) == (1, 2, 3, 4, 0)  # one pick, then by distance


def test_beyond_the_budget_by_distance_not_chosen_as_a_set():
    x = [[10.0], [9.9], [-5.0], [1.0]]
    assert ranked(seen(x), seen([[0.0]], (9,)), Budget(images=1)) == (0, 2, 3, 1)


def test_an_image_labelled_in_part_is_covered_by_itself():
    x = [[0.0], [100.0], [50.0]]
    assert ranked(seen(x), seen([[0.0], [100.0]], (0, 1)))[0] == 2


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 25), st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_order_of_the_pool_does_not_matter(count, seed, randomness):
    x = np.random.default_rng(seed).integers(0, 3, (count, 2)).astype(np.float32)  # many ties
    order = list(range(count))
    randomness.shuffle(order)
    assert ranked(seen(x[order], tuple(order))) == ranked(seen(x))


def test_descriptors_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"descriptors: expected 2 numbers for labelled images .* received 3"):
        ranked(seen([[0.0, 1.0]]), seen([[0.0, 1.0, 2.0]], (9,)))


def test_memory_mapped_descriptors(tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    np.save(tmp_path / "descriptors.npy", x)
    mapped = np.load(tmp_path / "descriptors.npy", mmap_mode="r")
    picks = [pick for pick, _ in zip(KCentre(mapped, mapped[:1], np.arange(200)).picks(), range(20), strict=False)]
    assert picks == plain_greedy(x, x[:1], 20)


@pytest.mark.parametrize("scale", [1e-25, 1e25])  # squares vanish or overflow in float32
def test_scale_of_the_descriptors_does_not_matter(scale):
    x = np.random.default_rng(0).normal(size=(60, 8))
    expected = plain_greedy((x * scale).astype(np.float32).astype(np.float64), (x[:1] * scale).astype(np.float32), 10)
    scaled = (x * scale).astype(np.float32)
    assert list(ranked(seen(scaled), seen(scaled[:1], (99,)), Budget(images=10)))[:10] == expected
