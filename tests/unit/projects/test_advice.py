"""Stopping advice: gains with their intervals, the learning curve, and what is said when little is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ml_backend.learning.checkpoints import VersionRecord
from ml_backend.learning.measuring import Counts
from ml_backend.learning.measuring.uncertainty import estimates
from ml_backend.projects.advice import LABELS, Advice, advise, expected_gain, lineage, recent_gain

CLASSES = ("background", "cell")
EVEN = (0.7, 0.5, 0.6, 0.65, 0.55, 0.6, 0.7, 0.5, 0.6, 0.6)
"""Held-out images of different difficulty."""


def counts_of(shares: Sequence[float]) -> Counts:
    """Counts of images of 1000 pixels of cell, such shares of them found: their mean is the IoU of the only class."""
    found = [round(1000 * share) for share in shares]
    pixels = np.array([[[0, 1000 - one, 0], [1000, one, one]] for one in found], np.int64).reshape(-1, 2, 3)
    labels = tuple(str(number) for number in range(1, len(shares) + 1))
    return Counts(CLASSES, labels, labels, pixels)


def version(
    number: int,
    labels: int,
    shares: Sequence[float],
    of_parent: Sequence[float] = (),
    *,
    parent: int | None = None,
    classes: tuple[str, ...] = CLASSES,
) -> VersionRecord:
    """A version of so many labels, measured on the first of them; so was its parent."""
    ids, counts = [str(task) for task in range(1, labels + 1)], counts_of(shares)
    measured = estimates(counts) if shares else None
    return VersionRecord(
        classes=classes,
        label_map_digest="",
        data_digest="",
        parent=parent if parent is not None else (number - 1 or None),
        labels=dict.fromkeys(ids, "digest"),
        held_out=counts.labels,
        measures={"miou": measured.miou.value if measured else None},
        counts=counts.texts(),
        parent_counts=counts_of(of_parent).texts(),
        number=number,
    )


def better(points: float, *, by: float = 0.0) -> list[float]:
    """The images of EVEN, each found better by so many points, more or less `by` by turns."""
    return [share + (points + (by if at % 2 else -by)) / 100 for at, share in enumerate(EVEN)]


def advice_on(*records: VersionRecord, agreements: tuple[float, ...] = (), serving: int | None = None) -> Advice:
    found = advise(records, serving or records[-1].number, agreements)
    assert found is not None
    return found


def history(*points: float, by: float = 0.2) -> list[VersionRecord]:
    """Versions of 25 more labels each, so many points better than EVEN."""
    return [
        version(at, 25 * at, better(one, by=by if at % 2 else 0), better(points[at - 2]) if at > 1 else ())
        for at, one in enumerate(points, start=1)
    ]


# -- gains -----------------------------------------------------------------------------------------------------------
def test_a_gain_is_measured_on_the_same_held_out_labels() -> None:
    # version 1 was measured on two easy images; of those that version 2 was measured on, it finds less
    first = version(1, 10, [0.9, 0.9])
    second = version(2, 35, [0.92, 0.92, 0.62, 0.53], [0.9, 0.9, 0.6, 0.5], parent=1)
    advice = advice_on(first, second)
    assert (advice.labels, advice.gain, advice.gain_images) == (25, pytest.approx(2.25), 4)
    assert advice.gain_low is not None
    assert advice.gain_high is not None
    assert advice.gain_low < 2.25 < advice.gain_high


def test_labels_that_only_changed_are_not_new() -> None:
    gain = recent_gain([version(1, 20, EVEN), version(2, 20, better(2), EVEN)])
    assert gain is not None
    assert (gain.labels, gain.points[0]) == (0, pytest.approx(2.0))


def test_a_gain_reaches_back_about_fifty_labels() -> None:
    line = [version(at, 20 * at, better(at)) for at in range(1, 8)]
    gain = recent_gain(line)
    assert gain is not None
    assert (gain.labels, gain.points[0]) == (60, pytest.approx(3.0))  # version 7 with version 4
    short = recent_gain(line[:3])
    assert short is not None
    assert (short.labels, short.points[0]) == (40, pytest.approx(2.0))


def test_a_gain_never_reaches_over_a_gap() -> None:
    one, two, three = (version(at, 20 * at, better(at)) for at in (1, 2, 3))
    gain = recent_gain([dataclasses.replace(one, classes=("background", "vessel")), two, three])
    assert gain is not None
    assert gain.labels == 20
    assert recent_gain([one, two, dataclasses.replace(three, counts={})]) is None
    assert recent_gain([one]) is None


def test_a_kept_back_version_tells_more_of_the_one_it_was_compared_with() -> None:
    first, kept_back = version(1, 10, [0.6]), version(2, 20, EVEN, better(0), parent=1)
    gain = recent_gain([first, version(3, 30, better(1), parent=1)], [first, kept_back])
    assert gain is not None
    assert gain.miou.images == len(EVEN)


def test_a_rejected_version_is_no_part_of_the_line() -> None:
    records = {one.number: one for one in (version(1, 10, EVEN), version(2, 20, EVEN), version(3, 30, EVEN, parent=1))}
    assert [one.number for one in lineage(records, 3)] == [1, 3]
    assert [one.number for one in lineage(records, 2)] == [1, 2]


def test_a_line_ends_where_a_version_is_gone_and_cannot_run_in_circles() -> None:
    assert [one.number for one in lineage({3: version(3, 30, EVEN), 1: version(1, 10, EVEN)}, 3)] == [3]
    loop = {1: version(1, 10, EVEN, parent=2), 2: version(2, 10, EVEN, parent=1)}
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
    assert advise([version(1, 10, EVEN)], None, []) is None
    assert advise([version(1, 10, EVEN)], 7, []) is None


def test_one_version_says_what_is_missing() -> None:
    advice = advice_on(version(1, 10, EVEN[:2]))
    assert (advice.labels, advice.gain, advice.expected_gain, advice.agreement) == (0, None, None, None)
    assert advice.sentences == (
        "It is too early to say what the last labels brought: that takes two measured versions.",
    )


def test_without_held_out_labels_nothing_is_measured() -> None:
    advice = advice_on(version(1, 10, ()), version(2, 20, ()), agreements=(0.5, 0.7))
    assert advice.sentences == (
        "No label is held out yet, so what labels bring cannot be measured.",
        "Over the last 2 labels, the mean IoU between predicted and submitted masks is 0.60.",
    )


def test_versions_without_a_common_label_are_not_compared() -> None:
    first = version(1, 10, EVEN)
    earlier_release = dataclasses.replace(version(2, 20, better(5)), counts={}, parent_counts={})
    other_classes = dataclasses.replace(version(2, 20, better(5)), classes=("background", "vessel"))
    said = [advice_on(first, second).sentences[0] for second in (earlier_release, other_classes)]
    assert said == [
        "What the last labels brought is not told: version 2 cannot be compared with version 1, since no label is "
        "known that both were measured on.",
        "What the last labels brought is not told: version 2 cannot be compared with version 1, since they know "
        "different classes.",
    ]


def test_a_gain_that_is_sure_is_told_as_a_gain() -> None:
    advice = advice_on(version(1, 50, EVEN), version(2, 100, better(2, by=0.6)), agreements=(*[0.1] * 5, *[0.9] * 20))
    # the images differ by 1.4 and 2.6 points, five each: a standard error of 0.2, and 2.26 of them to either end
    assert (advice.labels, advice.gain) == (50, pytest.approx(2.0))
    assert (advice.agreement, advice.agreement_labels) == (pytest.approx(0.9), 20)
    assert advice.sentences == (
        "Version 2 is better than version 1: +2.0 points (+1.5 to +2.5) of mIoU on the same 10 images. That is what "
        "the last 50 labels brought; it is too early to say what more would bring.",
        "Over the last 20 labels, the mean IoU between predicted and submitted masks is 0.90.",
    )


def test_a_difference_that_may_be_chance_is_not_called_a_gain() -> None:
    up = advice_on(version(1, 20, EVEN), version(2, 36, better(0.4, by=3)))
    assert up.sentences[0] == (
        "Version 2 cannot be told apart from version 1 yet: +0.4 points (-1.9 to +2.7) of mIoU on the same 10 images. "
        "So what the last 16 labels brought cannot be told yet."
    )
    down = advice_on(version(1, 20, EVEN[:2]), version(2, 21, [0.5, 0.51]))
    assert down.sentences[0].startswith("Version 2 cannot be told apart from version 1 yet: -9.5 points (-100.0 to")
    single = advice_on(version(1, 20, EVEN[:1]), version(2, 21, [0.65]))
    assert single.sentences[0].endswith(
        "yet: -5.0 points (no interval) of mIoU on the same image. So what the last label brought cannot be told yet."
    )


def test_a_flat_end_that_is_sure_says_that_it_may_be_time_to_stop() -> None:
    advice = advice_on(*history(0, 0, 0.1, 0.1, 0.2))
    assert (advice.labels, advice.gain) == (50, pytest.approx(0.1))
    assert (
        advice.sentences[-1]
        == "More labels like these bring little: it may be time to stop, or to look for other images."
    )


@pytest.mark.parametrize(
    "records",
    [
        history(0, 10, 15, 18, 20),  # still rises
        history(0, 0, 0.1, 0.1, 0.2, by=3),  # flat as measured, and as well 1 point or more
        history(0, 0, 0),  # no outlook
        [*history(0, 0, 0, 0), version(5, 110, EVEN, classes=("background", "new"))],  # a gap
    ],
)
def test_stopping_is_not_advised_on_thin_ground(records: list[VersionRecord]) -> None:
    assert advice_on(*records).labels in {0, LABELS}
    assert not any("stop" in sentence for sentence in advice_on(*records).sentences)


def test_a_loss_is_said_as_a_loss() -> None:
    advice = advice_on(*history(0, -1, -2, -3, -4))
    assert advice.sentences[0] == (
        "Version 5 is worse than version 3: -2.0 points (-2.2 to -1.8) of mIoU on the same 10 images. That is what the "
        "last 50 labels brought; 50 more may bring about +0.0 points."
    )


def test_a_training_on_changed_labels_only() -> None:
    changed = advice_on(version(1, 20, EVEN), version(2, 20, better(2)))
    assert changed.sentences[0].startswith("Version 2 is better than version 1: +2.0 points (")
    assert changed.sentences[0].endswith("images. It was trained without new labels.")


def test_the_line_of_the_version_that_serves_counts() -> None:
    records = history(0, 10, 20)
    assert advice_on(*records, serving=2).gain == pytest.approx(10.0)


def test_scripts_get_plain_values() -> None:
    found: dict[str, Any] = vars(advice_on(*history(0, 0, 0.1, 0.1, 0.2), agreements=(0.5,)))
    assert {type(value) for value in found.values()} <= {int, float, bool, tuple, type(None)}
