"""Which annotations count, and the vote of several annotators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.annotations.voting import Policy, annotations_that_count, majority
from ml_backend.errors import MaskError

POLICIES: tuple[Policy, ...] = ("newest", "ground_truth", "majority")


def one(number: int, when: str = "1", **fields: Any) -> dict[str, Any]:
    return {"id": number, "updated_at": when, "completed_by": number, **fields}


def ids(policy: Policy, *annotations: dict[str, Any]) -> list[int]:
    return [found["id"] for found in annotations_that_count(annotations, policy)]


# -- which ones ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("policy", POLICIES)
def test_skips_never_count(policy: Policy) -> None:
    assert ids(policy) == []
    assert ids(policy, one(1, "9", was_cancelled=True)) == []
    assert ids(policy, one(1, "9", was_cancelled=True, ground_truth=True), one(2)) == [2]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_newest_comes_first_and_an_update_makes_it_newer(policy: Policy) -> None:
    early, late = "2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.000001Z"
    assert ids(policy, one(1, late), one(2, early))[0] == 1
    created = {"id": 1, "created_at": early}, {"id": 2, "created_at": late}
    assert ids(policy, *created)[0] == 2
    assert ids(policy, one(2, early), one(1, early))[0] == 2  # at one moment: the later id


def test_ground_truth_comes_before_newer_ones_except_by_newest() -> None:
    truth, newer, newest = one(1, "1", ground_truth=True), one(2, "2"), one(3, "3", ground_truth=True)
    assert ids("ground_truth", truth, newer) == ids("majority", truth, newer) == [1]
    assert ids("newest", truth, newer) == [2]
    assert ids("ground_truth", truth, newer, newest) == ids("majority", truth, newer, newest) == [3]


def test_a_majority_asks_each_annotator_once() -> None:
    old, new = one(1, "1", completed_by=7), one(2, "2", completed_by=7)
    other = one(3, "3", completed_by={"id": 8, "email": "eight@example.org"})
    assert ids("majority", old, new, other) == [3, 2]
    assert ids("majority", one(4, "4", completed_by={"id": 7}), old, new) == [4]  # however the annotator is spelt
    assert ids("ground_truth", old, new, other) == [3]


def test_annotators_that_are_not_known_are_not_one_person() -> None:
    assert ids("majority", one(1, "1", completed_by=None), one(2, "2", completed_by=None)) == [2, 1]


# -- the vote --------------------------------------------------------------------------------------------------------
def row(*values: int) -> NDArray[np.uint8]:
    return np.array([values], np.uint8)


def test_most_decide_and_a_tie_is_the_newest_ones() -> None:
    # columns: all agree; two of three; three opinions; the older two against the newest; most ignore
    newest, middle, oldest = row(1, 1, 1, 0, 255), row(1, 2, 2, 2, 255), row(1, 1, 0, 2, 1)
    assert majority([newest, middle, oldest]).tolist() == [[1, 1, 1, 2, 255]]
    assert majority([row(1, 2), row(2, 1)]).tolist() == [[1, 2]]


def test_a_tie_that_the_newest_is_no_part_of_goes_to_the_newest_of_the_tied() -> None:
    masks = [row(0), row(2), row(1), row(1), row(2)]
    assert majority(masks).tolist() == [[2]]


def test_only_those_vote_who_were_asked_about_a_pixel() -> None:
    newest, older = row(1, 255, 255, 0), row(2, 2, 255, 1)
    votes = [np.array([[True, False, False, True]]), np.array([[True, True, False, True]])]
    assert majority([newest, older], votes).tolist() == [[1, 2, 255, 0]]
    assert majority([newest, older], [votes[0], None]).tolist() == [[1, 2, 255, 0]]
    # an ignored pixel that its annotator was asked about is an opinion
    assert majority([row(255), row(2)], [np.array([[True]]), np.array([[True]])]).tolist() == [[255]]


def test_masks_of_different_sizes_and_none_are_refused() -> None:
    with pytest.raises(MaskError, match="one size: 2 x 1, 1 x 1"):
        majority([row(0, 1), row(0)])
    with pytest.raises(MaskError, match="none"):
        majority([])


@given(st.lists(st.lists(st.sampled_from([0, 1, 2, IGNORE_INDEX]), min_size=4, max_size=4), min_size=1, max_size=5))
def test_the_vote_is_what_counting_by_hand_gives(rows: list[list[int]]) -> None:
    found = majority([row(*values) for values in rows])[0].tolist()
    for pixel, value in enumerate(found):
        opinions = [values[pixel] for values in rows]
        most = max(map(opinions.count, opinions))
        assert value == next(opinion for opinion in opinions if opinions.count(opinion) == most)
