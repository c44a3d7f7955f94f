from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from asked_points import pixel_box, pixels, ranked, seeded

from strategies import Batch, Budget, Observation, create


def image(shape, name="a", **fields):
    return Batch(ids=(name,), images=torch.zeros(1, 3, *shape), **fields)


def drawn(batch, *, seed=0, asked=None, **options):
    strategy = create("random_points", **options)
    strategy.prepare([], [], generator=seeded(seed))
    return ranked(strategy, batch, seed=seed, asked=asked)


@pytest.mark.parametrize("size", [(3, 5), (7, 4), (6, 10)])
def test_every_pixel_of_the_original_is_as_likely(size):
    """A place that stands for more pixels of the original is drawn more often, and each of them as often as others."""
    batch = image((3, 5), size=torch.tensor([size]))
    counts = Counter(one for seed in range(3000) for one in pixels(drawn(batch, seed=seed, count=2)))
    expected = 3000 * 2 / (size[0] * size[1])
    assert counts.keys() == {(row, column) for row in range(size[0]) for column in range(size[1])}
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_what_points_count_is_unbiased():
    """A mask of which 30 % is object, in a corner: the mean over many draws is that, in spite of the answered part."""
    truth = np.zeros((20, 20), bool)
    truth[:10, :12] = True
    labelled = torch.zeros(1, 20, 20, dtype=torch.bool)
    labelled[0, :, 10:] = True
    share = truth[:, :10].mean()  # of what can be asked about
    batch = image((20, 20), labelled=labelled)
    found = [truth[row, column] for seed in range(1000) for row, column in pixels(drawn(batch, seed=seed, count=7))]
    assert np.mean(found) == pytest.approx(share, abs=0.02)


def test_a_point_in_each_part_of_the_image():
    for seed in range(20):
        found = pixels(drawn(image((16, 16)), seed=seed, count=16))
        assert {(row // 4, column // 4) for row, column in found} == {(r, c) for r in range(4) for c in range(4)}


def test_void_answered_and_padding_are_never_asked():
    valid, labelled = torch.ones(1, 6, 6, dtype=torch.bool), torch.zeros(1, 6, 6, dtype=torch.bool)
    valid[0, 2, 2] = valid[0, 5, 5] = False
    labelled[0, 0] = True
    ranking = drawn(image((6, 6), valid=valid, labelled=labelled), count=99, asked={"a": [pixel_box(3, 3)]})
    found = pixels(ranking)
    assert len(found) == len(set(found)) == 36 - 2 - 6 - 1, "as many as there are"
    assert not {(2, 2), (5, 5), (3, 3)} & set(found)
    assert all(row > 0 for row, _ in found)


def test_an_image_without_a_free_pixel_comes_last_and_has_no_points():
    whole = image((4, 4), "a", labelled=torch.ones(1, 4, 4, dtype=torch.bool))
    strategy = create("random_points")
    pool = Observation.concatenate(map(strategy.observe, (whole, image((4, 4), "b"))))
    for seed in range(10):
        ranking = strategy.rank(pool, None, budget=Budget(images=1), generator=seeded(seed))
        assert ranking.ids == ("b", "a")
        assert ranking.points.keys() == {"b"}


def test_images_that_were_asked_least_come_first_in_any_order():
    strategy = create("random_points", count=2)
    pool = Observation.concatenate(strategy.observe(image((8, 8), name)) for name in "abcd")
    asked = {"a": [pixel_box(0, 0), pixel_box(7, 7)], "b": [pixel_box(0, 0)]}  # b: not a whole round of k = 2
    pool = replace(pool, excluded=tuple(tuple(asked.get(name, ())) for name in pool.ids))
    orders = {strategy.rank(pool, None, budget=Budget(images=1), generator=seeded(seed)).ids for seed in range(60)}
    assert {order[-1] for order in orders} == {"a"}
    assert len(orders) == 6


def test_follow_up_rounds_ask_every_pixel_once():
    asked = []
    for seed in range(8):
        labelled = torch.zeros(1, 5, 7, dtype=torch.bool)
        for row, column in asked:
            labelled[0, row, column] = True
        asked += pixels(drawn(image((5, 7), labelled=labelled), seed=seed, count=5))
    assert sorted(asked) == [(row, column) for row in range(5) for column in range(7)]


def test_guesses_come_with_a_network():
    probabilities = torch.tensor([0.25, 0.75]).view(1, 1, 2, 1, 1).expand(1, 1, 2, 3, 3)
    point = drawn(image((3, 3), probabilities=probabilities), count=1).points["a"][0]
    assert (point.guess, point.margin, point.score) == (1, 0.5, 0.0)
    assert drawn(image((3, 3)), count=1).points["a"][0].guess is None


def test_seeded():
    batch = image((40, 30))
    assert drawn(batch, seed=3).points == drawn(batch, seed=3).points
    assert len({tuple(pixels(drawn(batch, seed=seed))) for seed in range(10)}) == 10


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="count: expected an integer from 1 up, received 0"):
        create("random_points", count=0)
