from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from strategies import Batch, Budget, Observation, create
from strategies.auto import class_confidence, effort_factors


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


def observed(*batches, **options):
    method = create("auto", points=0, **options)  # of masks; test_questions.py has the choice
    return method, Observation.concatenate(method.observe(one) for one in batches)


def ranked(*batches, seed=0, images=1, known=(), **options):
    method, seen = observed(*batches, **options)
    return rank(method, seen, seed=seed, images=images, known=known)


def rank(method, seen, *, seed=0, images=1, known=()):
    labelled = None
    if known:
        labelled = Observation(
            ids=tuple(known), information=torch.zeros(len(known)), size=torch.full((len(known), 2), 4)
        )
    return method.rank(seen, labelled, budget=Budget(images=images), generator=torch.Generator().manual_seed(seed))


def first_counts(pool, seeds=2000, **options):
    method, seen = observed(pool, **options)
    return Counter(rank(method, seen, seed=seed).ids[0] for seed in range(seeds))


def test_the_effort_by_hand():
    # mean effort 2: relative efforts 1/2 and 3/2
    effort = torch.tensor([1.0, 3.0])
    assert effort_factors(effort, 1.0).tolist() == [0.75, 1.75]
    assert effort_factors(effort, 2.0).tolist() == [0.5625, 3.0625]
    assert effort_factors(torch.zeros(2), 1.0).tolist() == [1.25, 1.25]


def test_what_it_observes_by_hand():
    _, seen = observed(batch(flat(0.75, 0.25)))
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert seen.descriptors[0].tolist() == pytest.approx([0.75 * entropy, 0.25 * entropy, 0.0, 0.0], abs=1e-6)
    assert seen.information.item() == pytest.approx(entropy, abs=1e-6)


def test_a_rare_class_has_its_turn_first():
    common = [flat(0.999, 0.001) for _ in range(8)]
    pool = batch(*common, flat(0.55, 0.45), flat(0.3, 0.7))  # 9 is of the class that is predicted nowhere else
    classes_first = first_counts(pool, share=1, cost_weight=0, seeds=500)
    assert classes_first[8] + classes_first[9] == pytest.approx(490, abs=10)
    assert classes_first[9] > classes_first[8]  # 0.7 of its uncertainty against 0.45 of more
    anyhow = first_counts(pool, share=0, cost_weight=0, seeds=500)
    assert anyhow[9] == pytest.approx(50, abs=25)


def test_the_turns_draw_in_proportion_to_uncertainty_of_the_class():
    pool = batch(flat(0.9, 0.1), flat(0.8, 0.2), flat(0.7, 0.3))  # the second class is the smaller one
    _, seen = observed(pool)
    chances = seen.descriptors[:, 1] / seen.descriptors[:, 1].sum()
    counts = first_counts(pool, share=1)
    for number, chance in enumerate(chances.tolist()):
        assert counts[number] / 2000 == pytest.approx(chance, abs=0.045)


def test_the_turns_draw_cheap_images_sooner():
    pool = batch(striped((0.6, 0.4), (0.4, 0.6)), flat(0.6, 0.4))
    _, seen = observed(pool)
    chances = seen.descriptors[:, 1] / torch.tensor([2.25, 0.25])  # efforts 12 and 0 of a mean of 6, and 1/4
    assert first_counts(pool, share=1)[1] / 2000 == pytest.approx(float(chances[1] / chances.sum()), abs=0.03)


def test_the_other_picks_draw_cheap_images_sooner():
    expensive, cheap = striped((0.6, 0.4), (0.4, 0.6)), flat(0.6, 0.4)
    # efforts 12 and 0 of a mean of 6: 1 / (2 + 1/4) against 1 / (1/4)
    counts = first_counts(batch(expensive, cheap), share=0)
    assert counts[1] / 2000 == pytest.approx(0.9, abs=0.03)
    assert first_counts(batch(expensive, cheap), share=0, cost_weight=0)[1] / 2000 == pytest.approx(0.5, abs=0.045)


def test_half_of_the_picks_go_to_the_classes():
    common = [flat(1.0, 0.0) for _ in range(90)]
    pool = batch(*common, *(flat(0.3, 0.7) for _ in range(10)))
    method, seen = observed(pool)
    rare = [sum(one >= 90 for one in rank(method, seen, seed=seed).ids[:8]) for seed in range(60)]
    # four of eight picks are turns, of two classes that are both likely in the ten images only
    assert min(rare) >= 4
    assert sum(rare) / 60 < 6


