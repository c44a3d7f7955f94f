"""The publication gate: a version that is worse than the published version is kept, and not published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ml_backend.learning.measuring import Comparison
from ml_backend.learning.measuring.words import compared_text, images_text, told_apart

COLLAPSE: Final = 0.1
"""Loss of mIoU that is never taken for chance: so much is lost by a training that failed, and few images show it."""
LEAD: Final = 0.01
"""mIoU by which a trial must be better. That may be chance, and a wrong choice between equals costs little."""


@dataclass(frozen=True)
class Verdict:
    """Whether a new version may be published, and why."""

    accepted: bool
    reason: str


def judge(parent: int | None, comparison: Comparison | None, *, why_not: str = "") -> Verdict:
    """Compare a new version with the version that serves, on the same held-out labels.

    It is kept back where the interval of the difference lies wholly below nothing. On few labels that takes a loss as
    large as only a failed training has; such a loss keeps a version back whatever the interval.

    Args:
        parent: number of the version that serves; None before the first.
        comparison: of that version with the new one; None where they cannot be compared, and `why_not` says why.
    """
    if parent is None:
        return Verdict(True, "first version")
    if comparison is None:
        return Verdict(True, f"not compared with version {parent}: {why_not}")
    difference = comparison.difference.miou
    found, which = compared_text(parent, difference), told_apart(difference)
    if difference.value < -COLLAPSE and not which:
        found += f"; a loss of more than {100 * COLLAPSE:.0f} points keeps it back all the same"
    return Verdict(difference.value >= -COLLAPSE and which != "worse", found)


def judge_trial(comparison: Comparison | None, *, learns: bool, why_not: str = "") -> Verdict:
    """Judge whether the encoder should go on as it did in a trial: where that measured better by a lead.

    Args:
        comparison: of the version that serves with the trial, which learned from the same labels; None where they
            cannot be compared, and `why_not` says why.
        learns: whether the encoder learned in the trial.
    """
    tried = "An encoder that learns" if learns else "An encoder that stays as it is"
    goes_on = {True: "the encoder learns from now on", False: "the encoder stays as it is from now on"}
    returns = {True: "so the encoder stays as it is", False: "so the encoder goes on learning"}
    if comparison is None:
        return Verdict(False, f"{tried} could not be compared: {why_not}, {returns[learns]}")
    before, after = (f"{one.miou.value:.2f}" for one in (comparison.first, comparison.second))
    difference = comparison.difference.miou
    is_better = difference.value >= LEAD
    found = f"{tried} measured mIoU {after} against {before} {images_text(difference, same=True)}"
    return Verdict(is_better, f"{found}: {(goes_on if is_better else returns)[learns]}")
