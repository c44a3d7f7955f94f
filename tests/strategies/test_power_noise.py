from __future__ import annotations

from collections import Counter

import pytest
import torch

from strategies import Budget, Observation, create


def pool(information):
    information = torch.as_tensor(information, dtype=torch.float64)
    return Observation(
        ids=tuple(range(len(information))), information=information, size=torch.ones(len(information), 2).long()
    )


def ranked(seen, seed, round=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return (
        create("power_noise", **options).rank(seen, None, budget=Budget(images=2), round=round, generator=generator).ids
    )


@pytest.mark.parametrize("beta", [0.5, 1, 2])
def test_the_first_is_drawn_in_proportion_to_the_power_of_the_score(beta):
    scores = [0.1, 0.2, 0.4]
    counts = Counter(ranked(pool(scores), seed, beta=beta)[0] for seed in range(3000))
    total = sum(score**beta for score in scores)
    for number, score in enumerate(scores):
        assert counts[number] / 3000 == pytest.approx(score**beta / total, abs=0.035)  # four standard deviations


def test_the_next_are_drawn_without_replacement():
    scores = [1.0, 2.0, 3.0]
    counts = Counter(ranked(pool(scores), seed)[:2] for seed in range(3000))
    assert counts[(2, 1)] / 3000 == pytest.approx(3 / 6 * 2 / 3, abs=0.035)
    assert counts[(0, 1)] / 3000 == pytest.approx(1 / 6 * 2 / 5, abs=0.035)


def test_noise_is_no_factor_of_the_score():
    # Gumbel numbers are negative in a third of the draws: times the score, that is how often the highest came last
    seen = pool([0.9, 1e-6, 1e-6, 1e-6])
    assert all(ranked(seen, seed)[0] == 0 for seed in range(200))


def test_the_noise_decays_with_the_round():
    seen = pool([0.5, 0.6, 0.7, 0.8])
    orders = [len({ranked(seen, seed, round=round) for seed in range(60)}) for round in (0, 20, 60, 10_000)]
    assert orders[0] > orders[1] > orders[2] == orders[3] == 1
    assert ranked(seen, 0, round=60) == (3, 2, 1, 0)
    assert len({ranked(seen, seed, round=10_000, decay=1) for seed in range(60)}) == orders[0]
    assert ranked(seen, 0, round=1, decay=0) == (3, 2, 1, 0)


def test_images_without_any_score_come_last():
    assert all(ranked(pool([0.0, 1e-12, 0.0, 0.5]), seed, beta=0.001)[2:] == (0, 2) for seed in range(50))


def test_batches_are_more_diverse_than_the_top(pools):
    seen = pool(torch.linspace(0.5, 0.6, 100))
    assert len({one for seed in range(20) for one in ranked(seen, seed)[:10]}) > 60


@pytest.mark.parametrize("options", [{"beta": 0}, {"beta": -1}, {"decay": 1.5}, {"decay": -0.1}, {"measure": "gini"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected"):
        create("power_noise", **options)
