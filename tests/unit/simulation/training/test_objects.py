"""Object-level F1 and Dice: by hand, against a slow program that follows the paper word by word, and as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ml_backend.simulation.training.objects import ObjectScores, instances_of, object_scores

MAPS = arrays(np.int64, (5, 6), elements=st.integers(0, 4))


def row(*numbers: int) -> np.ndarray:
    return np.array([numbers])


# -- by hand ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("truth", "predicted", "f1", "dice"),
    [
        # one of two found whole: TP 1, FN 1; truth (3*1 + 2*0)/5, prediction 1
        (row(1, 1, 1, 0, 2, 2), row(7, 7, 7, 0, 0, 0), 2 / 3, (3 / 5 + 1) / 2),
        # 2 of 4 pixels covered: exactly half is enough; Dice 2*2/(4+2)
        (row(1, 1, 1, 1), row(5, 5, 0, 0), 1.0, 2 / 3),
        # 1 of 4 pixels covered: too little
        (row(1, 1, 1, 1), row(5, 0, 0, 0), 0.0, 2 / 5),
        # a prediction that overlaps nothing is a false positive, its Dice 0
        (row(1, 1, 0, 0), row(4, 4, 0, 9), 2 / 3, (1 + 2 / 3) / 2),
        # two true objects joined: the prediction belongs to the larger one; truth (4*2*4/10 + 2*2*2/8)/6
        (row(1, 1, 1, 1, 2, 2), row(3, 3, 3, 3, 3, 3), 2 / 3, ((4 * 8 / 10 + 2 * 4 / 8) / 6 + 8 / 10) / 2),
        # two predictions that each cover half of one object: one of them is the true positive
        (row(1, 1, 1, 1), row(2, 2, 3, 3), 2 / 3, 2 / 3),
    ],
)
def test_by_hand(truth: np.ndarray, predicted: np.ndarray, f1: float, dice: float) -> None:
    assert object_scores(truth, predicted).f1 == pytest.approx(f1)
    assert object_scores(truth, predicted).dice == pytest.approx(dice)


def test_nothing_there_and_nothing_predicted() -> None:
    nothing, one = row(0, 0, 0), row(0, 1, 1)
    for truth, predicted, expected in ((nothing, nothing, 1.0), (one, nothing, 0.0), (nothing, one, 0.0)):
        scores = object_scores(truth, predicted)
        assert scores.f1 == scores.dice == expected


def test_ignored_pixels_count_nowhere() -> None:
    truth, predicted = row(1, 1, 1, 1, 0, 0), row(2, 2, 0, 0, 0, 3)
    ignored = row(0, 0, 0, 1, 0, 1).astype(bool)
    assert object_scores(truth, predicted, ignored) == object_scores(row(1, 1, 1, 0, 0, 0), row(2, 2, 0, 0, 0, 0))
    assert object_scores(truth, predicted, ignored) != object_scores(truth, predicted)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"one shape, got \[\(1, 2\), \(1, 3\)\]"):
        object_scores(row(0, 1), row(0, 1, 1))
    with pytest.raises(ValueError, match=r"one shape, got .*\(2, 1\)"):
        object_scores(row(0, 1), row(0, 1), np.zeros((2, 1), bool))


def test_images_are_measured_together() -> None:
    """Counts are added, and areas weigh over all images: not the mean of the images' measures."""
    first = object_scores(row(1, 1, 1, 1, 1, 1), row(1, 1, 1, 1, 1, 1))  # TP 1; 6 pixels of Dice 1
    second = object_scores(row(1, 1, 0, 0), row(0, 0, 2, 0))  # FP 1, FN 1; Dice 0 of 2 true and 1 predicted pixel
    third = object_scores(row(0, 0), row(0, 0))
    together = sum((first, second, third), ObjectScores())
    assert (together.true_positives, together.false_positives, together.false_negatives) == (1, 1, 1)
    assert together.f1 == pytest.approx(1 / 2)
    assert together.dice == pytest.approx((6 / 8 + 6 / 7) / 2)
    assert ObjectScores().f1 == ObjectScores().dice == 1.0


# -- a slow witness --------------------------------------------------------------------------------------------------
def numbers(objects: np.ndarray) -> list[int]:
    """The objects of a map in reading order."""
    return list(dict.fromkeys(number for number in objects.ravel().tolist() if number))


