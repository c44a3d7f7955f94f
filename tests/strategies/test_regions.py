from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import Budget, Observation, Region
from strategies.regions import Windows, choose, normalised, rank

sides = st.integers(1, 30)


@st.composite
def windows(draw):
    window = draw(st.integers(1, 12))
    return Windows(window=window, stride=draw(st.integers(1, window)))


def boxes(windows, size):
    """Every window of an image as (top, bottom, left, right), row by row."""
    height, width = size
    return [
        (top, top + windows.extent(height), left, left + windows.extent(width))
        for top, left in itertools.product(windows.starts(height).tolist(), windows.starts(width).tolist())
    ]


def overlap(one: Region, other: Region) -> bool:
    return (
        one.top < other.top + other.height
        and other.top < one.top + one.height
        and one.left < other.left + other.width
        and other.left < one.left + one.width
    )


def area(regions) -> int:
    return sum(region.height * region.width for region in regions)


# sums


@settings(max_examples=60, deadline=None)
@given(windows(), sides, sides, st.integers(0, 2**32))
def test_sums_equal_the_naive_sum(windows, height, width, seed):
    pixels = torch.rand(height, width, generator=torch.Generator().manual_seed(seed))
    sums = windows.sums(pixels, (height, width))
    naive = [
        pixels[top:bottom, left:right].double().sum().item()
        for top, bottom, left, right in boxes(windows, (height, width))
    ]
    assert sums.flatten().tolist() == pytest.approx(naive, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(windows(), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))
def test_a_shrunk_map_is_summed_as_if_enlarged(windows, height, width, down, right):
    pixels = np.random.default_rng(height).random((height, width))
    size = (height * down, width * right)
    large = torch.from_numpy(np.kron(pixels, np.ones((down, right))) / (down * right))  # the same total
    small = windows.sums(torch.from_numpy(pixels), size)
    assert torch.allclose(small, windows.sums(large, size), rtol=0, atol=1e-7)


@given(windows(), sides, sides)
def test_every_pixel_is_in_a_window_and_every_window_in_the_image(windows, height, width):
    covered = np.zeros((height, width), dtype=bool)
    for top, bottom, left, right in boxes(windows, (height, width)):
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        covered[top:bottom, left:right] = True
    assert covered.all()


def test_images_smaller_than_a_window_are_one_window():
    wide = Windows(window=128, stride=32)
    sums = wide.sums(torch.ones(3, 5), (3, 5))
    assert sums.tolist() == [[15]]
    assert wide.region((3, 5), 0, 0, 0.5) == Region(top=0, left=0, height=3, width=5, score=0.5)


def test_constant_maps_have_equal_sums():
    for value in (0.1, 1 / 3, 0.7):
        sums = Windows(window=16, stride=3).sums(torch.full((200, 301), value), (200, 301))
        assert (sums == sums[0, 0]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0, "stride": 1}, r"window: expected an integer from 1 up, received 0"),
        ({"window": 8, "stride": 0}, r"stride: expected an integer from 1 up, received 0"),
        ({"window": 8, "stride": 9}, r"stride: expected at most the window of 8, received 9"),
    ],
)
def test_wrong_windows_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Windows(**options)


# normalisation


def test_normalised_over_the_pool_not_per_image():
    low, high = normalised([np.array([[1.0, 2.0]]), np.array([[5.0]])], constant=0)
    assert low.tolist() == [[0, 0.25]]
    assert high.tolist() == [[1]]


@pytest.mark.parametrize("value", [0.0, 7.0, 1e-300])
def test_constant_maps_give_no_nan(value):
    assert normalised([np.full((2, 2), value)] * 2, constant=0.5)[1].tolist() == [[0.5, 0.5]] * 2


def test_rounding_is_not_blown_up_to_a_difference():
    assert normalised([np.array([[0.1 + 0.2, 0.3]])], constant=0)[0].tolist() == [[0, 0]]


def test_no_images_are_normalised_to_none():
    assert normalised([], constant=0) == []


# choice


