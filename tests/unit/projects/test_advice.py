"""Stopping advice: gains, the learning curve, and what is said when little is known."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from ml_backend.learning.checkpoints import VersionRecord
from ml_backend.projects.advice import Advice, Step, advise, expected_gain, lineage, recent_gain, steps


def version(
    number: int,
    labels: int,
    miou: float | None,
    parent_miou: float | None = None,
    *,
    held_out: int = 10,
    parent: int | None = None,
    classes: tuple[str, ...] = ("background", "cell"),
) -> VersionRecord:
    ids = [str(task) for task in range(1, labels + 1)]
    return VersionRecord(
        classes=classes,
        label_map_digest="",
        data_digest="",
        parent=parent if parent is not None else (number - 1 or None),
        labels=dict.fromkeys(ids, "digest"),
        held_out=tuple(ids[:held_out]),
        measures={"miou": miou, "parent_miou": parent_miou},
        number=number,
    )


def advice_on(*records: VersionRecord, agreements: tuple[float, ...] = (), serving: int | None = None) -> Advice:
    found = advise(records, serving or records[-1].number, agreements)
    assert found is not None
    return found


# -- gains -----------------------------------------------------------------------------------------------------------
def test_a_gain_is_measured_on_the_same_held_out_labels() -> None:
    # version 1 had 0.50 on its own labels, but 0.55 on those that version 2 was measured on
    assert steps([version(1, 10, 0.5), version(2, 35, 0.6, 0.55)]) == [Step(25, pytest.approx(5.0))]


def test_without_the_parents_measure_the_difference_stands_in_unless_classes_differ() -> None:
    before = version(1, 10, 0.5)
    assert steps([before, version(2, 20, 0.6)]) == [Step(10, pytest.approx(10.0))]
    assert steps([before, version(2, 20, 0.6, classes=("background", "cell", "vessel"))]) == [None]
    assert steps([before, version(2, 20, None)]) == [None]
    assert steps([version(1, 10, None), version(2, 20, 0.6)]) == [None]


def test_labels_that_only_changed_are_not_new() -> None:
    assert steps([version(1, 20, 0.5), version(2, 20, 0.52, 0.5)]) == [Step(0, pytest.approx(2.0))]


def test_gains_are_summed_until_about_fifty_labels_and_never_over_a_gap() -> None:
    many = [Step(30, 8.0), Step(20, 3.0), Step(20, 2.0), Step(15, -1.0)]
    assert recent_gain(many) == (55, 4.0)
    assert recent_gain([Step(10, 1.0), Step(10, 0.5)]) == (20, 1.5)
    assert recent_gain([Step(30, 8.0), None, Step(20, 2.0)]) == (20, 2.0)
    assert recent_gain([Step(80, 8.0), None]) == (0, None)
    assert recent_gain([]) == (0, None)


def test_a_rejected_version_is_no_part_of_the_line() -> None:
    records = {one.number: one for one in (version(1, 10, 0.5), version(2, 20, 0.3), version(3, 30, 0.6, parent=1))}
    assert [one.number for one in lineage(records, 3)] == [1, 3]
    assert [one.number for one in lineage(records, 2)] == [1, 2]


def test_a_line_ends_where_a_version_is_gone_and_cannot_run_in_circles() -> None:
    assert [one.number for one in lineage({3: version(3, 30, 0.6), 1: version(1, 10, 0.5)}, 3)] == [3]
    loop = {1: version(1, 10, 0.5, parent=2), 2: version(2, 10, 0.5, parent=1)}
    assert [one.number for one in lineage(loop, 2)] == [1, 2]


# -- the learning curve ----------------------------------------------------------------------------------------------
def curve(*labels: int, a: float = 0.9, b: float = 2.0, c: float = 0.5) -> list[tuple[int, float]]:
    return [(count, a - b * count**-c) for count in labels]


def test_a_curve_without_noise_is_found_again() -> None:
    # 0.9 - 2 / sqrt(n): 0.7 at 100 labels, 0.9 - 2 / 15 = 0.76667 at 225
    assert expected_gain(curve(25, 36, 64, 100), 125) == pytest.approx(6.6667, abs=0.01)
    assert expected_gain(curve(10, 20, 40, 80, c=1.0), 80) == pytest.approx(100 * 2 * (1 / 80 - 1 / 160), abs=0.01)


@pytest.mark.parametrize("miou", [[0.7] * 5, [0.8, 0.75, 0.7, 0.65, 0.6], [0.0] * 5])
def test_flat_and_falling_curves_promise_nothing(miou: list[float]) -> None:
    assert expected_gain(list(zip(range(10, 60, 10), miou, strict=True)), 50) == pytest.approx(0.0, abs=1e-3)


def test_noise_does_not_break_the_fit() -> None:
    jitter = [0.01, -0.01, 0.01, -0.01, 0.005]
    found = expected_gain([(n, m + e) for (n, m), e in zip(curve(20, 40, 60, 80, 100), jitter, strict=True)], 50)
    assert found is not None
    assert 0 < found < 8  # without noise 3.7


@pytest.mark.parametrize(
    "few",
    [[], curve(10, 20, 30), [(10, 0.5), (10, 0.6), (20, 0.6), (20, 0.7)], [(0, 0.1), (1, 0.2), (2, 0.3), (3, 0.4)]],
)
def test_too_little_for_a_curve_is_said(few: list[tuple[int, float]]) -> None:
    assert expected_gain(few, 10) is None


# -- in words --------------------------------------------------------------------------------------------------------
def test_before_the_first_version_there_is_nothing_to_say() -> None:
    assert advise([], None, [0.5]) is None
    assert advise([version(1, 10, 0.5)], None, []) is None
    assert advise([version(1, 10, 0.5)], 7, []) is None


def test_one_version_says_what_is_missing() -> None:
    advice = advice_on(version(1, 10, 0.5, held_out=2))
    assert (advice.labels, advice.gain, advice.expected_gain, advice.agreement) == (0, None, None, None)
    assert advice.sentences == (
        "It is too early to say what the last labels brought: that takes two measured versions.",
        "Too coarse to act on: that takes 8 held-out labels, and there are 2.",
    )


def test_without_held_out_labels_nothing_is_measured() -> None:
    advice = advice_on(version(1, 10, None, held_out=0), version(2, 20, None, held_out=0), agreements=(0.5, 0.7))
    assert advice.sentences == (
        "No label is held out yet, so what labels bring cannot be measured.",
        "Over the last 2 labels, the mean IoU between predicted and submitted masks is 0.60.",
    )


def test_two_versions_tell_a_gain_but_no_outlook() -> None:
    advice = advice_on(version(1, 50, 0.6), version(2, 100, 0.604, 0.602), agreements=(*[0.1] * 5, *[0.9] * 20))
    assert (advice.labels, advice.gain) == (50, pytest.approx(0.2))
    assert (advice.agreement, advice.agreement_labels) == (pytest.approx(0.9), 20)
    assert advice.sentences == (
        "The last 50 labels brought +0.2 points of mean IoU; it is too early to say what more would bring.",
        "Over the last 20 labels, the mean IoU between predicted and submitted masks is 0.90.",
    )


def history(*miou: float, held_out: int = 10) -> list[VersionRecord]:
    """Versions of 25 more labels each, the parent's measure as in its own training."""
    pairs = zip(chain([None], miou), miou, strict=False)
    return [version(at, 25 * at, now, before, held_out=held_out) for at, (before, now) in enumerate(pairs, start=1)]


