from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import Budget, Observation, create
from strategies.descriptors import unit_rows
from strategies.facility_location import FacilityLocation


def seen(x, information=None, ids=None, side=8):
    x = torch.as_tensor(np.asarray(x))
    ids = tuple(range(len(x))) if ids is None else ids
    information = torch.ones(len(x)) if information is None else torch.as_tensor(information)
    return Observation(ids=ids, information=information, descriptors=x, size=torch.full((len(x), 2), side))


def ranked(pool, budget=Budget(images=8), **options):  # noqa: B008  (frozen)
    method = create("suggestive_annotation", **options)
    return method.rank(pool, None, budget=budget, generator=torch.Generator()).ids


def cosines(x, candidates, threshold=None):
    """(N,K), clipped at 0, the obvious way in float64."""
    unit = unit_rows(np.asarray(x))
    table = np.maximum(unit @ unit[candidates].T, 0)
    return table if threshold is None else (table >= threshold - 1e-6).astype(np.float64)


def total(table, chosen):
    """F of columns of the table; of none: 0."""
    return table[:, list(chosen)].max(axis=1).sum() if len(chosen) else 0.0


def plain_greedy(table, count):
    """Every remaining candidate is compared with the whole pool for every pick; the first of equal ones."""
    chosen, values = [], []
    for _ in range(count):
        gains = [-1.0 if one in chosen else total(table, [*chosen, one]) for one in range(table.shape[1])]
        best = max(gains)
        chosen.append(next(one for one, gain in enumerate(gains) if gain > best - 1e-6))
        values.append(total(table, chosen))
    return chosen, values


def clusters(seed, count, dimensions=8, centres=6, spread=0.4):
    generator = np.random.default_rng(seed)
    middle = generator.normal(size=(centres, dimensions))
    return (
        middle[generator.integers(centres, size=count)] + spread * generator.normal(size=(count, dimensions))
    ).astype(np.float32)


# facility location


@pytest.mark.parametrize("threshold", [None, 0.5, 0.9])
@pytest.mark.parametrize("data", ["clusters", "noise", "positive"])
def test_equals_plain_greedy_choice(threshold, data, monkeypatch):
    monkeypatch.setattr("strategies.descriptors.CHUNK", 23)
    generator = np.random.default_rng(1)
    x = {
        "clusters": clusters(0, 300),
        "noise": generator.normal(size=(300, 12)).astype(np.float32),
        "positive": generator.random((300, 12)).astype(np.float32),  # after a rectifier
    }[data]
    candidates = generator.permutation(300)[:40]
    location = FacilityLocation(x, threshold)
    table = cosines(x, candidates, threshold)
    chosen, values = plain_greedy(table, 40)
    for position, value, pick in zip(chosen, values, location.picks(candidates), strict=True):
        assert pick == candidates[position]
        assert location.value == pytest.approx(value, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32), st.sampled_from([None, 0.3]))
def test_at_least_1_minus_1_over_e_of_the_best(count, picks, seed, threshold):
    x = np.random.default_rng(seed).normal(size=(count, 3))
    picks = min(picks, count)
    location, table = FacilityLocation(x, threshold), cosines(x, range(count), threshold)
    chosen = [pick for _, pick in zip(range(picks), location.picks(np.arange(count)), strict=False)]
    best = max(total(table, one) for one in combinations(range(count), picks))
    assert total(table, chosen) >= (1 - 1 / math.e) * best - 1e-5
    assert total(table, chosen) <= best + 1e-5


def test_nothing_covers_nothing():
    location = FacilityLocation(np.eye(3))
    assert location.value == 0
    assert FacilityLocation(np.zeros((0, 4))).value == 0


def test_images_that_a_pick_covers_but_little_better_are_not_overlooked():
    # whoever looks only where a pick is much nearer leaves the coverage of a thousand images 1e-5 too low
    between = [0.50001, 0.50002, math.sqrt(1 - 0.50001**2 - 0.50002**2)]
    x = np.array([[1.0, 0, 0]] * 20 + [[0, 1.0, 0]] + [between] * 1000)
    for memory in (0, 2**30):
        location = FacilityLocation(x, memory=memory)
        assert list(location.picks(np.array([0, 20]))) == [0, 20]
        assert location.value == pytest.approx(total(cosines(x, [0, 20]), [0, 1]), abs=1e-3)


