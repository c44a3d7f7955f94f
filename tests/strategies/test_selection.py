from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.selection import by_id, by_information, descending_priority

ids = st.one_of(st.lists(st.integers(), unique=True), st.lists(st.text(max_size=4), unique=True))


@given(ids, st.data())
def test_by_information_agrees_with_plain_sorting(ids, data):
    information = data.draw(
        st.lists(st.sampled_from([0.0, -0.0, 0.5, 1.0, 1e-300]), min_size=len(ids), max_size=len(ids))
    )
    order = by_information(ids, np.array(information, dtype=np.float64))
    plain = sorted(zip(ids, information, strict=True), key=lambda pair: (-pair[1], pair[0]))
    assert [ids[position] for position in order] == [one for one, _ in plain]


@given(ids, st.randoms())
def test_order_of_the_pool_does_not_matter(ids, randomness):
    shuffled = list(ids)
    randomness.shuffle(shuffled)
    assert [ids[position] for position in by_id(ids)] == [shuffled[position] for position in by_id(shuffled)]


def test_strings_that_arrays_would_confuse_are_kept_apart():
    assert by_id(["a\0", "a", "B"]).tolist() == [2, 1, 0]


@pytest.mark.parametrize("worthless", [np.nan, np.inf, -np.inf])
def test_information_must_be_finite(worthless):
    with pytest.raises(ValueError, match="information: expected finite"):
        by_information([1, 2], np.array([0.5, worthless]))


def test_information_must_match_the_ids():
    with pytest.raises(ValueError, match=r"information: expected shape \(N=2\), received \(3,\)"):
        by_information([1, 2], np.zeros(3))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000, 999_983, 1_000_000])
def test_priorities_fall_strictly(count):
    priority = descending_priority(count)
    assert priority.shape == (count,)
    assert priority.dtype == np.float64
    assert (np.diff(priority) < 0).all()
    assert (np.diff(1 - priority) > 0).all(), "the host is given 1 - priority"
    assert ((priority > 0) & (priority <= 1)).all()
