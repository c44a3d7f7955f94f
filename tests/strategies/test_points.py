from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from asked_points import pixel_box, pixels, ranked, seeded
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import Batch, Budget, Observation, Point, Region, create
from strategies.candidates import CELLS


def image(uncertain, *, name="a", classes=2, likely=None, **fields):
    """An image whose pixels have the uncertainty u (h,w), of the class `likely` (h,w), against the next one."""
    u = torch.as_tensor(uncertain, dtype=torch.float64)
    best = torch.zeros(u.shape, dtype=torch.int64) if likely is None else torch.as_tensor(likely)
    first = 1 - u / 2  # p1 - p2 = 1 - u
    probabilities = torch.zeros(classes, *u.shape, dtype=torch.float64)
    probabilities.scatter_(0, best[None], first[None])
    probabilities.scatter_(0, ((best + 1) % classes)[None], 1 - first[None])
    if classes == 1:
        probabilities = torch.ones(1, *u.shape)
    return Batch(ids=(name,), images=torch.zeros(1, 3, *u.shape), probabilities=probabilities[None, None], **fields)


def answered(shape, points):
    labelled = torch.zeros(1, *shape, dtype=torch.bool)
    for row, column in points:
        labelled[0, row, column] = True
    return labelled


# what is drawn


def test_by_hand():
    """u = 1, 1/2, 1/2, 0 squared: of a single point the chances are 4/6, 1/6, 1/6, 0."""
    strategy = create("points", count=1, rarity=0.0)
    batch = image([[1.0, 0.5, 0.5, 0.0]])
    counts = Counter(pixels(ranked(strategy, batch, seed=seed))[0][1] for seed in range(1200))
    assert [counts[column] / 1200 for column in range(4)] == pytest.approx([4 / 6, 1 / 6, 1 / 6, 0], abs=0.05)


def test_rare_classes_come_sooner_by_hand():
    """Shares 4/5 and 1/5: r = 1/4 and 1, for q = 1; a pixel of the rare class is as likely as the four others."""
    strategy = create("points", count=1, rarity=1.0)
    batch = image([[0.5] * 5], likely=[[0, 0, 1, 0, 0]])
    counts = Counter(pixels(ranked(strategy, batch, seed=seed))[0][1] for seed in range(1200))
    assert counts[2] / 1200 == pytest.approx(0.5, abs=0.05)
    drawn = ranked(create("points", count=5, apart=1, rarity=1.0), batch).points["a"]
    assert {point.column: point.score for point in drawn} == pytest.approx(
        {0: 1 / 16, 1: 1 / 16, 2: 1 / 4, 3: 1 / 16, 4: 1 / 16}
    )


def test_points_say_what_the_network_guesses():
    point = ranked(create("points", count=1), image([[0.25]], likely=[[1]])).points["a"][0]
    assert (point.row, point.column, point.guess) == (0, 0, 1)
    assert point.margin == pytest.approx(0.75)
    assert point.score == pytest.approx(1 / 16)


def test_images_come_by_what_their_points_promise():
    strategy = create("points", count=2, apart=1, rarity=0.0)
    low, middle, high = image([[0.1, 0.9]], name="a"), image([[0.8, 0.8]], name="b"), image([[0.9, 0.9]], name="c")
    assert ranked(strategy, low, middle, high).ids == ("c", "b", "a")


def test_an_image_that_was_asked_promises_less():
    """Two questions of k = 2 halve it."""
    strategy = create("points", count=2, apart=1, rarity=0.0)
    asked_before, fresh = image([[0.9] * 6], name="a"), image([[0.7] * 6], name="b")
    assert ranked(strategy, asked_before, fresh).ids == ("a", "b")
    boxes = {"a": [pixel_box(0, 0), pixel_box(0, 1)]}
    assert ranked(strategy, asked_before, fresh, asked=boxes).ids == ("b", "a")


def test_a_large_image_is_drawn_as_if_from_all_of_its_pixels():
    """60 x 60 pixels are more than the candidates; a quarter of them has u² = 4/9, the rest 1/9: 4 of 7 are there."""
    uncertain = np.full((60, 60), 1 / 3)
    uncertain[:30, :30] = 2 / 3
    strategy, batch, hits = create("points", count=1, rarity=0.0), image(uncertain), 0
    for seed in range(500):
        strategy.prepare([], [], generator=seeded(seed))
        (row, column), *_ = pixels(ranked(strategy, batch, seed=seed))
        hits += row < 30 and column < 30
    assert len(strategy.observe(batch).candidates[0]) <= CELLS < 3600
    assert hits / 500 == pytest.approx(4 / 7, abs=0.07)


