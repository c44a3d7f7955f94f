"""Which kind of question is asked, and how often the other one is."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from strategies import Batch, Budget, Observation, Prices, create
from strategies.questions import question

EFFORTS = st.floats(0.5, 5000)


def pool(*, count=40, seed=0, size=(12, 16)):
    """Random predictions of three classes."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(1, count, 3, *size, generator=generator).pow(3)
    probabilities /= probabilities.sum(dim=2, keepdim=True)
    return Batch(
        ids=tuple(range(count)), images=torch.rand(count, 3, *size, generator=generator), probabilities=probabilities
    )


def rank(batch, *, prices=None, seed=0, known=(), **options):
    method = create("auto", **options)
    return method.rank(
        Observation.concatenate([method.observe(batch)]),
        None,
        budget=Budget(images=10),
        known=known,
        prices=prices,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize(
    ("points", "mask", "is_points"),
    [
        (10, 1009, True),  # street scenes of eleven classes
        (10, 142, True),  # glands
        (10, 22, False),  # a single lesion
        (35, 1014, True),  # a point taken for three clicks, five to open an image
        (35, 147, False),
        (10, 65, False),
        (10, 66, True),
        (10, 0, False),  # masks that were right as they were shown
        (0, 0, False),
    ],
)
def test_the_kind_that_teaches_more_per_effort(points, mask, is_points):
    assert question(10, Prices(points=points, mask=mask)).is_points is is_points


def test_many_points_of_an_image_are_as_good_as_its_mask_and_no_better():
    assert not question(1000, Prices(points=100, mask=100)).is_points
    assert question(1000, Prices(points=99, mask=100)).is_points


@given(EFFORTS, EFFORTS, st.integers(0, 99))
def test_the_other_kind_takes_no_more_than_a_tenth_of_the_effort_and_of_the_images(points, mask, seed):
    asked = question(10, Prices(points=points, mask=mask))
    span = 20 * asked.every
    if span > 20_000:
        return
    others = sum(islice(asked.is_other(torch.Generator().manual_seed(seed)), span))
    assert others == 20, "one of so many, wherever the first is"
    main, other = (points, mask) if asked.is_points else (mask, points)
    assert others <= 0.1 * span
    assert others * other <= 0.1 * (others * other + (span - others) * main) * (1 + 1e-9)


def test_as_long_as_it_is_not_known_what_a_mask_takes_points_are_asked_for_and_one_mask():
    asked = question(10, Prices(points=10))
    assert asked.is_points
    assert list(islice(asked.is_other(torch.Generator()), 500)) == [False, True, *[False] * 498]
    ranking = rank(pool())
    assert [at for at, image in enumerate(ranking.ids) if image not in ranking.points] == [1]


def test_points_that_were_never_answered_take_a_click_each_and_an_unknown_time():
    assert question(10, Prices(mask=60)) == question(10, Prices(points=10, mask=60))
    asked = question(10, Prices(mask=60, unit="seconds"))
    assert asked.is_points
    assert asked.reason == "Points: how many seconds they take here is not known yet."


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_efforts_that_are_none(value):
    with pytest.raises(ValueError, match=r"Prices\.mask"):
        Prices(mask=value)


def test_dear_masks_are_not_asked_for_but_now_and_then():
    batch, wholes = pool(), []
    for seed in range(30):
        ranking = rank(batch, prices=Prices(points=10, mask=70), seed=seed)
        assert sorted(ranking.ids) == list(range(40))
        assert ranking.reason.startswith("Points: 10 of an image teach about 15 %")
        wholes.append(sum(image not in ranking.points for image in ranking.ids))
    assert set(wholes) == {0, 1}, "one of 64 images, and the pool has 40"
    assert sum(wholes) == pytest.approx(30 * 40 / 64, abs=8)


def test_cheap_masks_are_asked_for_and_points_now_and_then():
    ranking = rank(pool(), prices=Prices(points=10, mask=20), confident=1.0, confident_from=0.0, known=range(100, 120))
    assert len(ranking.points) == 4  # every tenth of 40
    assert {image for image, boxes in ranking.regions.items() if boxes == ()} == set(ranking.ids) - set(ranking.points)
    assert ranking.reason.startswith("Masks: ")
    assert ranking.pseudo_labels
    assert set(ranking.picks) <= set(ranking.regions)
    by_points = rank(pool(), prices=Prices(points=1, mask=20), confident=1.0, confident_from=0.0, known=range(100, 120))
    assert by_points.pseudo_labels == (), "a few answers would drown in whole predicted masks"


def test_points_come_in_the_order_of_the_method_that_draws_them():
    ranking, points = rank(pool(), prices=Prices(points=1, mask=20)), create("points")
    alone = points.rank(
        Observation.concatenate([points.observe(pool())]),
        None,
        budget=Budget(images=10),
        generator=torch.Generator().manual_seed(0),
    )
    asked = [image for image in ranking.ids if image in ranking.points]
    assert asked == [image for image in alone.ids if image in ranking.points]
    assert len(asked) > 30
    assert ranking.points == {image: alone.points[image] for image in asked}


def test_without_points_it_asks_for_masks_and_gives_no_reason():
    ranking = rank(pool(), points=0, prices=Prices(points=1, mask=1000))
    assert (ranking.points, ranking.regions, ranking.reason) == ({}, {}, "")
    method = create("auto", points=0)
    assert not method.asks_for_points
    assert create("auto").asks_for_points
    assert method.observe(pool(count=2)).candidates is None


def test_before_there_is_a_network_it_asks_for_points():
    places = torch.rand(3, 5, 12, 16, generator=torch.Generator().manual_seed(1))
    first = Batch(ids=(1, 2, 3), images=torch.rand(3, 3, 12, 16), places=places)
    ranking = rank(first)
    assert sorted(ranking.points) == sorted({*ranking.ids} - {ranking.ids[1]})
    assert (ranking.regions, ranking.picks) == ({ranking.ids[1]: ()}, {})
    cheap = rank(first, prices=Prices(points=10, mask=5))
    assert not cheap.points.keys() >= {*cheap.ids}
    assert cheap.reason.startswith("Masks")


@pytest.mark.parametrize("options", [{"points": -1}, {"points": 2.5}, {"worth": 0.5}, {"worth": float("nan")}])
def test_options_out_of_range(options):
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        create("auto", **options)