def partner(one: np.ndarray, others: np.ndarray) -> int | None:
    shared = {number: int((one & (others == number)).sum()) for number in numbers(others)}
    return max(shared, key=lambda number: shared[number]) if any(shared.values()) else None


def naive_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    if not truth.any() and not predicted.any():
        return 1.0
    found = set()
    for number in numbers(predicted):
        own = partner(predicted == number, truth)
        if own is not None and ((predicted == number) & (truth == own)).sum() >= (truth == own).sum() / 2:
            found.add(own)
    return 2 * len(found) / (len(numbers(truth)) + len(numbers(predicted)))


def naive_dice(truth: np.ndarray, predicted: np.ndarray) -> float:
    if not truth.any() or not predicted.any():
        return float(not truth.any() and not predicted.any())

    def one_way(objects: np.ndarray, others: np.ndarray) -> float:
        total = 0.0
        for number in numbers(objects):
            one = objects == number
            own = partner(one, others)
            if own is not None:
                other = others == own
                total += one.sum() / (objects > 0).sum() * 2 * (one & other).sum() / (one.sum() + other.sum())
        return total

    return (one_way(truth, predicted) + one_way(predicted, truth)) / 2


@given(MAPS, MAPS)
def test_against_the_slow_program(truth: np.ndarray, predicted: np.ndarray) -> None:
    assert object_scores(truth, predicted).f1 == pytest.approx(naive_f1(truth, predicted))
    assert object_scores(truth, predicted).dice == pytest.approx(naive_dice(truth, predicted))


# -- properties ------------------------------------------------------------------------------------------------------
@given(MAPS, MAPS, st.permutations(range(1, 5)), st.permutations(range(1, 5)))
def test_numbers_carry_no_meaning(truth: np.ndarray, predicted: np.ndarray, some: list[int], more: list[int]) -> None:
    renumbered = np.array([0, *(1000 * number for number in some)])[truth], np.array([0, *more])[predicted]
    assert object_scores(*renumbered) == object_scores(truth, predicted)


@given(MAPS)
def test_the_truth_itself_is_perfect(truth: np.ndarray) -> None:
    assert object_scores(truth, truth).f1 == 1.0
    assert object_scores(truth, truth).dice == pytest.approx(1.0)


@given(MAPS, MAPS)
def test_measures_lie_between_0_and_1_and_dice_is_symmetric(truth: np.ndarray, predicted: np.ndarray) -> None:
    assert 0 <= object_scores(truth, predicted).f1 <= 1
    assert 0 <= object_scores(truth, predicted).dice <= 1 + 1e-12
    assert object_scores(truth, predicted).dice == pytest.approx(object_scores(predicted, truth).dice)


@given(MAPS, MAPS, arrays(np.bool_, (5, 6)))
def test_ignoring_is_erasing(truth: np.ndarray, predicted: np.ndarray, ignored: np.ndarray) -> None:
    erased = object_scores(np.where(ignored, 0, truth), np.where(ignored, 0, predicted))
    assert object_scores(truth, predicted, ignored) == erased


# -- objects of a mask -----------------------------------------------------------------------------------------------
MASK = np.array([[1, 1, 0, 2], [0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 255, 1]], dtype=np.uint8)


def test_parts_touch_by_a_side_or_a_corner() -> None:
    objects = instances_of(MASK, 1)
    assert objects.dtype == np.int32
    assert objects.tolist() == [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [2, 0, 0, 3]]
    assert instances_of(MASK, 3).max() == 0


def test_small_parts_are_dropped_and_numbers_stay_dense() -> None:
    mask = np.array([[1, 0, 1, 1, 0, 1, 1, 1]], dtype=np.uint8)
    assert instances_of(mask, 1, minimum_area=2).tolist() == [[0, 0, 1, 1, 0, 2, 2, 2]]
    assert instances_of(mask, 1, minimum_area=9).max() == 0


def test_an_ignored_strip_cuts_truth_and_prediction_alike() -> None:
    truth = np.array([[1, 1, 255, 1, 1]], dtype=np.uint8)
    predicted = np.ones((1, 5), np.uint8)
    ignored = truth == 255
    objects = instances_of(predicted, 1, ignored)
    assert objects.tolist() == [[1, 1, 0, 2, 2]]
    assert object_scores(instances_of(truth, 1), objects, ignored).f1 == 1.0
