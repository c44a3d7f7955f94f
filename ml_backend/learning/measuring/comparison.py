"""Two versions on the labels that both were measured on: their records tell, and no network is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from ml_backend.learning.checkpoints import VersionRecord
from ml_backend.learning.measuring.counts import Counts
from ml_backend.learning.measuring.uncertainty import Estimates, differences, estimates


@dataclass(frozen=True)
class Comparison:
    """What two versions measured on the same labels, and by how much the second is better."""

    first: Estimates
    second: Estimates
    difference: Estimates


def compare(first: VersionRecord, second: VersionRecord, records: Iterable[VersionRecord] = ()) -> Comparison | None:
    """Compare two versions on all labels that both were measured on, as the labels were then.

    Args:
        records: of other versions: one that was trained while `first` or `second` served measured that, too.

    Returns:
        None where they know other classes, or have no such label: earlier releases kept no count of single labels.
    """
    everything = {record.number: record for record in (*records, first, second)}.values()
    counts = [_known(one, everything) for one in (first, second)]
    labels = [label for label in counts[0] if label in counts[1]]
    if first.classes != second.classes or not labels:
        return None
    before, after = (_together(first.classes, labels, known) for known in counts)
    return compared(replace(before, groups=after.groups), after)


def compared(first: Counts, second: Counts) -> Comparison | None:
    """Compare two versions on the same labels in the same order; None without a labelled pixel."""
    difference, both = differences(first, second), [estimates(counts) for counts in (first, second)]
    if difference is None or both[0] is None or both[1] is None:
        return None
    return Comparison(both[0], both[1], difference)


_Known = Mapping[str, tuple[Counts, int]]
"""Label, with the digest of what was drawn -> counts that have it, and where."""


def _known(version: VersionRecord, records: Iterable[VersionRecord]) -> _Known:
    """Return on which labels a version was measured: after its training, and whenever one was trained after it."""
    known: dict[str, tuple[Counts, int]] = {}
    for record in records:
        texts = record.counts if record.number == version.number else {}
        if record.parent == version.number and record.classes == version.classes:
            texts = record.parent_counts
        with suppress(ValueError, IndexError):  # damaged, or of a later release
            counts = Counts.from_texts(texts, record.groups, version.classes)
            known |= {_drawn(label, record): (counts, at) for at, label in enumerate(counts.labels)}
    return known


def _drawn(label: str, record: VersionRecord) -> str:
    """Return a label's id with the digest of what was drawn: a label that was drawn anew is another one."""
    return f"{label} {'+'.join(record.labels.get(task, '') for task in label.split('+'))}"


def _together(classes: tuple[str, ...], labels: list[str], known: _Known) -> Counts:
    rows = [known[label] for label in labels]
    groups = tuple(counts.groups[at] for counts, at in rows)
    return Counts(classes, tuple(labels), groups, np.stack([counts.pixels[at] for counts, at in rows]))
