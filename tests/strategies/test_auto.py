from __future__ import annotations

from collections import Counter

import pytest
import torch

from strategies import Batch, Budget, Observation, create
from strategies.auto import scores

CERTAIN = {"beta": 1e6, "decay": 0.0}


def batch(*images, ids=None, labelled=None):
    """Images given by their probabilities (C,H,W)."""
    probabilities = torch.stack([torch.as_tensor(one, dtype=torch.float32) for one in images])
    extra = {} if labelled is None else {"labelled": labelled}
    pixels = torch.rand(len(images), 3, *probabilities.shape[-2:])
    return Batch(ids=ids or tuple(range(len(images))), images=pixels, probabilities=probabilities[None], **extra)


def flat(*chances, side=4):
    """An image whose pixels all have these probabilities."""
    return torch.tensor(chances).view(-1, 1, 1).expand(-1, side, side)


def striped(first, second, side=4):
    """An image whose columns have either probabilities in turn: boundaries everywhere."""
    return torch.stack([torch.tensor(second if column % 2 else first) for column in range(side)], dim=1)[
        :, None
    ].expand(-1, side, -1)


def ranked(*batches, seed=0, round=0, **options):
    method = create("auto", **{**CERTAIN, **options})
    seen = Observation.concatenate(method.observe(one) for one in batches)
    generator = torch.Generator().manual_seed(seed)
    return method.rank(seen, None, budget=Budget(images=1), round=round, generator=generator).ids


def test_without_balance_effort_and_noise_it_is_entropy():
    chances = [0.5, 0.9, 0.6, 0.8, 0.7]
    pool = batch(*(flat(one, 1 - one) for one in chances))
    assert ranked(pool, balance=0, cost_weight=0) == (0, 2, 4, 3, 1)
    entropy = create("entropy")
    seen = entropy.observe(pool)
    assert (
        ranked(pool, balance=0, cost_weight=0)
        == entropy.rank(seen, None, budget=Budget(images=1), generator=torch.Generator()).ids
    )


def test_the_score_by_hand():
    # image 0: 0.1 · 0.25^-1/2 + 0.2 · 0.01^-1/2 = 0.2 + 2 over (1/2 + 1/4)
    found = scores(
        torch.tensor([[0.1, 0.2], [0.4, 0.0]]),
        torch.tensor([0.25, 0.01]),
        torch.tensor([1.0, 3.0]),
        balance=0.5,
        cost_weight=1.0,
    )
    assert found.tolist() == pytest.approx([2.2 / 0.75, 0.8 / 1.75])


def test_a_rare_class_comes_first_and_only_with_balance():
    common = [flat(0.999, 0.001) for _ in range(8)]
    pool = batch(*common, flat(0.8, 0.2), flat(0.3, 0.7))  # 9 is about the class that is predicted nowhere else
    assert ranked(pool, balance=1, cost_weight=0)[0] == 9
    slightly_less = batch(*common, flat(0.7, 0.3), flat(0.28, 0.72))
    assert ranked(slightly_less, balance=0, cost_weight=0)[0] == 8
    assert ranked(slightly_less, balance=1, cost_weight=0)[0] == 9


def test_of_two_images_that_promise_the_same_the_cheaper_one_comes_first():
    expensive, cheap = striped((0.6, 0.4), (0.4, 0.6)), flat(0.6, 0.4)
    assert ranked(batch(expensive, cheap), balance=0)[0] == 1
    more = striped((0.5, 0.5), (0.49, 0.51))  # it promises more, by a percent or two, for far more effort
    assert ranked(batch(more, cheap), balance=0)[0] == 1
    assert ranked(batch(more, cheap), balance=0, cost_weight=0)[0] == 0


def test_an_image_on_which_nothing_is_predicted_is_not_free():
    # no boundary at all, and hardly any doubt: dividing by its effort alone would put it first
    sure, torn = flat(0.9999, 0.0001), striped((0.55, 0.45), (0.45, 0.55))
    assert ranked(batch(sure, torn))[0] == 1


def test_pixels_that_are_labelled_promise_nothing_and_take_nothing():
    images = [striped((0.6, 0.4), (0.4, 0.6)), striped((0.6, 0.4), (0.4, 0.6))]
    labelled = torch.zeros(2, 4, 4, dtype=torch.bool)
    labelled[0] = True
    method = create("auto")
    seen = method.observe(batch(*images, labelled=labelled)).descriptors
    assert seen[0].tolist() == [0.0, 0.0, 0.0]
    assert (seen[1] > 0).all()
    assert ranked(batch(*images, labelled=labelled)) == (1, 0)


def test_the_first_is_drawn_in_proportion_to_the_power_of_the_score():
    pool = batch(flat(0.9, 0.1), flat(0.7, 0.3), flat(0.5, 0.5))
    seen = create("auto").observe(pool)
    score = scores(
        seen.descriptors[:, :-1], seen.class_fraction.mean(dim=0), seen.descriptors[:, -1], balance=0.0, cost_weight=0.0
    )
    options = {"balance": 0, "cost_weight": 0, "beta": 2.0, "decay": 1.0}
    counts = Counter(ranked(pool, seed=seed, **options)[0] for seed in range(2000))
    for number, value in enumerate(score.tolist()):
        assert counts[number] / 2000 == pytest.approx(value**2 / float(score.square().sum()), abs=0.045)


def test_the_noise_decays_with_the_round():
    pool = batch(flat(0.6, 0.4), flat(0.62, 0.38), flat(0.64, 0.36), flat(0.66, 0.34))
    orders = [
        len({ranked(pool, seed=seed, round=round, beta=4.0, decay=0.7) for seed in range(40)}) for round in (0, 6, 60)
    ]
    assert orders[0] > orders[1] > orders[2] == 1


def test_nothing_to_tell_apart_goes_by_id():
    assert ranked(batch(flat(1.0, 0.0), flat(1.0, 0.0), flat(1.0, 0.0))) == (0, 1, 2)


def test_the_effort_is_counted_in_pixels_of_the_original_image():
    images = torch.stack([striped((0.6, 0.4), (0.4, 0.6))] * 2)
    size = torch.tensor([[4, 4], [40, 40]])
    seen = create("auto").observe(
        Batch(ids=(0, 1), images=torch.rand(2, 3, 4, 4), probabilities=images[None], size=size)
    )
    assert seen.descriptors[:, -1].tolist() == [12.0, 120.0]  # three upright edges, each as long as the image is high


@pytest.mark.parametrize(
    "options", [{"balance": 1.5}, {"cost_weight": -1}, {"beta": 0}, {"decay": 1.5}, {"measure": "gini"}]
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected"):
        create("auto", **options)
