"""The publication gate: a version that is worse than the published version is kept, and not published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ml_backend.learning.measuring import Comparison
from ml_backend.learning.measuring.words import compared_text, told_apart

COLLAPSE: Final = 0.1
"""Loss of mIoU that is never taken for chance: so much is lost by a training that failed, and few images show it."""


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
