from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from strategies.turns import drawn, in_turns


def turns(weights, *, share=1.0, areas=None, seed=0, limit=None):
    values = np.array(weights, dtype=np.float64)
    drawn_turns = in_turns(
        values,
        others=range(len(values)),
        areas=np.array(areas) if areas else values.sum(axis=0),
        share=share,
        generator=torch.Generator().manual_seed(seed),
        limit=limit,
    )
    return [turn.position for turn in drawn_turns]


def test_drawn_in_proportion_to_the_weights():
    generator = torch.Generator().manual_seed(0)
    first = Counter(drawn(np.array([1.0, 2.0, 5.0]), generator)[0] for _ in range(4000))
    assert [first[one] / 4000 for one in range(3)] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.03)


def test_the_smallest_class_is_first_and_they_take_turns():
    weights = [[1, 0]] * 3 + [[0, 1]] * 3
    assert [one >= 3 for one in turns(weights, areas=[0.9, 0.1])] == [True, False] * 3
    assert [one >= 3 for one in turns(weights, areas=[0.1, 0.9])] == [False, True] * 3


def test_each_pick_tells_whose_turn_it_was():
    values = np.array([[0.0, 1.0]] * 2 + [[1.0, 0.0]] * 2)
    found = list(
        in_turns(
            values,
            others=range(4),
            areas=np.array([0.9, 0.1]),
            share=0.5,
            generator=torch.Generator().manual_seed(0),
        )
    )
    assert [turn.of for turn in found[:2]] == [None, 1]  # every second pick is a turn, the smaller class first
    assert all(values[turn.position, turn.of] > 0 for turn in found if turn.of is not None)


def test_a_class_that_is_used_up_leaves_its_turns_to_the_others():
    found = turns([[1, 0]] * 4 + [[0, 1]])
    assert found[0] == 4
    assert sorted(found) == [0, 1, 2, 3, 4]


def test_without_a_share_only_the_given_order_counts():
    assert turns([[0, 1], [1, 0], [1, 1]], share=0) == [0, 1, 2]


def test_the_share_is_spread_evenly():
    # images 6 and 7 alone have weight: they are taken at the second and the fourth pick
    assert turns([[0.0]] * 6 + [[1.0]] * 2, share=0.5)[:4] in ([0, 6, 1, 7], [0, 7, 1, 6])


def test_a_limit_bounds_how_many_wait_for_a_class():
    assert turns([[1.0]] * 5, limit=2)[2:] == [one for one in range(5) if one not in turns([[1.0]] * 5, limit=2)[:2]]