# traps


def test_a_boundary_does_not_take_all_points():
    """A boundary at the left border of an image that is sure elsewhere."""
    uncertain = np.full((32, 32), 0.01)
    uncertain[:, :2] = 1.0
    batch = image(uncertain)
    alone = pixels(ranked(create("points", scales=1, apart=2), batch))
    assert sum(column < 2 for _, column in alone) == 10, "drawn from the whole image they are all there"
    spread = pixels(ranked(create("points", apart=2), batch))
    assert len(spread) == 10
    assert 3 <= sum(column < 2 for _, column in spread) <= 7
    assert {(row // 16, column // 16) for row, column in spread} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_points_are_apart():
    for seed in range(20):
        found = np.array(pixels(ranked(create("points", count=30, apart=5), image(np.ones((40, 30))), seed=seed)))
        gaps = np.hypot(*(found[:, None] - found[None]).transpose(2, 0, 1)) + 99 * np.eye(len(found))
        assert gaps.min() >= 5
        assert len(found) > 20


def test_void_and_padding_are_never_asked():
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    valid[0, 2:6, 2:6] = False
    valid[0, :, 7] = False
    batch = image(np.where(valid[0], 0.1, 1.0), valid=valid, size=torch.tensor([[8, 7]]))
    batch.probabilities[..., ~valid[0]] = float("nan")
    for seed in range(10):
        found = pixels(ranked(create("points", count=40, apart=1), replace(batch), seed=seed))
        assert len(found) == 40
        assert all(valid[0, row, column] for row, column in found)


def test_not_a_number_is_refused_where_it_counts():
    batch = image(np.full((4, 4), 0.5))
    batch.probabilities[0, 0, 0, 1, 2] = float("nan")
    with pytest.raises(ValueError, match=r"expected finite values .* row 1, column 2"):
        replace(batch)


def test_an_image_smaller_than_the_distance_gets_one_point():
    assert len(pixels(ranked(create("points", apart=50), image(np.full((6, 9), 0.5))))) == 1


def test_fewer_free_pixels_than_points():
    labelled = torch.ones(1, 5, 5, dtype=torch.bool)
    labelled[0, 0, 0] = labelled[0, 4, 4] = False
    batch = image(np.full((5, 5), 0.5), labelled=labelled)
    assert set(pixels(ranked(create("points", apart=1), batch))) == {(0, 0), (4, 4)}


def test_an_image_without_a_free_pixel_comes_last_and_has_no_points():
    """Also after one whose points promise nothing."""
    whole = image(np.ones((5, 5)), name="a", labelled=torch.ones(1, 5, 5, dtype=torch.bool))
    sure = image(np.zeros((5, 5)), name="b")
    ranking = ranked(create("points"), whole, sure)
    assert ranking.ids == ("b", "a")
    assert ranking.points.keys() == {"b"}


@pytest.mark.parametrize(("value", "classes"), [(0.0, 2), (1.0, 2), (1.0, 7), (0.0, 1)])
def test_constant_probabilities_give_points_all_over_the_image(value, classes):
    """Undecided everywhere, sure everywhere, and a single class: every pixel is as likely."""
    batch = image(np.full((2, 2), value), classes=classes)
    counts = Counter(pixels(ranked(create("points", count=1), batch, seed=seed))[0] for seed in range(800))
    assert len(counts) == 4
    assert all(140 < count < 260 for count in counts.values())  # 200 expected, standard deviation 12
    assert len(pixels(ranked(create("points"), image(np.full((30, 30), value), classes=classes)))) == 10


def test_what_a_person_answered_is_never_asked_again_nor_is_what_is_beside_it():
    batch = image(np.full((9, 9), 0.1), labelled=answered((9, 9), [(4, 4)]))
    for seed in range(30):
        for row, column in pixels(ranked(create("points", count=20, apart=3), batch, seed=seed)):
            assert np.hypot(row - 4, column - 4) >= 3


def test_boxes_that_were_asked_for_hold_no_point():
    batch = image(np.full((6, 6), 0.5))
    asked = {"a": [Region(top=0, left=0, height=6, width=5, score=0.0)]}
    found = pixels(ranked(create("points", count=40, apart=1), batch, asked=asked))
    assert set(found) == {(row, 5) for row in range(6)}


def test_follow_up_rounds_never_ask_a_pixel_twice_and_end():
    shape, asked = (20, 24), []
    strategy = create("points", count=10, apart=2)
    for number in range(60):
        batch = image(np.random.default_rng(0).random(shape), labelled=answered(shape, asked))
        strategy.prepare([], [], generator=seeded(number))
        found = pixels(ranked(strategy, batch, seed=number, asked={"a": [pixel_box(*one) for one in asked]}))
        if not found:
            break
        asked += found
    assert len(asked) == len(set(asked)) > 50
    assert number < 59


def test_points_spread_over_the_parts_that_were_not_asked():
    """The upper half had its points: the next at a scale of quarters are in the lower one."""
    asked = {"a": [pixel_box(row, column) for row in (1, 6) for column in (1, 6, 11, 14)]}
    found = pixels(ranked(create("points", count=3, apart=2, scales=2), image(np.full((16, 16), 0.5)), asked=asked))
    assert any(row >= 8 for row, _ in found[:3])


def test_points_are_pixels_of_the_original():
    """Seen at a third and a half; a place is asked about in its middle."""
    batch = image(np.full((4, 6), 0.5), size=torch.tensor([[12, 12]]))
    found = pixels(ranked(create("points", count=24, apart=1), batch))
    assert set(found) == {(3 * row + 1, 2 * column + 1) for row in range(4) for column in range(6)}


def test_an_original_that_is_smaller_than_what_is_seen_has_no_pixel_twice():
    batch = image(np.full((8, 8), 0.5), size=torch.tensor([[3, 2]]))
    assert sorted(pixels(ranked(create("points", count=60, apart=1), batch))) == [
        (r, c) for r in range(3) for c in range(2)
    ]


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_points_of_any_image_are_free_distinct_and_apart(data):
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    size = (data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40)))
    chance = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    labelled = torch.from_numpy(chance.random((1, height, width)) < data.draw(st.floats(0, 1)))
    count, apart = data.draw(st.integers(1, 30)), data.draw(st.floats(1, 6))
    batch = image(chance.random((height, width)), labelled=labelled, size=torch.tensor([size]))
    strategy = create("points", count=count, apart=apart, scales=data.draw(st.integers(1, 5)))
    asked = {"a": [pixel_box(int(chance.integers(size[0])), int(chance.integers(size[1])))]}
    found = pixels(ranked(strategy, batch, asked=asked))
    candidates = strategy.observe(batch).candidates[0]
    places = {tuple(pixel): place for pixel, place in zip(candidates.pixels.tolist(), candidates.places, strict=True)}
    assert len(found) == len(set(found)) <= count
    assert {(box.top, box.left) for box in asked["a"]}.isdisjoint(found)
    assert all(0 <= row < size[0] and 0 <= column < size[1] for row, column in found)
    assert not any(labelled[0][tuple(places[one])] for one in found)
    if size[0] >= height and size[1] >= width:  # else several places are the same pixel
        gaps = [np.hypot(*(places[one] - places[other])) for one in found for other in found if one != other]
        assert all(gap >= apart for gap in gaps)
    left = [one for one in places if one not in found and one != (asked["a"][0].top, asked["a"][0].left)]
    if len(found) < count and size[0] >= height and size[1] >= width:
        assert all(any(np.hypot(*(places[one] - places[other])) < apart for other in found) for one in left)


