"""The clicks of mending a predicted mask, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml_backend.annotations.mending import drawing_clicks, mending_clicks

Mask = NDArray[np.uint8]


def square(left: int = 10, top: int = 10, side: int = 20, value: int = 1, on: Mask | None = None) -> Mask:
    """A square on 60 rows and 80 columns of background, or on another mask."""
    mask = np.zeros((60, 80), np.uint8) if on is None else on.copy()
    mask[top : top + side, left : left + side] = value
    return mask


def test_what_is_predicted_right_costs_nothing() -> None:
    truth = square(on=square(50, 20, 12, 2))
    assert mending_clicks(truth, truth, background=0) == 0
    assert mending_clicks(truth, truth) == 0


def test_what_is_missing_is_drawn() -> None:
    """Four corners and the class, of each."""
    truth = square(on=square(50, 20, 12, 2))
    assert drawing_clicks(truth, background=0) == 10
    assert mending_clicks(square(), truth, background=0) == 5
    assert mending_clicks(np.zeros_like(truth), truth, background=0) == 10


def test_what_is_predicted_on_the_background_is_taken_away() -> None:
    assert mending_clicks(square(on=square(50, 20, 12, 2)), square(), background=0) == 5


def test_a_part_is_mended_or_all_of_it_is_drawn_anew() -> None:
    """Three quarters of the square are there: a piece of four corners, and not more than the square itself."""
    truth = square()
    predicted = truth.copy()
    predicted[24:30, 10:30] = 0
    assert mending_clicks(predicted, truth, background=0) == 5
    predicted[10:14, 10:30] = 0
    assert mending_clicks(predicted, truth, background=0) == 5, "two pieces are dearer than the square"


def test_a_class_is_changed_like_anything_else() -> None:
    assert mending_clicks(square(value=2), square(), background=0) == 5


def test_mending_takes_no_more_than_drawing() -> None:
    """A prediction can be thrown away: of ten wrong squares on the background only the true one has to be drawn."""
    truth, predicted = square(5, 5, 8), np.zeros((60, 80), np.uint8)
    for left in range(20, 70, 10):
        for top in (5, 30):
            predicted = square(left, top, 6, 2, on=predicted)
    assert drawing_clicks(truth, background=0) == 5
    assert mending_clicks(predicted, truth, background=0) == 5


def test_a_pixel_along_an_outline_is_within_its_tolerance() -> None:
    truth = square()
    assert mending_clicks(square(9, 9, 22), truth, background=0) == 0
    assert mending_clicks(square(11, 11, 18), truth, background=0) == 0
    assert mending_clicks(square(7, 7, 26), truth, background=0) > 0


def test_a_thin_thing_that_is_missing_is_missing() -> None:
    """All of it lies along its outline, but nothing of its class is predicted there."""
    truth = np.zeros((60, 80), np.uint8)
    truth[5:55, 40:42] = 1
    assert mending_clicks(np.zeros_like(truth), truth, background=0) == drawing_clicks(truth, background=0) > 0


def test_what_has_no_class_may_be_anything() -> None:
    truth = square(value=255)
    assert mending_clicks(square(value=1), truth, background=0) == 0
    assert drawing_clicks(truth, background=0) == 0


def test_specks_are_left() -> None:
    truth, predicted = square(), square(on=square(60, 40, 3, 2))  # nine pixels
    assert mending_clicks(predicted, truth, background=0, minimum_area=9) > 0
    assert mending_clicks(predicted, truth, background=0, minimum_area=10) == 0


def test_masks_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(60, 80\) for a true one of \(30, 40\)"):
        mending_clicks(square(), square()[:30, :40])


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 0]))
def test_any_prediction_is_mended_for_at_most_the_clicks_of_drawing(seed: int, background: int | None) -> None:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 3, (2, 5, 6)).astype(np.uint8)
    predicted, truth = (np.kron(one, np.ones((8, 8), np.uint8)) for one in coarse)
    clicks = mending_clicks(predicted, truth, background=background)
    assert 0 <= clicks <= drawing_clicks(truth, background=background)
    if background is None:
        assert (clicks == 0) == bool((predicted == truth).all())