def naive_choice(scores, sizes, excluded, windows, area_left):
    """Sort all windows; take each that overlaps none taken before."""
    everything = [
        (-score, position, windows.region(sizes[position], row, column, float(score)))
        for position, grid in enumerate(scores)
        for (row, column), score in np.ndenumerate(grid)
    ]
    chosen = []
    for _, position, region in sorted(everything, key=lambda one: (one[0], one[1], one[2].top, one[2].left)):
        taken = [box for other, box in chosen if other == position]
        if any(overlap(region, box) for box in [*taken, *excluded[position]]):
            continue
        if chosen and area([box for _, box in chosen]) + area([region]) > area_left:
            break
        chosen.append((position, region))
    return chosen


@settings(max_examples=60, deadline=None)
@given(windows(), st.lists(st.tuples(sides, sides), min_size=1, max_size=4), st.integers(0, 2**32), st.integers(1, 900))
def test_choice_equals_plain_suppression(windows, sizes, seed, budget):
    chance = np.random.default_rng(seed)
    scores = [
        chance.integers(-2, 3, (len(windows.starts(height)), len(windows.starts(width)))) / 2.0
        for height, width in sizes
    ]  # many ties, zeros and negative scores
    excluded = [
        [Region(top=int(chance.integers(30)), left=int(chance.integers(30)), height=3, width=4, score=0.0)]
        for _ in sizes
    ]
    chosen = choose(scores, sizes, excluded, windows=windows, area=budget)
    naive = naive_choice(scores, sizes, excluded, windows, budget)
    assert list(chosen) == list(dict.fromkeys(position for position, _ in naive))
    for position, regions in chosen.items():
        assert regions == [region for other, region in naive if other == position]


def test_a_suppressed_window_is_never_chosen_later_with_score_0():
    # all other scores are negative: a window that suppression merely sets to 0 would come next
    fine = Windows(window=4, stride=1)
    scores = np.full((9, 9), -1.0)
    scores[4, 4] = 1
    found = choose([scores], [(12, 12)], [()], windows=fine, area=10**6)[0]
    assert found[0].score == 1
    assert [region.score for region in found[1:]] == [-1] * (len(found) - 1)
    assert not any(overlap(one, other) for one, other in itertools.combinations(found, 2))


def test_nothing_is_left_when_everything_was_asked_for():
    whole = Region(top=0, left=0, height=12, width=12, score=0.0)
    assert choose([np.zeros((9, 9))], [(12, 12)], [[whole]], windows=Windows(window=4, stride=1), area=100) == {}


def test_neighbours_do_not_overlap():
    left = Region(top=0, left=0, height=4, width=4, score=0.0)
    found = choose([np.zeros((1, 5))], [(4, 8)], [[left]], windows=Windows(window=4, stride=1), area=100)
    assert found == {0: [Region(top=0, left=4, height=4, width=4, score=0.0)]}


@pytest.mark.parametrize("budget", [1, 16, 17, 100, 160, 1000])
def test_area_is_within_one_window_of_the_budget(budget):
    scores = np.random.default_rng(0).random((37, 37))
    found = choose([scores] * 2, [(40, 40)] * 2, [()] * 2, windows=Windows(window=4, stride=1), area=budget)
    spent = area(region for regions in found.values() for region in regions)
    assert budget - 16 < spent <= max(budget, 16)


def test_scores_are_left_alone():
    scores = np.ones((5, 5))
    choose([scores], [(8, 8)], [()], windows=Windows(window=4, stride=1), area=100)
    assert (scores == 1).all()


# ranking


def pool(ids, **fields):
    size = torch.tensor([[8, 8]] * len(ids))
    return Observation(ids=ids, information=torch.linspace(0.1, 0.9, len(ids)), size=size, **fields)


def test_images_of_chosen_windows_come_first():
    scores = [np.array([[0.9, 0.1], [0.1, 0.1]]), np.full((2, 2), 0.2), np.array([[0.1, 0.1], [0.1, 0.95]])]
    ranking = rank(pool(("a", "b", "c")), scores, Windows(window=4, stride=4), Budget(pixels=32))
    assert ranking.ids == ("c", "a", "b")
    assert ranking.regions == {
        "c": (Region(top=4, left=4, height=4, width=4, score=0.95),),
        "a": (Region(top=0, left=0, height=4, width=4, score=0.9),),
    }