def test_opposite_images_take_nothing_away():
    # with similarities below 0 the first pick would have a total of 0
    location = FacilityLocation(np.array([[1.0, 0], [-1, 0], [0, 1]]))
    values = [location.value for _ in location.picks(np.arange(3))]
    assert values == pytest.approx([1, 2, 3])


def test_the_maximum_runs_over_what_is_chosen():
    # with the maximum over the pool, as the survey has it, every image covers itself and all gains are 0
    x = np.array([[1.0, 0]] * 3 + [[0, 1.0]] * 5 + [[-1.0, 0]] * 1)
    assert list(FacilityLocation(x).picks(np.arange(9)))[:3] == [3, 0, 8]


def test_chunks_threads_and_precision_do_not_show(monkeypatch):
    x = clusters(3, 500)
    expected = list(FacilityLocation(x).picks(np.arange(100)))
    for chunk in (1, 64, 499):
        monkeypatch.setattr("strategies.descriptors.CHUNK", chunk)
        assert list(FacilityLocation(x).picks(np.arange(100))) == expected
        assert list(FacilityLocation(x.astype(np.float64)).picks(np.arange(100))) == expected


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_memory_for_similarities_does_not_show(threshold, monkeypatch):
    # those of all images, of a part of them and of none are kept; the others are computed again
    monkeypatch.setattr("strategies.descriptors.CHUNK", 50)
    x, candidates = np.concatenate([clusters(8, 300), np.zeros((2, 8), dtype=np.float32)]), np.arange(60)
    results = []
    for images in (302, 120, 0):
        location = FacilityLocation(x, threshold, memory=3 * 60 * images)
        results.append([(pick, location.value) for pick in location.picks(candidates)])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("scale", [1e-35, 1e-20, 1e20, 1e35])
def test_length_of_descriptors_does_not_matter(scale):
    x = clusters(4, 80).astype(np.float64)
    x[::2] *= 3
    expected = list(FacilityLocation(x).picks(np.arange(30)))
    assert list(FacilityLocation((x * scale).astype(np.float32)).picks(np.arange(30))) == expected


def test_memory_mapped_descriptors(tmp_path):
    x = clusters(5, 200)
    np.save(tmp_path / "descriptors.npy", x)
    mapped = np.load(tmp_path / "descriptors.npy", mmap_mode="r")
    assert list(FacilityLocation(mapped).picks(np.arange(20))) == list(FacilityLocation(x).picks(np.arange(20)))


# the method


def test_two_stages():
    # the most typical image is not uncertain enough to be a candidate
    x = [[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 2
    information = [0.1] * 10 + [0.9, 0.8]
    order = ranked(seen(x, information), Budget(images=1), candidates=2, picks=1)
    assert order[0] == 10
    assert set(ranked(seen(x, information), Budget(images=2), candidates=4, picks=2)[:2]) == {0, 10}


def test_it_is_not_uncertainty_times_density():
    # a product would rank the typical image with half the uncertainty first, and its copies next
    x = [[1.0, 0.0]] * 6 + [[0.0, 1.0]]
    information = [0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.5]
    assert set(ranked(seen(x, information), Budget(images=2), candidates=7, picks=2)[:2]) == {0, 6}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 8))
