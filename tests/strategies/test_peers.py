"""Other libraries as witnesses: baal and scikit-activeml. They have to be there; a missing witness is a failure.

All agree to 1e-6. Where ours differ, the difference is one of definition and is undone here:

- Entropies are in nats there. Ours are divided by log C (entropy, BALD) or log min(M, C) (vote entropy).
- baal sorts margins and certainties from the lowest; ours are 1 minus those.
- baal's variance is of each class; ours is averaged over them. Its mean over everything is the same.
- scikit-activeml's BALD is the first step of its BatchBALD. It lifts probabilities to 1e-7 at least; ours takes 0 log 0
  as 0. They differ by up to 2e-6 per class where members are sure, so it is asked where none is.
- scikit-activeml starts its core-set at random when nothing is labelled; ours nearest to the mean. It is compared
  from a labelled start. Of equally distant images it draws one at random, ours takes the smallest id; here are none.

No witness: baal has neither vote entropy nor core-set; neither library has the others of ours over pixels.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from baal.active import heuristics
from skactiveml import pool as peers

from strategies import Budget, Observation, create
from strategies.uncertainty import bald, entropy, image_information, least_confidence, margin, var, vote_entropy

MEMBERS, IMAGES, CLASSES, HEIGHT, WIDTH = 6, 2, 5, 9, 11


@pytest.fixture(scope="module")
def unsure():
    """Members who hold every class for possible."""
    shape = (MEMBERS, IMAGES, CLASSES, HEIGHT, WIDTH)
    return (torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2).softmax(dim=2)


@pytest.fixture(scope="module")
def probabilities(unsure):
    """With a row of pixels where all members are sure of one class, and one where each is sure of its own."""
    mixed, one_hot = unsure.clone(), torch.eye(CLASSES, dtype=torch.float64)[..., None]
    mixed[..., 0, :] = one_hot[0]
    for member, votes in enumerate(mixed):
        votes[..., 1, :] = one_hot[member % CLASSES]
    return mixed


def agree(ours, theirs):
    assert np.abs(np.asarray(ours).reshape(-1) - np.asarray(theirs).reshape(-1)).max() < 1e-6


class TestBaal:
    """Heuristics on (B,C,H,W,M); without a reduction they return maps."""

    @pytest.fixture
    def theirs(self, probabilities):
        return probabilities.permute(1, 2, 3, 4, 0).numpy()

    def test_entropy(self, probabilities, theirs):
        agree(entropy(probabilities) * math.log(CLASSES), heuristics.Entropy().compute_score(theirs))

    def test_margin(self, probabilities, theirs):
        agree(1 - margin(probabilities), heuristics.Margin().compute_score(theirs))

    def test_least_confidence(self, probabilities, theirs):
        agree(1 - least_confidence(probabilities), heuristics.Certainty().compute_score(theirs))

    def test_bald(self, probabilities, theirs):
        agree(bald(probabilities) * math.log(CLASSES), heuristics.BALD().compute_score(theirs))

    def test_variance(self, probabilities, theirs):
        agree(var(probabilities), heuristics.Variance().compute_score(theirs).mean(axis=1))

    def test_average_of_an_image(self, probabilities, theirs):
        everywhere = torch.ones(IMAGES, HEIGHT, WIDTH, dtype=torch.bool)
        ours = image_information(entropy(probabilities), valid=everywhere, labelled=~everywhere) * math.log(CLASSES)
        agree(ours, heuristics.Entropy(reduction="mean").get_uncertainties(theirs))


class TestScikitActiveml:
    """Scores of samples (n,C): here every pixel is a sample."""

    @pytest.mark.parametrize(
        ("method", "ours", "scale"),
        [
            ("entropy", entropy, math.log(CLASSES)),
            ("margin_sampling", margin, 1),
            ("least_confident", least_confidence, 1),
        ],
    )
    def test_uncertainty(self, probabilities, method, ours, scale):
        pixels = probabilities.mean(dim=0).movedim(1, -1).reshape(-1, CLASSES).numpy()
        agree(ours(probabilities) * scale, peers.uncertainty_scores(pixels, method=method))

    def test_bald(self, unsure):
        pixels = unsure.movedim(2, -1).reshape(MEMBERS, -1, CLASSES).numpy()
        agree(bald(unsure) * math.log(CLASSES), peers.batch_bald(pixels, batch_size=1, random_state=0))

    def test_vote_entropy(self, probabilities):
        votes = probabilities.argmax(dim=2).reshape(MEMBERS, -1).T.numpy()
        theirs = peers.vote_entropy(votes, classes=np.arange(CLASSES))
        agree(vote_entropy(probabilities) * math.log(min(MEMBERS, CLASSES)), theirs)

    def test_coreset(self):
        x = np.random.default_rng(0).normal(size=(400, 12))
        y = np.full(400, np.nan)
        y[:7] = 0
        theirs = peers.CoreSet(random_state=0).query(X=x, y=y, batch_size=50)

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