def test_what_was_asked_for_belongs_to_its_image_in_any_order_of_the_pool():
    whole = Region(top=0, left=0, height=8, width=8, score=0.0)
    for ids in (("a", "b", "c"), ("c", "a", "b"), ("b", "c", "a")):
        seen = pool(ids, excluded=tuple((whole,) if one == "c" else () for one in ids))
        ranking = rank(seen, [np.zeros((2, 2))] * 3, Windows(window=4, stride=4), Budget(pixels=1000))
        assert set(ranking.regions) == {"a", "b"}


def test_a_budget_of_images_is_their_area():
    ranking = rank(pool(("a", "b")), [np.zeros((2, 2))] * 2, Windows(window=4, stride=4), Budget(images=1))
    assert area(region for regions in ranking.regions.values() for region in regions) == 64


def test_windows_beyond_a_batch_of_images_are_in_other_images():
    """Two images a batch: 0.9 of a and 0.8 of b close it with 0.75 of a; 0.7 opens another, where b is out."""
    scores = [np.array([[0.9, 0.75]]), np.array([[0.8, 0.65]]), np.array([[0.7, 0.2]]), np.array([[0.6, 0.1]])]
    asked = {"sizes": [(4, 8)] * 4, "excluded": [()] * 4, "windows": Windows(window=4, stride=4), "area": 16 * 6}
    found = choose(scores, **asked, images=2)
    assert {at: [one.score for one in boxes] for at, boxes in found.items()} == {
        0: [0.9, 0.75],
        1: [0.8],
        2: [0.7, 0.2],
        3: [0.6],
    }
    whole = choose(scores, **asked)
    assert {at: len(boxes) for at, boxes in whole.items()} == {0: 2, 1: 2, 2: 1, 3: 1}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 40))
def test_each_batch_is_the_choice_among_the_images_that_are_left(seed, images, budget):
    chance = np.random.default_rng(seed)
    scores = [chance.integers(0, 9, (2, 3)) / 9 for _ in range(6)]
    asked = {"sizes": [(8, 12)] * 6, "excluded": [()] * 6, "windows": Windows(window=4, stride=4)}
    found = choose(scores, **asked, area=16 * budget, images=images)
    assert sum(map(len, found.values())) <= budget
    names, left = list(found), list(range(6))
    for start in range(0, len(names), images):
        batch = names[start : start + images]
        alone = choose(
            [scores[at] for at in left],
            [(8, 12)] * len(left),
            [()] * len(left),
            windows=Windows(window=4, stride=4),
            area=10**6,
        )
        assert [left[at] for at in alone][: len(batch)] == batch
        left = [at for at in left if at not in batch]


def test_chosen_windows_carry_their_own_cost():
    scores = [np.array([[0.9, 0.1, 0.1], [0.1, 0.1, 0.8]]), np.full((2, 3), 0.05)]
    costs = [np.arange(6.0).reshape(2, 3), np.arange(6.0, 12).reshape(2, 3)]
    observed = Observation(ids=("b", "a"), information=torch.tensor([0.5, 0.5]), size=torch.tensor([[7, 9]] * 2))
    windows = Windows(window=4, stride=3)  # the last window of a side is less than a step away
    ranking = rank(observed, scores, windows, Budget(pixels=48), costs)
    assert [(one.top, one.left, one.cost) for one in ranking.regions["b"]] == [(0, 0, 0), (3, 5, 5)]
    ((other,),) = [regions for name, regions in ranking.regions.items() if name == "a"]
    assert (other.top, other.left, other.cost) == (0, 0, 6)
    for regions in rank(observed, scores, windows, Budget(pixels=48)).regions.values():
        assert {one.cost for one in regions} == {None}


@settings(max_examples=100, deadline=None)
@given(windows(), sides, sides)
def test_a_window_is_found_by_its_region(windows, height, width):
    for row, column in itertools.product(range(len(windows.starts(height))), range(len(windows.starts(width)))):
        assert windows.place(windows.region((height, width), row, column, 0.0)) == (row, column)


def test_windows_of_other_options_are_refused():
    with pytest.raises(ValueError, match=r"expected \(2, 2\) windows in an image of 8 x 8, received \(3, 3\)"):
        rank(pool(("a",)), [np.zeros((3, 3))], Windows(window=4, stride=4), Budget(images=1))