# chance


def test_seeded():
    batch, strategy = image(np.random.default_rng(0).random((50, 50))), create("points")
    strategy.prepare([], [], generator=seeded(1))
    first = ranked(strategy, batch, seed=1).points
    assert ranked(strategy, batch, seed=1).points == first
    assert ranked(strategy, batch, seed=2).points != first
    twin = create("points")
    twin.prepare([], [], generator=seeded(1))
    assert ranked(twin, batch, seed=1).points == first
    twin.prepare([], [], generator=seeded(2))
    assert twin.observe(batch).candidates[0].pixels.tolist() != strategy.observe(batch).candidates[0].pixels.tolist()


def test_points_of_an_image_do_not_depend_on_its_batch(pools):
    strategy, samples = create("points"), pools.samples()
    tight = Observation.concatenate(strategy.observe(batch) for batch in pools.batches(samples, 1))
    loose = strategy.observe(pools.batch(samples, padding=5, garbage=float("nan")))
    assert repr(tight.candidates) == repr(loose.candidates)


def test_copies_of_an_image_have_different_points():
    large = np.full((60, 60), 0.5)
    ranking = ranked(create("points"), image(large, name="a"), image(large, name="b"))
    assert set(pixels(ranking, "a")) != set(pixels(ranking, "b"))


