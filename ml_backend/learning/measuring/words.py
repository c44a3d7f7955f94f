"""Measures in words, the same on every page, in every command and every event."""

from __future__ import annotations

from typing import Final, Literal

from ml_backend.learning.checkpoints import VersionRecord
from ml_backend.learning.measuring.uncertainty import Estimate

NO_INTERVAL: Final = "no interval"
"""Stands where a single group of images was measured, or an earlier release measured."""


def recorded(record: VersionRecord, measure: str, of_class: str | None = None) -> Estimate | None:
    """Return a measure of a version with the interval that its record keeps; None where it was not measured.

    Args:
        measure: miou, mean_dice or pixel_accuracy; iou or dice of a class.
    """
    value, ends = record.measures.get(measure), (record.measures.get("intervals") or {}).get(measure)
    if of_class is not None:
        value, ends = (value or {}).get(of_class), (ends or {}).get(of_class)
    if value is None:
        return None
    images = record.measures.get("images", len(record.held_out))
    low, high = ends or (None, None)
    return Estimate(value, low, high, images, record.measures.get("groups", images))


def measure_text(estimate: Estimate | None) -> str:
    """Write a measure with its interval.

    >>> measure_text(Estimate(0.8712, 0.8123, 0.919, 12, 12)), measure_text(Estimate(0.8712)), measure_text(None)
    ('0.87 (0.81 to 0.92)', '0.87 (no interval)', '')
    """
    if estimate is None:
        return ""
    return f"{estimate.value:.2f} ({_ends(estimate, '{:.2f}', 1)})"


def measured_text(estimate: Estimate | None) -> str:
    """Write a measure with its interval, and what it was measured on.

    >>> measured_text(Estimate(0.8712, 0.8123, 0.919, 12, 12)), measured_text(None)
    ('0.87 (0.81 to 0.92) on 12 images', '')
    """
    return "" if estimate is None else f"{measure_text(estimate)} {images_text(estimate)}"


def difference_text(difference: Estimate) -> str:
    """Write a difference of two measures with its interval, in points (hundredths).

    >>> difference_text(Estimate(0.0123, -0.0041, 0.0287, 12, 12)), difference_text(Estimate(-0.0001))
    ('+1.2 points (-0.4 to +2.9)', '+0.0 points (no interval)')
    """
    return f"{points_text(100 * difference.value)} points ({_ends(difference, '{:+.1f}', 100)})"


def points_text(points: float) -> str:
    """Write points of a measure.

    >>> points_text(1.25), points_text(-0.04)
    ('+1.2', '+0.0')
    """
    return f"{round(points, 1) + 0.0:+.1f}"  # adding zero takes the sign from -0.0


def images_text(estimate: Estimate, *, same: bool = False) -> str:
    """Write what was measured on.

    >>> images_text(Estimate(0.8, images=12, groups=12)), images_text(Estimate(0.8, images=1, groups=1), same=True)
    ('on 12 images', 'on the same image')
    >>> images_text(Estimate(0.8, images=12, groups=3), same=True)
    'on the same 12 images of 3 groups'
    """
    of_groups = f" of {_counted(estimate.groups, 'group')}" if estimate.groups < estimate.images else ""
    if same:
        return f"on the same {'image' if estimate.images == 1 else f'{estimate.images} images'}{of_groups}"
    return f"on {_counted(estimate.images, 'image')}{of_groups}"


def told_apart(difference: Estimate) -> Literal["better", "worse", ""]:
    """Return which way two versions differ, where the interval lies wholly on one side of nothing; else empty."""
    if difference.low is None or difference.high is None:
        return ""
    return "better" if difference.low > 0 else "worse" if difference.high < 0 else ""


def compared_text(earlier: int, difference: Estimate) -> str:
    """Say how a version compares with an earlier one, by the difference of their mIoU on the same labels.

    >>> compared_text(3, Estimate(0.0123, 0.0041, 0.0205, 12, 12))
    'better than version 3: +1.2 points (+0.4 to +2.0) of mIoU on the same 12 images'
    >>> compared_text(3, Estimate(0.0123, -0.0041, 0.0287, 12, 12))
    'cannot be told apart from version 3 yet: +1.2 points (-0.4 to +2.9) of mIoU on the same 12 images'
    """
    which = told_apart(difference)
    found = f"{which} than version {earlier}" if which else f"cannot be told apart from version {earlier} yet"
    return f"{found}: {difference_text(difference)} of mIoU {images_text(difference, same=True)}"


def comparison_text(later: int, earlier: int, difference: Estimate) -> str:
    """Write `compared_text` as a sentence, without its end.

    >>> comparison_text(4, 3, Estimate(-0.0123, -0.0205, -0.0041, 1, 1))
    'Version 4 is worse than version 3: -1.2 points (-2.0 to -0.4) of mIoU on the same image'
    """
    return f"Version {later} {'is ' if told_apart(difference) else ''}{compared_text(earlier, difference)}"


def _ends(estimate: Estimate, form: str, scale: float) -> str:
    if estimate.low is None or estimate.high is None:
        return NO_INTERVAL
    low, high = (round(scale * end, 3) + 0.0 for end in (estimate.low, estimate.high))
    return f"{form.format(low)} to {form.format(high)}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
