"""Methods that need a committee refuse what is none."""

from __future__ import annotations

import pytest
import torch

from strategies import Batch, create
from strategies.committee import check_committee

METHODS = ["vote_entropy", "bald", "std", "suggestive_annotation"]


def batch(probabilities, **changes):
    _, count, _, height, width = probabilities.shape
    images, features = torch.zeros(count, 3, height, width), torch.ones(count, 2)
    return Batch(ids=tuple(range(count)), images=images, probabilities=probabilities, features=features, **changes)


def softmaxes(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).softmax(dim=2)


@pytest.mark.parametrize("name", METHODS)
def test_copies_of_one_network_are_refused(name):
    copies = softmaxes(1, 2, 3, 4, 5).expand(20, -1, -1, -1, -1)
    with pytest.raises(ValueError, match="received 20 identical ones: dropout has no effect; predict with it switched"):
        create(name).observe(batch(copies))


@pytest.mark.parametrize("name", METHODS)
def test_one_member_is_no_committee(name):
    with pytest.raises(ValueError, match=r"expected a committee of M >= 2 members, received M = 1"):
        create(name).observe(batch(softmaxes(1, 2, 3, 4, 5)))
    with pytest.raises(ValueError, match=r"needs Batch.probabilities: expected a committee's \(M,B,C,H,W\), received"):
        create(name).observe(Batch(ids=(1,), images=torch.zeros(1, 3, 2, 2)))


@pytest.mark.parametrize("measure", ["std", "var", "vote_entropy", "bald"])
def test_what_is_needed_follows_from_the_measure(measure):
    assert create("density").needs == {"probabilities", "features"}
    assert create("density", measure=measure).needs == {"committee", "features"}
    assert create("power_noise", measure=measure).needs == {"committee"}
    assert create("suggestive_annotation").needs == {"committee", "features"}
    assert create("suggestive_annotation", measure="entropy").needs == {"probabilities", "features"}
    with pytest.raises(ValueError, match="identical"):
        create("density", measure=measure).observe(batch(softmaxes(1, 2, 3, 4, 5).expand(2, -1, -1, -1, -1)))


def test_one_pixel_that_differs_is_enough():
    members = softmaxes(1, 2, 3, 4, 5).repeat(3, 1, 1, 1, 1)
    members[2, 1, :, 3, 4] = torch.tensor([0.5, 0.25, 0.25])
    check_committee(members, torch.ones(2, 4, 5, dtype=torch.bool))


def test_differences_in_the_padding_prove_nothing():
    members = softmaxes(1, 2, 3, 4, 5).repeat(3, 1, 1, 1, 1)
    members[1, :, :, 3] = torch.nan
    valid = torch.ones(2, 4, 5, dtype=torch.bool)
    valid[:, 3] = False
    with pytest.raises(ValueError, match="identical"):
        check_committee(members, valid)


def test_members_may_agree_where_all_are_wholly_certain():
    certain = torch.zeros(4, 1, 3, 2, 2)
    certain[:, :, 1] = 1
    assert create("bald").observe(batch(certain)).information.tolist() == [0]