def test_every_image_comes_once_without_any_uncertainty_too():
    assert sorted(ranked(batch(*(flat(1.0, 0.0) for _ in range(5)))).ids) == [0, 1, 2, 3, 4]


def test_pixels_that_are_labelled_promise_nothing_and_take_nothing():
    images = [striped((0.6, 0.4), (0.4, 0.6)), striped((0.6, 0.4), (0.4, 0.6))]
    labelled = torch.zeros(2, 4, 4, dtype=torch.bool)
    labelled[0] = True
    _, seen = observed(batch(*images, labelled=labelled))
    assert seen.descriptors[0].tolist() == [0.0, 0.0, 0.0, 0.0]
    assert (seen.descriptors[1] > 0).all()


def test_the_effort_is_counted_in_pixels_of_the_original_image():
    images = torch.stack([striped((0.6, 0.4), (0.4, 0.6))] * 2)
    size = torch.tensor([[4, 4], [40, 40]])
    _, seen = observed(Batch(ids=(0, 1), images=torch.rand(2, 3, 4, 4), probabilities=images[None], size=size))
    assert seen.descriptors[:, -2].tolist() == [12.0, 120.0]  # three upright edges, each as long as the image is high


def test_the_confidence_counts_every_class_alike():
    sky = torch.tensor([[0.9] * 15 + [0.45], [0.1] * 15 + [0.55]]).view(1, 2, 4, 4)
    everything = torch.ones(1, 4, 4, dtype=torch.bool)
    assert class_confidence(sky, everything).item() == pytest.approx((0.9 + 0.55) / 2)
    without_the_bird = everything.clone()
    without_the_bird[0, 3, 3] = False
    assert class_confidence(sky, without_the_bird).item() == 0
    assert class_confidence(sky, torch.zeros_like(everything)).item() == 0


def half(chance, side=4):
    """An image of two halves, each of its class with this probability."""
    return striped((chance, 1 - chance), (1 - chance, chance), side)


SURE = [half(one) for one in (0.95, 0.85, 0.99, 0.7, 0.9)]


def test_an_image_of_a_single_class_is_no_pseudo_label():
    found = ranked(
        batch(*SURE, flat(0.999, 0.001), flat(0.001, 0.999)), known=(10,), confident=10, confident_from=0, images=1
    )
    assert {5, 6} & set(found.pseudo_labels) == set()
    assert len(found.pseudo_labels) >= 4


def test_the_surest_images_beyond_the_budget_are_proposed_as_pseudo_labels():
    pool = batch(*SURE)
    found = ranked(pool, known=(10, 11, 12, 13))
    wanted = [one for one in (2, 0, 4, 1) if one != found.ids[0]][:2]  # half of four, by 0.99, 0.95, 0.9, 0.85
    assert found.pseudo_labels == tuple(wanted)
    every = ranked(pool, known=(10, 11, 12, 13), confident=10)
    assert set(every.pseudo_labels) == {0, 1, 2, 4} - {every.ids[0]}  # 3 is below the threshold
    assert set(ranked(pool, known=(10,), confident=10, confident_from=0).pseudo_labels) | {
        ranked(pool, known=(10,)).ids[0]
    } == {0, 1, 2, 3, 4}


def test_no_pseudo_labels_without_labels_or_when_they_are_turned_off():
    pool = batch(*SURE)
    assert ranked(pool).pseudo_labels == ()
    assert ranked(pool, known=(10,)).pseudo_labels == ()  # half of one label
    assert ranked(pool, known=(10, 11, 12, 13), confident=0).pseudo_labels == ()


def test_what_a_person_labelled_in_part_is_no_pseudo_label():
    labelled = torch.zeros(5, 4, 4, dtype=torch.bool)
    labelled[2, 0, 0] = True
    found = ranked(batch(*SURE, labelled=labelled), known=(2, 10, 11, 12), confident=10, confident_from=0)
    assert 2 not in found.pseudo_labels
    assert len(found.pseudo_labels) >= 3


def test_a_budget_of_pixels_keeps_what_it_pays_for_from_being_a_pseudo_label():
    method, seen = observed(batch(*SURE), confident=10, confident_from=0)
    known = Observation(ids=(10,), information=torch.zeros(1), size=torch.full((1, 2), 4))
    found = method.rank(seen, known, budget=Budget(pixels=48), generator=torch.Generator().manual_seed(0))
    assert set(found.pseudo_labels) == set(found.ids[3:])


@pytest.mark.parametrize(
    "options",
    [{"share": 1.5}, {"cost_weight": -1}, {"confident": -1}, {"confident_from": 1.5}, {"measure": "gini"}],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected"):
        create("auto", **options)
