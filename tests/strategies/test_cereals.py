from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from strategies import Batch, Budget, Observation, Region, create
from strategies.cereals import FUSIONS, ratio
from strategies.uncertainty import MEASURES

TINY = {"window": 4, "stride": 2, "cost_width": 4, "iterations": 3, "blur": 1.0}


def grids(*windows):
    """A pool of images of 4 x 8 pixels with the (information, cost) of two windows of 4 x 4 each."""
    sums = torch.tensor(windows, dtype=torch.float64)  # (N,windows,kinds)
    return Observation(
        ids=tuple("abcdefgh"[: len(windows)]),
        information=torch.zeros(len(windows)),
        size=torch.tensor([[4, 8]] * len(windows)),
        regions=tuple(one.T[:, None] for one in sums),
    )


def ranked(strategy, pool, *, images=None, pixels=None):
    budget = Budget(images=images, pixels=pixels)
    return strategy.rank(pool, None, budget=budget, generator=torch.Generator())


def best(pool, pixels=10**6, **options):
    """The chosen windows as (id, left, score), in the order of their scores."""
    ranking = ranked(create("cereals", window=4, stride=4, **options), pool, pixels=pixels)
    found = [(one, box.left, box.score) for one, boxes in ranking.regions.items() for box in boxes]
    return sorted(found, key=lambda one: -one[2])