def test_chosen_are_among_the_most_uncertain(count, seed, candidates, picks):
    picks = min(candidates, picks)
    information = np.random.default_rng(seed).random(count)
    order = ranked(seen(clusters(seed, count), information), Budget(images=picks), candidates=candidates, picks=picks)
    assert set(order[:picks]) <= set(np.argsort(-information)[: max(candidates, 2 * picks)].tolist())
    rest = [one for one in np.argsort(-information).tolist() if one not in order[:picks]]
    assert list(order[picks:]) == rest


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 20), st.integers(0, 2**32), st.integers(2, 8))
def test_never_two_copies_while_another_has_something_to_add(count, seed, picks):
    originals = clusters(seed, count)
    x = np.concatenate([originals, originals])
    picks = min(picks, count)
    order = ranked(seen(x), Budget(images=picks), candidates=2 * count, picks=picks)
    table = cosines(x, range(2 * count))
    for place in range(1, picks):
        before, pick = order[:place], order[place]
        gains = [total(table, [*before, one]) - total(table, before) for one in range(2 * count) if one not in before]
        if max(gains) > 1e-6:
            assert pick % count not in [one % count for one in before]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_order_of_the_pool_does_not_matter(count, seed, randomness):
    generator = np.random.default_rng(seed)
    x, information = generator.integers(-1, 2, (count, 3)).astype(np.float32), generator.integers(0, 3, count) / 4
    order = list(range(count))
    randomness.shuffle(order)
    options = {"budget": Budget(images=12), "candidates": 10, "picks": 4}
    assert ranked(seen(x[order], information[order], tuple(order)), **options) == ranked(
        seen(x, information), **options
    )


def test_a_small_budget_takes_the_first_of_the_papers_eight():
    x, information = clusters(7, 60), np.random.default_rng(7).random(60)
    by_eight = ranked(seen(x, information), Budget(images=8))
    by_three = ranked(seen(x, information), Budget(images=3))
    assert by_three[:3] == by_eight[:3]


@pytest.mark.parametrize("images", [20, 40])
def test_a_larger_budget_looks_at_twice_as_many(images):
    """With K fixed nearly all of the most uncertain are chosen: at 40 picks what uncertainty alone would choose."""
    x, information = clusters(7, 200), np.random.default_rng(7).random(200)
    order = ranked(seen(x, information), Budget(images=images))
    uncertain = np.argsort(-information).tolist()
    assert set(order[:images]) <= set(uncertain[: 2 * images])
    assert len(set(order[:images]) - set(uncertain[: images + 8])) > images / 8
    greedy = ranked(seen(x, information), Budget(images=images), candidates=2 * images, picks=images)
    assert order == greedy


def test_a_budget_of_pixels_is_as_many_images_as_it_pays_for():
    x, information = clusters(7, 200), np.random.default_rng(7).random(200)
    pool = seen(x, information)
    area = int(pool.size[0].prod())
    assert ranked(pool, Budget(pixels=20 * area)) == ranked(pool, Budget(images=20))


def test_maximum_cover():
    # by cosines the middle one comes first; with a threshold only near ones count, and the larger group wins
    angles = np.radians([0, 1, 2, 45, 88, 90])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert ranked(seen(x), Budget(images=1))[0] in (2, 3)
    assert ranked(seen(x), Budget(images=2), threshold=0.99)[:2] == (0, 4)
    assert ranked(seen(x), Budget(images=1), threshold=1.0)[0] == 0


def test_a_copy_reaches_a_threshold_of_one():
    x = np.random.default_rng(0).normal(size=(1, 300)).repeat(3, axis=0)
    location = FacilityLocation(x, threshold=1.0)
    next(location.picks(np.arange(3)))
    assert location.value == 3


def test_uncertainty_of_the_paper_by_default(pools):
    batch = pools.batch(pools.samples())
    for measure in ("std", "var", "vote_entropy"):
        expected = create("suggestive_annotation", measure=measure).observe(batch).information
        if measure != "var":
            assert torch.equal(expected, create(measure).observe(batch).information)
    default = create("suggestive_annotation").observe(batch)
    assert torch.equal(default.information, create("std").observe(batch).information)
    assert torch.equal(default.descriptors, batch.features)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"picks": 0}, "picks: expected an integer from 1 up, received 0"),
        ({"picks": 9, "candidates": 8}, "candidates, with picks = 9: expected an integer from 9 up, received 8"),
        ({"threshold": 0}, r"threshold: expected a number in \[0.001, 1\], received 0"),
        ({"measure": "gini"}, "measure: expected one of bald"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create("sa", **options)
