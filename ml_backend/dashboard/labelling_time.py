"""How long labels took, and how well their pre-annotation fitted, as labelling went on."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ml_backend.store import Label

BINS: Final = 24
"""Groups of consecutive labels that are shown, at most."""


@dataclass(frozen=True)
class Group:
    """Consecutive labels.

    Attributes:
        first, last: numbers of the labels, counted from 1.
        minutes: median per label, since a tab that stays open over lunch says nothing; None where no time is known.
        agreement: mean IoU between pre-annotation and submitted mask; None where there was no pre-annotation.
    """

    first: int
    last: int
    minutes: float | None
    agreement: float | None

    @property
    def name(self) -> str:
        """Which labels these are."""
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"


@dataclass(frozen=True)
class LabellingTime:
    """All labels in groups.

    Attributes:
        groups: at most `BINS`, oldest first.
        hours, minutes, agreement: sum, median and mean over all labels; None where nothing is known.
    """

    groups: tuple[Group, ...]
    hours: float | None
    minutes: float | None
    agreement: float | None

    def as_json(self) -> dict[str, Any]:
        """Return an object for the charts."""
        return {
            "names": [group.name for group in self.groups],
            "minutes": [group.minutes for group in self.groups],
            "agreement": [group.agreement for group in self.groups],
        }


def labelling_time(labels: Sequence[Label]) -> LabellingTime:
    """Put labels, oldest first, into groups of consecutive ones."""
    size = max(1, -(-len(labels) // BINS))
    times = [label.lead_time for label in labels if label.lead_time is not None]
    groups = tuple(_group(labels[start : start + size], start) for start in range(0, len(labels), size))
    whole = _group(labels, 0) if labels else None
    return LabellingTime(
        groups=groups,
        hours=sum(times) / 3600 if times else None,
        minutes=whole.minutes if whole else None,
        agreement=whole.agreement if whole else None,
    )


def _group(labels: Sequence[Label], start: int) -> Group:
    seconds = [label.lead_time for label in labels if label.lead_time is not None]
    agreements = [label.agreement for label in labels if label.agreement is not None]
    return Group(
        first=start + 1,
        last=start + len(labels),
        minutes=statistics.median(seconds) / 60 if seconds else None,
        agreement=statistics.fmean(agreements) if agreements else None,
    )
