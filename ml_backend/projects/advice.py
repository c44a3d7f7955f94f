"""Whether labelling more still pays: what the last labels brought, and what the next ones may bring.

Computed from the records of the versions and shown; nothing acts on it. Gains are held-out mIoU in points (hundredths).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ml_backend.learning.checkpoints import VersionRecord
from ml_backend.learning.measuring import Estimate, compare
from ml_backend.learning.measuring.words import comparison_text, points_text, told_apart

LABELS: Final = 50
"""About how many labels the gain is told for."""
SHOWN: Final = 20
"""Of how many labels the agreement is told."""
VERSIONS: Final = 4
"""Versions with a measure that a learning curve is fitted to, at least."""
LITTLE: Final = 1.0
"""Points below which a gain is called little."""

_EXPONENTS = (0.05, 3.0)


@dataclass(frozen=True)
class Gain:
    """What the last labels brought: the version that serves, less an earlier one, on the labels that both measured.

    Attributes:
        since: number of the earlier version.
        labels: that only the later version knows; 0: it was trained because labels were drawn anew.
        miou: the difference with its interval.
    """

    since: int
    labels: int
    miou: Estimate

    @property
    def points(self) -> tuple[float, float | None, float | None]:
        """The gain and both ends of its interval in points."""
        low, high = (None if end is None else 100 * end for end in (self.miou.low, self.miou.high))
        return 100 * self.miou.value, low, high


@dataclass(frozen=True)
class Advice:
    """What can be told about labelling more; None where it cannot be told.

    Attributes:
        labels, gain: the last so many labels brought so many points.
        gain_low, gain_high: the 95 % interval of the gain; gain_images: that both versions were measured on.
        expected_gain: points that as many more labels may bring, by the curve of the versions so far.
        agreement: mean IoU of predicted and submitted mask over the last `agreement_labels` labels that started from a
            predicted mask.
        held_out: labels that the version was measured on.
        sentences: the advice in words.
    """

    labels: int
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    gain_images: int
    expected_gain: float | None
    agreement: float | None
    agreement_labels: int
    held_out: int
    sentences: tuple[str, ...] = ()


def advise(records: Iterable[VersionRecord], serving: int | None, agreements: Sequence[float]) -> Advice | None:
    """Tell what labelling brings.

    Args:
        records: of all versions of a project.
        serving: number of the version that serves; None before the first.
        agreements: mean IoU of predicted and submitted mask of each label that started from a predicted mask, the
            oldest first.

    Returns:
        None before the first version.
    """
    by_number = {record.number: record for record in records}
    if serving not in by_number:
        return None
    history = lineage(by_number, serving)
    gain, last = recent_gain(history, by_number.values()), list(agreements)[-SHOWN:]
    points, low, high = gain.points if gain else (None, None, None)
    advice = Advice(
        labels=gain.labels if gain else 0,
        gain=points,
        gain_low=low,
        gain_high=high,
        gain_images=gain.miou.images if gain else 0,
        expected_gain=expected_gain(_curve(history), gain.labels) if gain and gain.labels else None,
        agreement=sum(last) / len(last) if last else None,
        agreement_labels=len(last),
        held_out=len(history[-1].held_out),
    )
    return replace(advice, sentences=tuple(_sentences(advice, gain, history)))


def lineage(by_number: Mapping[int, VersionRecord], number: int) -> list[VersionRecord]:
    """Return the version and those it was compared with, back to the first that is still there, oldest first."""
    records = [by_number[number]]
    while (parent := records[-1].parent) is not None and parent in by_number and parent < records[-1].number:
        records.append(by_number[parent])
    return records[::-1]


def recent_gain(
    history: Sequence[VersionRecord], records: Iterable[VersionRecord] = (), wanted: int = LABELS
) -> Gain | None:
    """Compare the last version of a line with the one before it that is at least `wanted` labels back.

    Where the line cannot be compared so far back, it is compared as far as it can be.

    Args:
        history: of `lineage`.
        records: of all versions: those that were trained while one of the line served measured that, too.

    Returns:
        None where it cannot be compared with the version before it.
    """
    latest, known, gain = history[-1], list(records), None
    for before in reversed(history[:-1]):
        comparison = compare(before, latest, known)
        if comparison is None:
            break
        gain = Gain(before.number, len(latest.labels.keys() - before.labels.keys()), comparison.difference.miou)
        if gain.labels >= wanted:
            break
    return gain


def expected_gain(curve: Sequence[tuple[int, float]], more: int) -> float | None:
    """Return the points that `more` labels may bring after the last ones: least squares of a - b n^-c, b and c >= 0.

    Args:
        curve: (labels, mIoU) by version, the newest last.

    Returns:
        0 or more: a curve that does not rise is expected to stay. None with fewer than VERSIONS measures, or fewer
        than three different numbers of labels, which three coefficients always fit.
    """
    if len(curve) < VERSIONS or len({labels for labels, _ in curve}) < 3 or min(labels for labels, _ in curve) < 1:
        return None
    from scipy import optimize  # slow to import, and status pages mostly do without it

    labels, miou = (np.array(column, dtype=np.float64) for column in zip(*curve, strict=True))
    scale = labels.max()

    def error(exponent: float) -> float:
        return _fit(labels / scale, miou, exponent)[0]

    # For a given exponent the best a and b are found exactly, so one coefficient is left to search for.
    grid = np.geomspace(*_EXPONENTS, 40)
    best = int(np.argmin([error(exponent) for exponent in grid]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    exponent = float(optimize.minimize_scalar(error, bounds=around, method="bounded", options={"xatol": 1e-6}).x)
    slope = _fit(labels / scale, miou, exponent)[1]
    now = labels[-1] / scale
    return float(100 * slope * (now**-exponent - (now + more / scale) ** -exponent))


def _fit(shares: NDArray[np.float64], miou: NDArray[np.float64], exponent: float) -> tuple[float, float]:
    """Return (squared error, b) of the best a - b n^-c for this c, with 0 <= a <= 1 and b >= 0."""
    from scipy import optimize

    columns = np.stack([np.ones_like(shares), -(shares**-exponent)], axis=1)
    solution = optimize.lsq_linear(columns, miou, bounds=([0, 0], [1, np.inf]))
    return float(solution.cost), float(solution.x[1])


def _curve(history: Sequence[VersionRecord]) -> list[tuple[int, float]]:
    """Return (labels, mIoU) of the versions that know the same classes as the newest."""
    same = [record for record in history if record.classes == history[-1].classes]
    return [(len(record.labels), miou) for record in same if (miou := record.measures.get("miou")) is not None]


def _sentences(advice: Advice, gain: Gain | None, history: Sequence[VersionRecord]) -> Iterable[str]:
    if gain is not None:
        yield _gain_text(advice, gain, history[-1].number)
    else:
        yield _why_no_gain(history)
    if advice.agreement is not None:
        yield (
            f"Over the last {_labels(advice.agreement_labels)}, the mean IoU between predicted and submitted masks is "
            f"{advice.agreement:.2f}."
        )
    if _pays_little(advice):
        yield "More labels like these bring little: it may be time to stop, or to look for other images."


def _gain_text(advice: Advice, gain: Gain, latest: int) -> str:
    """Say what the last labels brought; a difference that may be chance is not called a gain."""
    found, labels = comparison_text(latest, gain.since, gain.miou), _labels(gain.labels)
    if not gain.labels:
        return f"{found}. It was trained without new labels."
    if not told_apart(gain.miou):
        return f"{found}. So what the last {labels} brought cannot be told yet."
    return f"{found}. That is what the last {labels} brought; {_outlook(advice)}."


def _why_no_gain(history: Sequence[VersionRecord]) -> str:
    """Say why the last version is not compared with the one before it."""
    latest = history[-1]
    if not latest.held_out:
        return "No label is held out yet, so what labels bring cannot be measured."
    if len(history) < 2:
        return "It is too early to say what the last labels brought: that takes two measured versions."
    before = history[-2]
    differ = before.classes != latest.classes
    why = "they know different classes" if differ else "no label is known that both were measured on"
    return (
        f"What the last labels brought is not told: version {latest.number} cannot be compared with version "
        f"{before.number}, since {why}."
    )


def _outlook(advice: Advice) -> str:
    if advice.expected_gain is None:
        return "it is too early to say what more would bring"
    return f"{advice.labels} more may bring about {points_text(advice.expected_gain)} points"


def _pays_little(advice: Advice) -> bool:
    """Whether the last labels brought little for sure, and as many more may bring little."""
    known = (advice.gain_high, advice.expected_gain)
    return advice.labels >= LABELS and all(gain is not None and gain < LITTLE for gain in known)


def _labels(count: int) -> str:
    return "label" if count == 1 else f"{count} labels"
