"""Other libraries as witnesses, where they are installed: pip install scikit-activeml baal.

Where ours differ, they differ by a constant that is divided out here:

- Entropies are in nats there. Ours are divided by log C (entropy, BALD) or log min(M, C) (vote entropy).
- baal sorts margins from the lowest; ours is 1 minus the margin.
- baal's variance is of each class; ours is averaged over them.
- scikit-activeml starts its core-set at random when nothing is labelled; ours nearest to the mean. It is compared
  from a labelled start. baal has no core-set.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from strategies import Budget, Observation, create
from strategies.uncertainty import bald, entropy, least_confidence, margin, var, vote_entropy

MEMBERS, IMAGES, CLASSES, HEIGHT, WIDTH = 6, 2, 5, 9, 11


@pytest.fixture(scope="module")
def probabilities():
    shape = (MEMBERS, IMAGES, CLASSES, HEIGHT, WIDTH)
    return (torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2).softmax(dim=2)


def agree(ours, theirs):
    assert np.abs(np.asarray(ours).reshape(-1) - np.asarray(theirs).reshape(-1)).max() < 1e-6


class TestBaal:
    """Heuristics on (B,C,H,W,M); without a reduction they return maps."""

    @pytest.fixture
    def heuristics(self):
        return pytest.importorskip("baal.active.heuristics")

    @pytest.fixture
    def theirs(self, probabilities):
        return probabilities.permute(1, 2, 3, 4, 0).numpy()

    def test_entropy(self, heuristics, probabilities, theirs):
        agree(entropy(probabilities) * math.log(CLASSES), heuristics.Entropy().compute_score(theirs))

    def test_margin(self, heuristics, probabilities, theirs):
        agree(1 - margin(probabilities), heuristics.Margin().compute_score(theirs))

    def test_least_confidence(self, heuristics, probabilities, theirs):
        agree(1 - least_confidence(probabilities), heuristics.Certainty().compute_score(theirs))

    def test_bald(self, heuristics, probabilities, theirs):
        agree(bald(probabilities) * math.log(CLASSES), heuristics.BALD().compute_score(theirs))

    def test_variance(self, heuristics, probabilities, theirs):
        agree(var(probabilities), heuristics.Variance().compute_score(theirs).mean(axis=1))


class TestScikitActiveml:
    """Scores of samples (n,C): here every pixel is a sample."""

    @pytest.fixture
    def pool(self):
        return pytest.importorskip("skactiveml.pool")

    @pytest.mark.parametrize(
        ("method", "ours", "scale"),
        [
            ("entropy", entropy, math.log(CLASSES)),
            ("margin_sampling", margin, 1),
            ("least_confident", least_confidence, 1),
        ],
    )
    def test_uncertainty(self, pool, probabilities, method, ours, scale):
        pixels = probabilities.mean(dim=0).movedim(1, -1).reshape(-1, CLASSES).numpy()
        agree(ours(probabilities) * scale, pool.uncertainty_scores(pixels, method=method))

    def test_vote_entropy(self, pool, probabilities):
        votes = probabilities.argmax(dim=2).reshape(MEMBERS, -1).T.numpy()
        theirs = pool.vote_entropy(votes, classes=np.arange(CLASSES))
        agree(vote_entropy(probabilities) * math.log(min(MEMBERS, CLASSES)), theirs)

    def test_coreset(self, pool):
        x = np.random.default_rng(0).normal(size=(400, 12))
        y = np.full(400, np.nan)
        y[:7] = 0
        theirs = pool.CoreSet(random_state=0).query(X=x, y=y, batch_size=50)

        def seen(first, last):
            part = torch.from_numpy(x[first:last])
            size = torch.full((len(part), 2), 8)
            return Observation(
                ids=tuple(range(first, last)), information=torch.zeros(len(part)), descriptors=part, size=size
            )

        ranking = create("coreset").rank(
            seen(7, 400), seen(0, 7), budget=Budget(images=50), generator=torch.Generator()
        )
        assert list(ranking.ids[:50]) == theirs.tolist()
