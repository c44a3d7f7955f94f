from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import Observation, create
from strategies.stream import StreamSelection


def arrival(score, number=0):
    return Observation(ids=(number,), information=torch.tensor([score], dtype=torch.float64), size=[[8, 8]])


def kept(stream, scores):
    return [stream.decide(arrival(score, number)).keep for number, score in enumerate(scores)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.5]), max_size=200),
    st.sampled_from([0.01, 0.1, 0.3, 0.5, 1.0]),
    st.integers(2, 50),
    st.sampled_from([1.0, 4.0, 20.0]),
)
def test_the_budget_is_a_bound_and_is_used(scores, rate, window, tolerance):
    stream, count = StreamSelection(rate=rate, window=window, tolerance=tolerance), 0
    for seen, score in enumerate(scores, start=1):
        count += stream.decide(arrival(score, seen)).keep
        assert count <= math.ceil(rate * seen)
        if seen >= 1 / rate:
            assert count > rate * seen - tolerance - 1


@pytest.mark.parametrize("drift", [-1e-3, 0.0, 1e-3])
def test_scores_that_drift_neither_flood_nor_starve(drift):
    noise = np.random.default_rng(0).random(3000)
    scores = noise + drift * np.arange(3000)
    decisions = np.array(kept(StreamSelection(rate=0.1), scores))
    for part in decisions.reshape(6, 500):
        assert 35 <= part.sum() <= 60


def test_the_informative_share_is_kept():
    scores = np.random.default_rng(1).random(4000)
    decisions = np.array(kept(StreamSelection(rate=0.1), scores))[500:]
    assert decisions.mean() == pytest.approx(0.1, abs=0.01)
    assert scores[500:][decisions].mean() > 0.9  # the best tenth has a mean of 0.95, chance 0.5
    assert (scores[500:][decisions] > 0.8).mean() > 0.9


def test_equal_scores_use_the_budget():
    decisions = kept(StreamSelection(rate=0.2), [0.5] * 500)
    assert sum(decisions) == 100
    assert not any(decisions[:4])


def test_everything_at_a_rate_of_one():
    assert all(kept(StreamSelection(rate=1), [0.1, 0.9, 0.0, 0.0]))


def test_goes_on_where_another_process_stopped():
    scores = np.random.default_rng(2).random(400).tolist()
    whole = kept(StreamSelection(window=50), scores)
    first = StreamSelection(window=50)
    decisions = kept(first, scores[:173])
    second = StreamSelection(window=50)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert decisions + kept(second, scores[173:]) == whole
    assert len(second.state_dict()["scores"]) == 50


def test_the_decision_says_why():
    stream = StreamSelection(rate=0.5)
    first = stream.decide(arrival(0.25, 7))
    assert (first.id, first.keep, first.score, first.threshold) == (7, False, 0.25, math.inf)
    second = stream.decide(arrival(0.75, 8))
    assert second.keep
    assert second.threshold == 0.5 - 0.5 * 1 / 8


def test_any_strategy_may_have_observed(pools):
    stream, strategy = StreamSelection(rate=0.5), create("entropy")
    for sample in pools.samples():
        seen = strategy.observe(pools.batch([sample]))
        assert stream.decide(seen).score == seen.information.item()


def test_one_image_at_a_time():
    two = Observation(ids=(1, 2), information=torch.zeros(2), size=[[8, 8]] * 2)
    for wrong, count in ((two, 2), (Observation.concatenate([]), 0)):
        with pytest.raises(ValueError, match=f"expected an Observation of one image, received {count}"):
            StreamSelection().decide(wrong)


@pytest.mark.parametrize("options", [{"rate": 0}, {"rate": 1.1}, {"window": 1}, {"tolerance": 0.5}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected"):
        StreamSelection(**options)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"seen": 1, "kept": 0},
        {"seen": -1, "kept": 0, "scores": []},
        {"seen": 1, "kept": 0, "scores": [math.nan]},
    ],
)
def test_foreign_state_is_refused(state):
    with pytest.raises(ValueError, match="expected"):
        StreamSelection().load_state_dict(state)
