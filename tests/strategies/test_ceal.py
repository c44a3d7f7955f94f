from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from strategies import Batch, Budget, Observation, create
from strategies.ceal import depth, weighted_means


def pool(entropies, *, information=None, background=None, labelled=None, ids=None):
    """A pool as CEAL observes it; `background` are the predicted shares of class 0."""
    count = len(entropies)
    shares = torch.tensor(background or [0.5] * count, dtype=torch.float32)
    return Observation(
        ids=tuple(ids or range(count)),
        information=torch.tensor(information or entropies, dtype=torch.float64),
        class_fraction=torch.stack([shares, 1 - shares], dim=1),
        descriptors=torch.tensor([entropies, labelled or [0.0] * count], dtype=torch.float64).T,
        size=torch.full((count, 2), 8),
    )


def ranked(strategy, seen, images=1, *, round=0, labelled=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return strategy.rank(seen, labelled, budget=Budget(images=images), round=round, generator=generator)


def batch(foreground, ids=None, **fields):
    """Images (B,H,W) of which the probability of class 1 is given, or a committee's (M,B,H,W)."""
    foreground = foreground if foreground.ndim == 4 else foreground[None]
    _, count, height, width = foreground.shape
    probabilities = torch.stack([1 - foreground, foreground], dim=2)  # (M,B,C,H,W)
    images = torch.zeros(count, 3, height, width)
    return Batch(ids=ids or tuple(range(count)), images=images, probabilities=probabilities, **fields)


# pseudo-labels


def test_by_hand():
    seen = pool([0.9, 0.01, 0.3, 0.02], ids=("d", "c", "b", "a"))
    ranking = ranked(create("ceal", threshold=0.05), seen)
    assert ranking.ids == ("d", "b", "a", "c")
    assert ranking.pseudo_labels == ("c", "a")  # the most certain first


def test_a_tenth_of_the_pool_is_certain_whatever_its_entropies():
    """None is below the paper's threshold, since a network of few labels is never so sure."""
    seen = pool(np.linspace(0.9, 0.3, 31).tolist())
    assert ranked(create("ceal"), seen).pseudo_labels == (30, 29, 28)
    assert ranked(create("ceal"), seen, round=9).pseudo_labels == (30, 29, 28)
    assert ranked(create("ceal", share=0.5), seen, images=25).pseudo_labels == (30, 29, 28, 27, 26, 25)
    assert ranked(create("ceal", share=0), seen).pseudo_labels == ()
    assert ranked(create("ceal", threshold=0.05), seen).pseudo_labels == ()


def test_a_quantile_is_one_of_images_in_which_more_than_one_class_is_seen():
    """An image in which the network misses its object is the surest of all."""
    seen = pool(
        [0.9, 0.8, 0.001, 0.002, 0.3, 0.4], background=[0.5, 0.5, 1.0, 0.0, 0.5, 0.5], labelled=[0, 0, 0, 0, 0, 0.1]
    )
    assert ranked(create("ceal", share=0.4), seen).pseudo_labels == (4,)  # 0.4 of three
    assert ranked(create("ceal", share=1.0), seen).pseudo_labels == (4, 1)
    assert ranked(create("ceal", threshold=0.5), seen).pseudo_labels == (2, 3, 4)


def test_threshold_falls_and_stops_at_0():
    strategy = create("ceal", threshold=0.05, decay=0.02)
    thresholds = [strategy.threshold(round) for round in range(10)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[:2] == [0.05, pytest.approx(0.03)]
    assert thresholds[3:] == [0] * 7
    seen = pool([0.9, 0.0, 0.02, 0.04])
    assert [len(ranked(strategy, seen, round=round).pseudo_labels) for round in range(4)] == [3, 2, 1, 0]


def test_pseudo_labels_vanish_when_entropy_rises():
    strategy = create("ceal", threshold=0.05)
    assert ranked(strategy, pool([0.9, 0.01, 0.03])).pseudo_labels == (1, 2)
    assert ranked(strategy, pool([0.9, 0.2, 0.03]), round=1).pseudo_labels == (2,)


def test_what_is_asked_for_is_never_a_pseudo_label():
    strategy = create("ceal", threshold=0.5)
    seen = pool([0.1, 0.2, 0.3, 0.4])
    for images in range(1, 6):
        ranking = ranked(strategy, seen, images)
        assert not set(ranking.ids[:images]) & set(ranking.pseudo_labels)
        assert len(ranking.pseudo_labels) == max(4 - images, 0)


def test_never_over_a_human_label():
    strategy = create("ceal", threshold=0.5)
    assert ranked(strategy, pool([0.9, 0.0, 0.1], labelled=[0, 0.01, 0])).pseudo_labels == (2,)
    known = pool([0.1], ids=(2,))
    assert ranked(strategy, pool([0.9, 0.0, 0.1]), labelled=known).pseudo_labels == (1,)


def test_labelled_in_full_is_not_taken_for_certain():
    # whoever judges by the open pixels alone finds no uncertainty left in an image that is labelled
    foreground = torch.stack([torch.full((4, 4), value) for value in (0.999, 0.5, 0.6)])
    drawn = torch.zeros(3, 4, 4, dtype=torch.bool)
    drawn[1] = True
    seen = create("ceal").observe(batch(foreground, labelled=drawn))
    strategy = create("ceal", threshold=0.05)
    assert ranked(strategy, seen).ids == (2, 0, 1)
    assert ranked(strategy, seen).pseudo_labels == (0,)


def test_names_follow_the_images_whatever_their_order():
    entropies = torch.rand(40, generator=torch.Generator().manual_seed(3)).double().tolist()
    ids = [f"image-{one}" for one in range(40)]
    certain = {one for one, value in zip(ids, entropies, strict=True) if value < 0.25}
    strategy = create("ceal", threshold=0.25)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(40)
        shuffled = pool([entropies[one] for one in order], ids=[ids[one] for one in order])
        assert set(ranked(strategy, shuffled, 5).pseudo_labels) == certain


def test_limit_grows_from_the_first_round_on():
    strategy = create("ceal", threshold=1.0, decay=0, confident_from=5, confident_most=2, confident_growth=3)
    seen = pool(np.linspace(0.1, 0.9, 20).tolist())
    assert [len(ranked(strategy, seen, round=round).pseudo_labels) for round in (0, 4, 5, 6, 7)] == [0, 0, 2, 5, 8]


# the melanoma paper's groups


def melanoma_pool(count=200):
    generator = torch.Generator().manual_seed(0)
    entropies = torch.rand(count, generator=generator).tolist()
    background = [1.0 if one % 5 == 0 else 0.5 for one in range(count)]
    information = [0.0 if share == 1 else value for share, value in zip(background, entropies, strict=True)]
    return pool(entropies, information=information, background=background)


def test_groups_are_disjoint_and_complete():
    seen = melanoma_pool()
    ranking = ranked(create("ceal", preset="melanoma"), seen, 35, round=6)
    asked = ranking.ids[:35]
    undetected, uncertain, chance = asked[:10], asked[10:20], asked[20:]
    assert len(set(asked)) == 35
    assert all(one % 5 == 0 for one in undetected)
    order = sorted((one for one in seen.ids if one % 5), key=lambda one: -seen.information[one].item())
    assert list(uncertain) == order[:10]
    assert len(ranking.pseudo_labels) == 40  # 20, and 20 more in the second round that has any
    assert not set(asked) & set(ranking.pseudo_labels)
    assert sorted(chance) != sorted(order[10:25])


def test_groups_are_disjoint_where_nothing_detected_is_the_most_uncertain():
    seen = pool([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], background=[1.0, 1.0, 0.5, 0.5, 1.0, 0.5])
    asked = ranked(create("ceal", groups=(1, 1, 1)), seen, 6).ids
    assert asked[:4] == (0, 1, 2, 3)
    assert set(asked[4:]) == {4, 5}


def test_an_image_where_nothing_is_detected_is_no_pseudo_label():
    # its weighted uncertainty is 0, which passes for certainty
    seen = pool([0.5, 0.001, 0.01, 0.9, 0.002], background=[0.5, 1.0, 0.5, 0.5, 1.0])
    options = {"preset": "melanoma", "confident_from": 0, "groups": (1, 1, 0)}
    ranking = ranked(create("ceal", **options), seen, 1)
    assert ranking.ids[0] == 4
    assert ranking.pseudo_labels[0] == 2
    assert 1 not in ranking.pseudo_labels


def test_missing_undetected_images_are_made_up_for():
    seen = pool([0.5, 0.4, 0.3, 0.2, 0.1], background=[0.5, 0.5, 0.5, 0.5, 1.0])
    ranking = ranked(create("ceal", groups=(2, 1, 0)), seen, 3)
    assert ranking.ids[:3] == (4, 0, 1)


def test_random_group_is_drawn_from_the_generator():
    strategy = create("ceal", groups=(0, 1, 4))
    draws = {ranked(strategy, melanoma_pool(30), 5, seed=seed).ids[:5] for seed in range(8)}
    assert len(draws) > 4
    assert len({draw[0] for draw in draws}) == 1, "the most uncertain one is no matter of chance"


def test_background_that_no_class_is_is_refused():
    with pytest.raises(ValueError, match=r"class_fraction: expected class 7, received 2 classes"):
        ranked(create("ceal", groups=(1, 0, 0), background=7), pool([0.5]))


# weighting


def test_depth_is_the_distance_transform():
    mask = (torch.rand(12, 15, generator=torch.Generator().manual_seed(0)) < 0.8).long().numpy()
    assert np.array_equal(depth(mask, background=0), ndimage.distance_transform_edt(mask))


def test_an_object_that_fills_the_image_has_no_border():
    # the distance to a border that is not there is no number to weigh with
    assert depth(np.ones((3, 4), dtype=np.int64), background=0).tolist() == [[1] * 4] * 3


def test_the_inside_of_an_object_counts_more_than_its_border():
    foreground = torch.zeros(2, 9, 9)
    foreground[:, 2:7, 2:7] = 0.95
    foreground[0, 4, 4] = 0.6  # unsure deep inside
    foreground[1, 2, 4] = 0.6  # as unsure, at the border
    inside, border = create("ceal", weighting="distance").observe(batch(foreground)).information.tolist()
    assert inside > border
    plain = create("ceal").observe(batch(foreground)).information.tolist()
    assert plain[0] == pytest.approx(plain[1])


def test_nothing_detected_weighs_nothing():
    assert create("ceal", weighting="distance").observe(batch(torch.full((1, 4, 4), 0.4))).information.tolist() == [0]


def test_weighted_mean_by_hand():
    classes = torch.tensor([[[0, 1, 1, 1, 0]]])  # 1, 2 and 1 deep
    pixels = torch.tensor([[[1.0, 0.5, 1.0, 0.5, 1.0]]])
    counted = torch.ones(1, 1, 5, dtype=torch.bool)
    assert weighted_means(pixels, classes, counted, [(1, 5)], 0).tolist() == [0.75]  # (0.5 + 2 + 0.5) / 4
    counted[0, 0, 2] = False
    assert weighted_means(pixels, classes, counted, [(1, 5)], 0).tolist() == [0.5]


def test_weighting_ignores_padding(pools):
    strategy = create("ceal", weighting="distance")
    tight = strategy.observe(pools.batch(pools.samples()))
    loose = strategy.observe(pools.batch(pools.samples(), padding=5, garbage=float("nan")))
    assert torch.equal(tight.information, loose.information)
    assert torch.equal(tight.descriptors, loose.descriptors)


def test_what_is_predicted_where_nothing_is_valid_weighs_nothing():
    valid = torch.ones(1, 5, 5, dtype=torch.bool)
    valid[0, 2, 2] = False
    foreground = torch.linspace(0.6, 0.9, 25).view(1, 5, 5)
    inside, outside = foreground.clone(), foreground.clone()
    inside[0, 2, 2], outside[0, 2, 2] = 0.99, 0.01
    strategy = create("ceal", weighting="distance")
    one, other = (strategy.observe(batch(each, valid=valid)).information for each in (inside, outside))
    assert torch.equal(one, other)


def test_certainty_is_entropy_whatever_the_measure(pools):
    seen = pools.batch(pools.samples())
    plain = create("ceal").observe(seen).descriptors
    for measure in ("margin", "var"):
        assert torch.equal(create("ceal", measure=measure).observe(seen).descriptors, plain)


# options


def test_a_measure_of_disagreement_needs_a_committee(pools):
    strategy = create("ceal", measure="vote_entropy")
    assert strategy.needs == {"committee"}
    single = pools.batch(pools.samples())
    with pytest.raises(ValueError, match="committee"):
        strategy.observe(replace(single, probabilities=single.probabilities[:1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "entrpy"}, "measure: expected one of .*entropy.*, received 'entrpy'"),
        ({"threshold": 1.5}, r"threshold: expected a number in \[0, 1\], received 1.5"),
        ({"decay": -1}, "decay: expected a number"),
        ({"groups": (0, 0, 0)}, "groups: expected three numbers, not all of them 0"),
        ({"groups": (1, -1, 1)}, r"groups: expected a number in \[0, inf\], received -1"),
        ({"groups": (1, float("inf"), 1)}, r"groups: expected a number in \[0, inf\], received inf"),
        ({"groups": (1, 1)}, "groups: expected three numbers"),
        ({"confident_from": -1}, "confident_from: expected an integer from 0 up"),
        ({"weighting": "square"}, "weighting: expected one of distance, none, received 'square'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create("ceal", **options)
