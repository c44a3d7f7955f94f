from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from strategies import Budget, Observation, create


def pool(shares, ids=None, side=8):
    shares = torch.as_tensor(shares, dtype=torch.float64)
    count = len(shares)
    return Observation(
        ids=tuple(range(count)) if ids is None else ids,
        information=torch.zeros(count),
        class_fraction=shares,
        size=torch.full((count, 2), side),
    )


def ranked(seen, seed=0, budget=Budget(images=4), **options):  # noqa: B008  (frozen)
    generator = torch.Generator().manual_seed(seed)
    return create("class_balanced", **options).rank(seen, None, budget=budget, generator=generator).ids


RARE = [[1.0, 0.0, 0.0]] * 90 + [[0.9, 0.1, 0.0]] * 8 + [[0.9, 0.0, 0.1]] * 2  # 8 % and 2 % of the images


def test_a_share_of_the_picks_goes_to_the_classes_in_turn():
    for seed in range(50):
        first = ranked(pool(RARE), seed, budget=Budget(images=6), share=1)[:6]
        kinds = ["sky" if one < 90 else "tree" if one < 98 else "bird" for one in first]
        # birds have the smallest area; the turn of the sky is drawn by area, from birds' and trees' images, too
        assert kinds[:2] == ["bird", "tree"]
        assert "bird" in kinds[2:4]


def test_rare_classes_would_be_missed_by_plain_random():
    stratified = [sum(one >= 98 for one in ranked(pool(RARE), seed)[:4]) for seed in range(100)]
    assert min(stratified) == 1
    plain = [sum(one >= 98 for one in ranked(pool(RARE), seed, share=0)[:4]) for seed in range(100)]
    assert sum(count == 0 for count in plain) > 70


def test_half_of_the_picks_by_default():
    first = [ranked(pool(RARE), seed)[:4] for seed in range(100)]
    # the second and the fourth pick are stratified: a bird, then a tree
    assert all(picks[1] >= 98 or picks[0] >= 98 for picks in first)
    assert all(any(90 <= one < 98 for one in picks) for picks in first)
    assert sum(picks[0] < 90 for picks in first) > 75


def test_within_a_class_by_its_area():
    seen = pool([[0.9, 0.1], [0.7, 0.3], [1.0, 0.0]])
    counts = Counter(ranked(seen, seed, budget=Budget(images=1), share=1)[0] for seed in range(2000))
    assert counts[1] / 2000 == pytest.approx(0.75, abs=0.04)
    assert counts[2] == 0


def test_classes_that_are_predicted_nowhere_have_no_turn():
    seen = pool(np.eye(5)[[0, 0, 1, 1, 1, 1, 1]])
    for seed in range(20):
        assert {one < 2 for one in ranked(seen, seed, budget=Budget(images=2), share=1)[:2]} == {True, False}


def test_budget_in_pixels():
    seen = pool(RARE, side=10)
    first = ranked(seen, budget=Budget(pixels=350), share=1)[:4]  # the fourth pick exceeds it
    assert sum(one >= 98 for one in first) == 2


def test_beyond_the_budget_all_orders_are_as_likely():
    last = Counter(ranked(pool(RARE), seed)[-1] >= 90 for seed in range(400))
    assert last[True] < 60  # about 4 % of 400: what is left of the rare classes


def test_order_of_the_pool_does_not_matter():
    shuffled = list(range(100))[::-1]
    assert ranked(pool(np.array(RARE)[shuffled], tuple(shuffled))) == ranked(pool(RARE))


def test_prediction_is_asked_for():
    blind = Observation(ids=(1,), information=torch.zeros(1), size=[[4, 4]])
    with pytest.raises(ValueError, match=r"class_balanced needs Observation.class_fraction: expected \(N,C\)"):
        ranked(blind)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_wrong_share_is_refused(share):
    with pytest.raises(ValueError, match=r"share: expected a number in \[0, 1\]"):
        create("class_balanced", share=share)