# before there is a network


def seen_by_an_encoder(places, place_size, shape, **fields):
    """Two images are nothing but what an encoder makes of their places: (D,h,w)."""
    return Batch(
        ids=("a",), images=torch.zeros(1, 3, *shape), places=torch.as_tensor(places, dtype=torch.float32)[None],
        place_size=place_size, **fields,
    )  # fmt: skip


def test_first_points_are_where_an_encoder_sees_differences():
    """Left and right look different, the right at two places in two ways: three points, one of each."""
    places = np.zeros((3, 2, 2))
    places[0, :, 0] = 1
    places[1, 0, 1] = places[2, 1, 1] = 5  # lengths do not matter
    for seed in range(20):
        strategy = create("points", count=3)
        strategy.prepare([], [], generator=seeded(seed))
        found = pixels(ranked(strategy, seen_by_an_encoder(places, 8, (16, 16))))
        kinds = {"left" if column < 8 else f"right {row // 8}" for row, column in found}
        assert kinds == {"left", "right 0", "right 1"}


def test_first_points_of_an_image_that_looks_alike_everywhere_spread():
    found = pixels(ranked(create("points", count=9), seen_by_an_encoder(np.ones((2, 4, 4)), 8, (32, 32))))
    assert len(found) == 9
    assert len({(row // 16, column // 16) for row, column in found}) == 4


def test_images_that_differ_within_themselves_come_first():
    flat, varied = np.ones((2, 1, 2)), np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    batches = [
        replace(seen_by_an_encoder(flat, 8, (8, 16)), ids=("a",)),
        replace(seen_by_an_encoder(varied, 8, (8, 16)), ids=("b",)),
    ]
    ranking = ranked(create("points", count=4, apart=2), *batches)
    assert ranking.ids == ("b", "a")
    assert all(point.guess is None and point.margin is None for points in ranking.points.values() for point in points)


def test_first_points_keep_away_from_padding_and_answers():
    valid, labelled = torch.zeros(1, 16, 24, dtype=torch.bool), torch.zeros(1, 16, 24, dtype=torch.bool)
    valid[0, :12, :16] = True
    labelled[0, :, :4] = True
    places = np.random.default_rng(0).normal(size=(4, 2, 3))
    batch = seen_by_an_encoder(places, 8, (16, 24), valid=valid, labelled=labelled, size=torch.tensor([[12, 16]]))
    found = pixels(ranked(create("points", count=50, apart=2), batch))
    assert len(found) > 10
    assert all(row < 12 and 5 <= column < 16 for row, column in found)


def test_without_a_network_or_an_encoder_it_says_what_it_needs():
    with pytest.raises(ValueError, match=r"points needs Batch.probabilities"):
        create("points").observe(Batch(ids=("a",), images=torch.zeros(1, 3, 4, 4)))


def test_places_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match=r"Batch.places: expected finite values, received nan"):
        seen_by_an_encoder(np.full((1, 2, 3), np.nan), 8, (16, 24))


def test_places_that_do_not_cover_the_images_are_refused():
    with pytest.raises(ValueError, match=r"Batch.places: expected \[2, 3\] cells at least, received \[2, 2\]"):
        seen_by_an_encoder(np.ones((1, 2, 2)), 8, (16, 24))


# what is refused


def test_an_observation_of_another_method_is_refused(pools):
    seen = create("margin").observe(pools.batch(pools.samples()))
    for name in ("points", "random_points"):
        with pytest.raises(ValueError, match=f"Observation.candidates: expected what {name} observes"):
            create(name).rank(seen, None, budget=Budget(images=1), generator=seeded())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count: expected an integer from 1 up, received 0"),
        ({"power": 21}, r"power: expected a number in \[0, 20\], received 21"),
        ({"rarity": 2}, r"rarity: expected a number in \[0, 1\], received 2"),
        ({"apart": 0.5}, "apart: expected a number"),
        ({"scales": 9}, r"scales: expected a number in \[1, 8\], received 9"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create("points", **options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"row": -1}, "Point.row: expected an integer from 0 up, received -1"),
        ({"score": float("nan")}, "Point.score: expected a finite number"),
        ({"margin": 1.5}, r"Point.margin: expected a number in \[0, 1\]"),
    ],
)
def test_a_wrong_point_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Point(**{"row": 0, "column": 0, "score": 0.0} | fields)
