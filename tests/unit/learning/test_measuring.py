"""Measures with their intervals: by hand, against known formulas, and how often the intervals hold the truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from made_up_labels import PopulationOfLabels

from ml_backend.learning.checkpoints import VersionRecord
from ml_backend.learning.measuring import Counts, Estimate, Estimates, compare, estimates
from ml_backend.learning.measuring.counts import Pixels, pixels_of
from ml_backend.learning.measuring.uncertainty import differences
from ml_backend.learning.measuring.words import measure_text, recorded
from ml_backend.simulation.report.statistics import mean_interval

CLASSES = ("background", "cell")


def counts_of(pixels: Sequence[object] | Pixels, groups: str = "", classes: tuple[str, ...] = CLASSES) -> Counts:
    """Counts of labels called 0, 1, …; a letter of `groups` for each, or a group for each."""
    rows = np.asarray(pixels, np.int64)
    labels = tuple(map(str, range(len(rows))))
    return Counts(classes, labels, tuple(groups) or labels, rows)


def measured(counts: Counts) -> Estimates:
    found = estimates(counts)
    assert found is not None
    return found


def right(*shares: float) -> Counts:
    """Counts of images of 100 pixels, of which such a share was predicted rightly."""
    return counts_of(
        [[[100, round(100 * share), round(100 * share)], [0, round(100 * (1 - share)), 0]] for share in shares]
    )


# -- counts ----------------------------------------------------------------------------------------------------------
def test_pixels_of_a_confusion_matrix() -> None:
    assert pixels_of(np.array([[6, 1], [2, 10]])).tolist() == [[7, 8, 6], [12, 11, 10]]


@given(npst.arrays(np.int64, (4, 3, 3), elements=st.integers(0, 10**9)))
def test_counts_come_back_as_they_were_written(pixels: Pixels) -> None:
    counts = counts_of(pixels, "aabc", ("a", "b", "c"))
    again = Counts.from_texts(counts.texts(), counts.known_groups(), counts.classes)
    assert (again.pixels == pixels).all()
    assert (again.labels, again.groups) == (counts.labels, counts.groups)


# -- intervals -------------------------------------------------------------------------------------------------------
def test_accuracy_of_images_of_one_size_has_the_t_interval_of_its_mean() -> None:
    shares = [0.5, 0.7, 0.6, 0.65]
    found, expected = measured(right(*shares)).pixel_accuracy, mean_interval(shares)
    assert (found.value, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))


def test_miou_is_that_of_all_pixels_together_and_knows_its_images() -> None:
    counts = counts_of([[[10, 12, 9], [5, 3, 2]], [[20, 18, 17], [4, 6, 3]]])
    found = measured(counts).miou
    assert found.value == pytest.approx((26 / 34 + 5 / 13) / 2)
    assert (found.images, found.groups) == (2, 2)


def test_the_jackknife_by_hand() -> None:
    # without the first image IoU is 17/21 and 3/7, without the second 9/13 and 2/6
    counts = counts_of([[[10, 12, 9], [5, 3, 2]], [[20, 18, 17], [4, 6, 3]]])
    without = np.array([(17 / 21 + 3 / 7) / 2, (9 / 13 + 2 / 6) / 2])
    error = np.sqrt(((without - without.mean()) ** 2).sum() / 2)
    found = measured(counts).miou
    assert found.low == 0  # t of one degree reaches over the end
    assert found.high == pytest.approx(min(1, found.value + 12.7062 * error), abs=1e-4)


@pytest.mark.parametrize("groups", ["a", "aaa"])
def test_one_group_has_no_interval(groups: str) -> None:
    found = measured(counts_of([[[10, 12, 9], [5, 3, 2]]] * len(groups), groups)).miou
    assert (found.low, found.high) == (None, None)
    assert (found.images, found.groups) == (len(groups), 1)


def test_images_of_a_group_are_one_piece_of_evidence() -> None:
    one_each = measured(right(0.5, 0.7, 0.6)).pixel_accuracy
    often = right(*[0.5, 0.7, 0.6] * 20)
    as_groups = measured(dataclasses.replace(often, groups=tuple("abc" * 20))).pixel_accuracy
    assert (as_groups.low, as_groups.high) == pytest.approx((one_each.low, one_each.high))
    alone = measured(often).pixel_accuracy
    assert alone.low is not None
    assert one_each.low is not None
    assert alone.low > one_each.low + 0.1


def test_a_class_of_a_single_image_has_no_interval_of_its_own_and_widens_that_of_the_mean() -> None:
    both = [[[50, 50, 45], [50, 50, 45]]] * 5
    counts = counts_of([*both, [[50, 90, 50], [50, 10, 10]]])
    rare = counts_of([*([[[100, 100, 95], [0, 0, 0]]] * 5), [[50, 90, 50], [50, 10, 10]]])
    assert measured(counts).iou["cell"].low is not None
    assert measured(rare).iou["cell"].low is None
    mean = measured(rare).miou
    assert mean.low is not None
    assert mean.value - mean.low > 0.2


def test_no_labelled_pixel_measures_nothing() -> None:
    nothing = counts_of(np.zeros((3, 2, 3)))
    assert estimates(nothing) is None
    assert differences(nothing, nothing) is None
    assert estimates(counts_of(np.zeros((0, 2, 3)))) is None


@given(npst.arrays(np.int64, (5, 2, 3), elements=st.integers(0, 1000)))
def test_every_interval_holds_its_measure_within_0_and_1(made: Pixels) -> None:
    made[..., 2] = made.min(axis=-1)  # no more are right than there are
    found = estimates(counts_of(made))
    for one in [] if found is None else [found.miou, found.mean_dice, *found.iou.values(), *found.dice.values()]:
        assert one.low is None or one.high is None or 0 <= one.low <= one.value + 1e-9 <= one.high + 2e-9 <= 1 + 2e-9


# -- two versions on the same labels ----------------------------------------------------------------------------------
def test_the_same_predictions_do_not_differ() -> None:
    found = differences(right(0.5, 0.9, 0.6), right(0.5, 0.9, 0.6))
    assert found is not None
    assert found.miou == Estimate(0.0, 0.0, 0.0, 3, 3)


def test_what_all_images_gain_alike_is_surer_than_either_measure() -> None:
    before, after = right(0.5, 0.9, 0.6, 0.7), right(0.52, 0.92, 0.63, 0.72)
    found = differences(before, after)
    assert found is not None
    gain, alone = found.pixel_accuracy, measured(after).pixel_accuracy
    assert gain.value == pytest.approx(0.0225)
    assert gain.low is not None
    assert gain.low > 0
    assert alone.low is not None
    assert alone.low < 0.5


# -- how often intervals hold the truth -------------------------------------------------------------------------------
@pytest.mark.parametrize("images", [2, 3, 8, 20, 100])
def test_intervals_hold_the_truth_about_as_often_as_they_say(images: int) -> None:
    population, generator = PopulationOfLabels(np.random.default_rng(0)), np.random.default_rng(images)
    held, held_difference = [], []
    for _ in range(400):
        first, second = population.sample(images, generator)
        one, change = measured(first).miou, differences(first, second)
        truth = population.miou(first)
        assert change is not None
        held.append(holds(one, truth[0]))
        held_difference.append(holds(change.miou, truth[1] - truth[0]))
    assert 0.91 <= np.mean(held) <= 0.985
    assert 0.91 <= np.mean(held_difference) <= 0.985


def holds(one: Estimate, truth: float) -> bool:
    assert one.low is not None
    assert one.high is not None
    return one.low <= truth <= one.high


# -- records ---------------------------------------------------------------------------------------------------------
def version(
    number: int, counts: Counts, *, parent: int | None = None, of_parent: Counts | None = None
) -> VersionRecord:
    return VersionRecord(
        classes=counts.classes,
        label_map_digest="",
        data_digest="",
        parent=parent,
        labels={label: f"digest-{label}" for label in counts.labels},
        held_out=counts.labels,
        counts=counts.texts(),
        parent_counts=of_parent.texts() if of_parent else {},
        groups=counts.known_groups(),
        number=number,
    )


def test_versions_are_compared_on_the_labels_that_both_were_measured_on() -> None:
    before, after = right(0.5, 0.7, 0.6), right(0.6, 0.8, 0.7)
    found = compare(version(1, before), version(2, after.only(["2", "0"])))
    assert found is not None
    assert found.first.pixel_accuracy.value == pytest.approx(0.55)
    assert found.second.pixel_accuracy.value == pytest.approx(0.65)
    assert found.difference.pixel_accuracy.images == 2


def test_a_label_that_was_drawn_anew_is_another_label() -> None:
    first, second = version(1, right(0.5, 0.7, 0.6)), version(2, right(0.6, 0.8, 0.7))
    second = dataclasses.replace(second, labels=second.labels | {"1": "drawn anew"})
    found = compare(first, second)
    assert found is not None
    assert found.difference.miou.images == 2


def test_what_was_measured_of_a_parent_counts_for_it() -> None:
    # version 1 was measured on one label; when version 2 was trained there were three
    first = version(1, right(0.5))
    second = version(2, right(0.6, 0.8, 0.7), parent=1, of_parent=right(0.5, 0.7, 0.6))
    third = version(3, right(0.65, 0.85, 0.75), parent=2, of_parent=right(0.6, 0.8, 0.7))
    found = compare(first, third, [second])
    assert found is not None
    assert found.difference.pixel_accuracy.value == pytest.approx(0.15)
    assert found.difference.pixel_accuracy.images == 3
    assert compare(first, third) is not None


@pytest.mark.parametrize("change", ["no counts", "damaged", "other classes", "other labels"])
def test_what_cannot_be_compared_is_not(change: str) -> None:
    first, second = version(1, right(0.5, 0.7)), version(2, right(0.6, 0.8))
    changed = {
        "no counts": dataclasses.replace(first, counts={}),
        "damaged": dataclasses.replace(first, counts={"0": "7:1,2,3", "1": "x"}),
        "other classes": dataclasses.replace(first, classes=("cell", "background")),
        "other labels": dataclasses.replace(first, labels={"0": "a", "1": "b"}),
    }
    assert compare(changed[change], second) is None


def test_a_record_of_an_earlier_release_has_a_measure_without_an_interval() -> None:
    record = VersionRecord((), "", "", held_out=("1", "2"), measures={"miou": 0.8712})
    assert recorded(record, "miou") == Estimate(0.8712, None, None, 2, 2)
    assert measure_text(recorded(record, "miou")) == "0.87 (no interval)"
    assert recorded(record, "mean_dice") is None
    assert recorded(record, "iou", "cell") is None