def bright(count=6, first=0, seed=0, size=(24, 32)):
    """Images with a bright right half, where labelling takes ten times the effort."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.2 * torch.rand(count, 3, *size, generator=generator)
    images[..., size[1] // 2 :] += 0.7
    cost = torch.full((count, *size), 0.1)
    cost[..., size[1] // 2 :] = 1
    foreground = torch.rand(1, count, 1, *size, generator=generator)
    return Batch(
        ids=tuple(range(first, first + count)),
        images=images,
        labelled=torch.ones(count, *size, dtype=torch.bool),
        cost=cost,
        probabilities=torch.cat([foreground, 1 - foreground], dim=2),
    )


def unlabelled(batch):
    return replace(batch, labelled=None, cost=None)


def prepared(batches=None, *, seed=0, **options):
    extra = {name: options.pop(name) for name in ("deadline", "progress") if name in options}
    strategy = create("cereals", **TINY | options)
    generator = torch.Generator().manual_seed(seed)
    strategy.prepare([bright()] if batches is None else batches, [], generator=generator, **extra)
    return strategy


# scores


def test_by_hand():
    # information 1, 3, 2, 5 -> 0, 1/2, 1/4, 1 and cost 2, 0, 1, 4 -> 1/2, 0, 1/4, 1
    pool = grids([[1.0, 2.0], [3.0, 0.0]], [[2.0, 1.0], [5.0, 4.0]])
    assert best(pool) == [("a", 4, 0.5), ("b", 0, 0.1875), ("a", 0, 0.0), ("b", 4, 0.0)]


def test_constant_cost_gives_the_order_of_information():
    pool = grids([[1.0, 3.0], [4.0, 3.0]], [[3.0, 3.0], [2.0, 3.0]])
    for fusion in FUSIONS:
        assert [one[:2] for one in best(pool, fusion=fusion)] == [("a", 4), ("b", 0), ("b", 4), ("a", 0)]


def test_the_most_expensive_window_scores_0():
    # though it promises more than all others
    found = {one[:2]: one[2] for one in best(grids([[1.0, 0.0], [4.0, 9.0]], [[2.0, 3.0], [1.0, 1.0]]))}
    assert found == {("a", 0): 0, ("a", 4): 0, ("b", 0): pytest.approx((1 - 3 / 9) / 3), ("b", 4): 0}


def test_constant_information_gives_the_order_of_cost():
    pool = grids([[2.0, 3.0], [2.0, 1.0]], [[2.0, 2.0], [2.0, 9.0]])
    assert [one[:2] for one in best(pool)] == [("a", 4), ("b", 0), ("a", 0), ("b", 4)]


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_maps_give_no_nan_and_go_by_id(value):
    found = best(grids(*[[[value, value]] * 2] * 3))
    assert [one[:2] for one in found] == [(one, left) for one in "abc" for left in (0, 4)]
    assert np.isfinite([one[2] for one in found]).all()


def test_cost_changes_the_choice():
    pool = grids([[8.0, 9.0], [7.0, 1.0]], [[0.0, 0.0], [1.0, 0.0]])
    assert best(pool, pixels=16)[0][:2] == ("a", 4)
    assert best(pool, pixels=16, fusion="information")[0][:2] == ("a", 0)


def test_fusions():
    information, cost = np.array([1.0, 0.5, 0.0]), np.array([1.0, 0.25, 0.0])
    values = {name: fusion(information, cost).tolist() for name, fusion in FUSIONS.items()}
    assert values["product"] == [0, 0.375, 0]
    assert values["difference"] == [0, 0.25, 0]
    assert values["convex"] == [0.5, 0.625, 0.5]
    assert values["ratio"] == pytest.approx([1 / 1.1, 0.5 / 0.35, 0])
    assert values["information"] == [1, 0.5, 0]


def test_a_fusion_of_ones_own():
    pool = grids([[1.0, 2.0], [3.0, 0.0]], [[2.0, 1.0], [5.0, 4.0]])
    assert best(pool, fusion=partial(ratio, epsilon=1.0))[0][2] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="fusion: expected finite scores"):
        best(pool, fusion=lambda information, cost: information + np.inf)


def test_a_small_sharp_image_comes_before_a_large_dull_one():
    """Both are smaller than the window. Of sums the large one would have more, for more of a budget that is an area."""
    dull, sharp = (torch.tensor([one, 1 - one]).view(1, 1, 2, 1, 1) for one in (0.9, 0.5))
    strategy = create("cereals", fusion="information")
    large = strategy.observe(
        Batch(ids=("a",), images=torch.zeros(1, 3, 40, 60), probabilities=dull.expand(1, 1, 2, 40, 60))
    )
    small = strategy.observe(
        Batch(ids=("b",), images=torch.zeros(1, 3, 20, 20), probabilities=sharp.expand(1, 1, 2, 20, 20))
    )
    assert 2400 * large.information[0] > 400 * small.information[0]
    ranking = ranked(strategy, Observation.concatenate([large, small]), pixels=400)
    assert ranking.regions.keys() == {"b"}


def test_the_cost_of_a_region_is_that_of_all_its_pixels():
    strategy = prepared()
    seen = strategy.observe(unlabelled(bright(1, seed=5)))
    ((box,), *_) = ranked(strategy, seen, pixels=16).regions.values()
    assert box.cost == pytest.approx(16 * seen.regions[0][1][box.top // 2, box.left // 2].item())


# regions


def test_what_is_planned_is_what_is_labelled_before_the_next_ranking():
    """Budgets of images are labelled image by image: each asks for what is best in one image, then in the next."""
    pool = grids([[9.0, 0.0], [8.0, 0.0]], [[7.0, 0.0], [1.0, 0.0]], [[6.0, 0.0], [5.0, 0.0]])
    strategy = create("cereals", window=4, stride=4, fusion="information")
    by_area = ranked(strategy, pool, pixels=64).regions
    assert {name: len(boxes) for name, boxes in by_area.items()} == {"a": 2, "b": 1, "c": 1}
    by_image = ranked(strategy, pool, images=2).regions
    assert {name: len(boxes) for name, boxes in by_image.items()} == {"a": 2, "b": 1, "c": 1}
    one_each = ranked(
        strategy, grids([[9.0, 0.0], [2.0, 0.0]], [[7.0, 0.0], [1.0, 0.0]], [[6.0, 0.0], [5.0, 0.0]]), images=1
    )
    assert {name: len(boxes) for name, boxes in one_each.regions.items()} == {"a": 1, "b": 1}


def test_no_overlap_in_any_round():
    strategy = create("cereals", window=8, stride=3)
    generator = torch.Generator().manual_seed(0)
    foreground = torch.rand(1, 3, 1, 30, 37, generator=generator)
    batch = Batch(
        ids=(1, 2, 3),
        images=torch.rand(3, 3, 30, 37, generator=generator),
        probabilities=torch.cat([foreground, 1 - foreground], dim=2),
    )
    pool = strategy.observe(batch)
    asked = dict.fromkeys(pool.ids, ())
    for turn in range(9):
        seen = replace(pool, excluded=tuple(asked[one] for one in pool.ids))
        ranking = ranked(strategy, seen, pixels=500)
        spent = sum(box.height * box.width for boxes in ranking.regions.values() for box in boxes)
        assert spent <= 500
        assert turn > 1 or spent > 500 - 64, "later on there is not that much left"
        asked = {one: (*boxes, *ranking.regions.get(one, ())) for one, boxes in asked.items()}
    for boxes in asked.values():
        painted = np.zeros((30, 37), dtype=int)
        for box in boxes:
            painted[box.top : box.top + box.height, box.left : box.left + box.width] += 1
        assert painted.max() == 1


def test_windows_are_the_means_of_the_maps():
    strategy = create("cereals", **TINY, measure="margin")
    batch = unlabelled(bright(2))
    pixels = 1 - (batch.probabilities[0, :, 0] - batch.probabilities[0, :, 1]).abs()  # (B,H,W)
    seen = strategy.observe(batch)
    for image in range(2):
        information = seen.regions[image][0]
        assert information.shape == (11, 15)
        assert information[3, 5].item() == pytest.approx(pixels[image, 6:10, 10:14].mean().item(), abs=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("classes", [2, 5])
def test_any_pixel_measure_drives_the_choice_of_windows(measure, classes):
    generator = torch.Generator().manual_seed(classes)
    probabilities = torch.randn(4, 2, classes, 16, 24, generator=generator).mul(3).softmax(dim=2)
    batch = Batch(ids=(1, 2), images=torch.zeros(2, 3, 16, 24), probabilities=probabilities)
    strategy = create("cereals", measure=measure, fusion="information", window=8, stride=8)
    ranking = ranked(strategy, strategy.observe(batch), pixels=64)
    sums = MEASURES[measure](probabilities).double().unfold(1, 8, 8).unfold(2, 8, 8).sum(dim=(-2, -1))  # (B,2,3)
    image, row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    (box,) = ranking.regions[int(image) + 1]
    assert ranking.ids[0] == image + 1
    assert (box.top, box.left) == (8 * row, 8 * column)


def test_boxes_are_in_pixels_of_the_original():
    # seen at half size and a third: the window of 8 is 4 x 8/3 pixels of the map
    probabilities = torch.tensor([0.95, 0.05]).view(1, 1, 2, 1, 1).repeat(1, 1, 1, 20, 30)
    probabilities[..., 10:14, 16:24] = 0.5
    batch = Batch(
        ids=(1,), images=torch.zeros(1, 3, 20, 30), probabilities=probabilities, size=torch.tensor([[40, 90]])
    )
    strategy = create("cereals", window=8, stride=4, fusion="information")
    ranking = ranked(strategy, strategy.observe(batch), pixels=64)
    (box,) = ranking.regions[1]
    assert (box.top, box.left, box.height, box.width) == (20, 48, 8, 8)


def test_images_that_were_shrunk_compare_with_others():
    # the same photograph, once at half the resolution: its windows hold as much
    strategy = create("cereals", **TINY)
    uniform = torch.full((1, 1, 2, 16, 16), 0.5)
    large = strategy.observe(Batch(ids=(1,), images=torch.zeros(1, 3, 16, 16), probabilities=uniform))
    small = strategy.observe(
        Batch(
            ids=(1,),
            images=torch.zeros(1, 3, 8, 8),
            probabilities=uniform[..., ::2, ::2],
            size=torch.tensor([[16, 16]]),
        )
    )
    assert torch.allclose(large.regions[0], small.regions[0])


def test_labelled_pixels_have_neither_information_nor_cost():
    batch = unlabelled(bright(1))
    drawn = torch.zeros_like(batch.valid)
    drawn[:, :, :16] = True
    seen = create("cereals", **TINY).observe(replace(batch, labelled=drawn))
    assert (seen.regions[0][:, :, :7] == 0).all()
    assert (seen.regions[0][:, :, 8:] > 0).all()


def test_images_without_regions_observed_are_refused():
    pool = Observation(ids=(1,), information=torch.zeros(1), size=torch.ones(1, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"Observation.regions: expected the windows that cereals observes"):
        ranked(create("cereals"), pool, images=1)


def test_a_measure_of_disagreement_needs_a_committee():
    strategy = create("cereals", measure="vote_entropy")
    assert strategy.needs == {"committee", "examples"}
    assert create("cereals").needs == {"probabilities", "examples"}
    batch = unlabelled(bright(1))
    for members in (1, 4):
        copies = replace(batch, probabilities=batch.probabilities.repeat(members, 1, 1, 1, 1))
        with pytest.raises(ValueError, match="committee"):
            strategy.observe(copies)


# cost


def test_boundaries_stand_for_cost_before_there_is_any_on_record():
    strategy = create("cereals", window=8, stride=8)
    strategy.prepare([unlabelled(bright())], [], generator=torch.Generator())
    foreground = torch.full((1, 1, 1, 8, 16), 0.9)
    foreground[..., 2:6, 10:14] = 0.1  # a square of 4 x 4 in the right window
    batch = Batch(
        ids=(1,), images=torch.zeros(1, 3, 8, 16), probabilities=torch.cat([foreground, 1 - foreground], dim=2)
    )
    assert strategy.observe(batch).regions[0][1].tolist() == [[0, 16 / 64]]  # per pixel of the window


def test_true_cost_and_labels_never_enter_the_scores():
    strategy = prepared()
    batch = unlabelled(bright(2, seed=5))
    plain = strategy.observe(batch)
    told = strategy.observe(replace(batch, cost=1000 * torch.rand(2, 24, 32)))
    assert all(torch.equal(*pair) for pair in zip(plain.regions, told.regions, strict=True))


def test_cost_is_learned():
    strategy = prepared(iterations=80, learning_rate=0.01)
    cost = strategy.observe(unlabelled(bright(2, first=50, seed=7))).regions[0][1]
    cheap, dear = cost[:, :6].mean().item(), cost[:, -6:].mean().item()  # per pixel
    assert dear > 3 * cheap
    assert dear == pytest.approx(1, rel=0.5)


def test_unit_of_effort_does_not_matter():
    batch = bright()
    strategy = prepared([batch])
    seconds = prepared([replace(batch, cost=batch.cost * 1000)])
    seen = unlabelled(bright(1, seed=9))
    one, other = (each.observe(seen).regions[0][1] for each in (strategy, seconds))
    assert torch.allclose(one * 1000, other, rtol=1e-3)


def test_order_and_size_of_the_training_batches_do_not_matter():
    halves = [bright(3, first=0, seed=1), bright(3, first=3, seed=2)]
    seen = unlabelled(bright(1, seed=9))
    one, other = (prepared(order).observe(seen).regions[0] for order in (halves, halves[::-1]))
    assert torch.equal(one, other)


def test_seeded():
    seen = unlabelled(bright(1, seed=9))
    before = torch.random.get_rng_state()
    one, same, other = (prepared(seed=seed).observe(seen).regions[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_interrupted_training_goes_on_from_a_file(tmp_path):
    whole, halted = prepared(iterations=6), prepared(iterations=2)
    torch.save(halted.state_dict(), tmp_path / "cereals.pt")
    resumed = create("cereals", **TINY | {"iterations": 6})
    resumed.load_state_dict(torch.load(tmp_path / "cereals.pt", weights_only=True))
    told = []
    resumed.prepare([bright()], [], generator=torch.Generator(), progress=lambda *done: told.append(done))
    assert told == [(3, 6), (4, 6), (5, 6), (6, 6)]
    seen = unlabelled(bright(1, seed=9))
    assert torch.equal(resumed.observe(seen).regions[0], whole.observe(seen).regions[0])


def test_a_deadline_leaves_something_to_observe_with():
    strategy = prepared(deadline=time.monotonic())
    assert strategy.state_dict()["step"] == 0
    assert strategy.observe(unlabelled(bright(1))).regions[0].isfinite().all()


def test_effort_of_nothing_teaches_nothing():
    batch = bright()
    assert prepared(fusion="information").state_dict() == {}
    assert prepared([replace(batch, cost=torch.zeros_like(batch.cost))]).state_dict() == {}


def test_predicted_cost_is_independent_of_batch_and_padding(pools):
    strategy = prepared()
    samples = pools.samples()
    tight = Observation.concatenate(strategy.observe(batch) for batch in pools.batches(samples, 1))
    loose = strategy.observe(pools.batch(samples, padding=5, garbage=0.5))
    assert all(torch.equal(*pair) for pair in zip(tight.regions, loose.regions, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "entrpy"}, "measure: expected one of .*entropy"),
        ({"fusion": "sum"}, "fusion: expected one of convex, difference, .*received 'sum'"),
        ({"window": 0}, "window: expected an integer from 1 up"),
        ({"stride": 200}, "stride: expected at most the window of 128, received 200"),
        ({"blur": 0}, "blur: expected a number"),
        ({"iterations": 0}, "iterations: expected an integer from 1 up"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create("cereals", **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_trains_and_observes_on_a_gpu():
    def moved(batch):
        names = ("images", "probabilities", "valid", "labelled", "cost", "size")
        return replace(batch, **{name: getattr(batch, name).cuda() for name in names})

    strategy = prepared([moved(bright())], iterations=80, learning_rate=0.01)
    seen = unlabelled(bright(1, seed=9))
    on_gpu = strategy.observe(replace(unlabelled(moved(bright(1, seed=9))), size=None)).regions[0]
    assert on_gpu.is_cuda
    assert torch.allclose(on_gpu.cpu(), strategy.observe(seen).regions[0], rtol=1e-2, atol=1e-2)


def test_a_region_is_a_box_with_its_score():
    (box, *_) = ranked(create("cereals", window=4, stride=4), grids([[1.0, 0.0], [0.0, 0.0]]), pixels=16).regions["a"]
    assert box == Region(top=0, left=0, height=4, width=4, score=1.0)
