"""The publication gate: a version that is worse than the published version is kept, and not published."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Whether a new version may be published, and why."""

    accepted: bool
    reason: str


def judge(
    *, miou: float | None, parent_miou: float | None, parent: int | None, held_out: int, minimum: int, tolerance: float
) -> Verdict:
    """Compare a new version with its parent on the same held-out labels.

    Args:
        miou: held-out mIoU of the new version, None where nothing is held out.
        parent_miou: that of version `parent`, None where it cannot be compared (other classes, nothing held out).
        held_out: how many labels measured; below `minimum` chance decides, so every version is accepted.
        tolerance: loss of mIoU that is still accepted.
    """
    if parent is None:
        return Verdict(True, "first version")
    if miou is None or held_out < minimum:
        labels = "1 label is" if held_out == 1 else f"{held_out} labels are"
        return Verdict(True, f"not compared: {labels} held out, {minimum} are needed")
    if parent_miou is None:
        return Verdict(True, f"not compared: version {parent} has other classes")
    compared = f"held-out mIoU {miou:.3f}, version {parent} has {parent_miou:.3f} on the same {held_out} labels"
    if miou < parent_miou - tolerance:
        return Verdict(False, f"worse by more than {tolerance:g}: {compared}")
    return Verdict(True, compared)