def test_a_flat_end_says_that_it_may_be_time_to_stop() -> None:
    advice = advice_on(*history(0.7, 0.7, 0.701, 0.701, 0.702))
    assert (advice.labels, advice.gain, advice.is_coarse) == (50, pytest.approx(0.1), False)
    assert advice.sentences[0].startswith(
        "The last 50 labels brought +0.1 points of mean IoU; 50 more may bring about +0."
    )
    assert (
        advice.sentences[-1]
        == "More labels like these bring little: it may be time to stop, or to look for other images."
    )


@pytest.mark.parametrize(
    "records",
    [
        history(0.3, 0.5, 0.6, 0.66, 0.7),  # still rises
        history(0.7, 0.7, 0.701, 0.701, 0.702, held_out=7),  # too coarse
        history(0.7, 0.7, 0.7),  # no outlook
        [*history(0.7, 0.7, 0.7, 0.7), version(5, 110, 0.7, None, classes=("background", "cell", "new"))],  # a gap
    ],
)
def test_stopping_is_not_advised_on_thin_ground(records: list[VersionRecord]) -> None:
    assert not any("stop" in sentence for sentence in advice_on(*records).sentences)


def test_a_loss_is_said_as_a_loss() -> None:
    advice = advice_on(*history(0.7, 0.69, 0.68, 0.67, 0.66))
    assert advice.sentences[0] == "The last 50 labels brought -2.0 points of mean IoU; 50 more may bring about +0.0."


def test_a_training_on_changed_labels_only_and_one_label() -> None:
    changed = advice_on(version(1, 20, 0.5), version(2, 20, 0.52, 0.5))
    assert changed.sentences[0] == "The last training, without new labels, brought +2.0 points of mean IoU."
    single = advice_on(version(1, 20, 0.5), version(2, 21, 0.4999, 0.5))
    assert single.sentences[0].startswith("The last label brought +0.0 points")


def test_the_line_of_the_version_that_serves_counts() -> None:
    records = history(0.5, 0.6, 0.7)
    assert advice_on(*records, serving=2).gain == pytest.approx(10.0)


def test_scripts_get_plain_values() -> None:
    found: dict[str, Any] = vars(advice_on(*history(0.7, 0.7, 0.701, 0.701, 0.702), agreements=(0.5,)))
    assert {type(value) for value in found.values()} <= {int, float, bool, tuple, type(None)}
