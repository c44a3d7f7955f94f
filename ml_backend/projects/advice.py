"""Whether labelling more still pays: what the last labels brought, and what the next ones may bring.

Computed from the records of the versions and shown; nothing acts on it. Gains are held-out mIoU in points (hundredths).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ml_backend.learning.checkpoints import VersionRecord

LABELS: Final = 50
"""About how many labels the gain is told for."""
SHOWN: Final = 20
"""Of how many labels the agreement is told."""
HELD_OUT: Final = 8
"""Held-out labels below which the measure is too coarse."""
VERSIONS: Final = 4
"""Versions with a measure that a learning curve is fitted to, at least."""
LITTLE: Final = 0.5
"""Points below which a gain is called little."""

_EXPONENTS = (0.05, 3.0)


@dataclass(frozen=True)
class Step:
    """One training: labels that were new in it, and the points that it brought on the same held-out labels."""

    labels: int
    gain: float


@dataclass(frozen=True)
class Advice:
    """What can be told about labelling more; None where it cannot be told.

    Attributes:
        labels, gain: the last so many labels brought so many points.
        expected_gain: points that as many more labels may bring, by the curve of the versions so far.
        agreement: mean IoU of predicted and submitted mask over the last `agreement_labels` labels that started from a
            predicted mask.
        held_out: labels that the version was measured on.
        is_coarse: whether these are too few to act on the measure.
        sentences: the advice in words.
    """

    labels: int
    gain: float | None
    expected_gain: float | None
    agreement: float | None
    agreement_labels: int
    held_out: int
    is_coarse: bool
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
    labels, gain = recent_gain(steps(history))
    last = list(agreements)[-SHOWN:]
    advice = Advice(
        labels=labels,
        gain=gain,
        expected_gain=None if gain is None or labels == 0 else expected_gain(_curve(history), labels),
        agreement=sum(last) / len(last) if last else None,
        agreement_labels=len(last),
        held_out=len(history[-1].held_out),
        is_coarse=len(history[-1].held_out) < HELD_OUT,
    )
    return replace(advice, sentences=tuple(_sentences(advice)))


def lineage(by_number: Mapping[int, VersionRecord], number: int) -> list[VersionRecord]:
    """Return the version and those it was compared with, back to the first that is still there, oldest first."""
    records = [by_number[number]]
    while (parent := records[-1].parent) is not None and parent in by_number and parent < records[-1].number:
        records.append(by_number[parent])
    return records[::-1]


def steps(history: Sequence[VersionRecord]) -> list[Step | None]:
    """Return what each training after the first brought; None for a training whose gain is not known.

    The gain is the mIoU less that of the parent on the same held-out labels; where that was not measured, less that of
    the parent's own training, if the classes are the same.
    """
    return [_step(before, after) for before, after in pairwise(history)]


def recent_gain(trainings: Sequence[Step | None], wanted: int = LABELS) -> tuple[int, float | None]:
    """Sum the last trainings until they hold at least `wanted` labels, or up to a training whose gain is not known.

    Args:
        trainings: of `steps`.

    Returns:
        (labels, points); (0, None) where nothing is known of the last training.

    >>> recent_gain([Step(40, 9.0), Step(30, 1.5), Step(25, -0.5)])
    (55, 1.0)
    """
    labels, gain = 0, None
    for step in reversed(trainings):
        if step is None or labels >= wanted:
            break
        labels, gain = labels + step.labels, (gain or 0.0) + step.gain
    return labels, gain


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


def _step(before: VersionRecord, after: VersionRecord) -> Step | None:
    miou, parent = after.measures.get("miou"), after.measures.get("parent_miou")
    if parent is None and before.classes == after.classes:
        parent = before.measures.get("miou")
    if miou is None or parent is None:
        return None
    return Step(len(after.labels.keys() - before.labels.keys()), 100 * (miou - parent))


def _curve(history: Sequence[VersionRecord]) -> list[tuple[int, float]]:
    """Return (labels, mIoU) of the versions that know the same classes as the newest."""
    same = [record for record in history if record.classes == history[-1].classes]
    return [(len(record.labels), miou) for record in same if (miou := record.measures.get("miou")) is not None]


def _sentences(advice: Advice) -> Iterable[str]:
    if advice.gain is not None:
        counted = f"The last {_labels(advice.labels)}" if advice.labels else "The last training, without new labels,"
        yield f"{counted} brought {_points(advice.gain)} points of mean IoU{_outlook(advice)}."
    elif advice.held_out == 0:
        yield "No label is held out yet, so what labels bring cannot be measured."
    else:
        yield "It is too early to say what the last labels brought: that takes two measured versions."
    if advice.is_coarse and advice.held_out:
        there_are = "there is 1" if advice.held_out == 1 else f"there are {advice.held_out}"
        yield f"Too coarse to act on: that takes {HELD_OUT} held-out labels, and {there_are}."
    if advice.agreement is not None:
        yield (
            f"Over the last {_labels(advice.agreement_labels)}, the mean IoU between predicted and submitted masks is "
            f"{advice.agreement:.2f}."
        )
    if _pays_little(advice):
        yield "More labels like these bring little: it may be time to stop, or to look for other images."


def _outlook(advice: Advice) -> str:
    if advice.expected_gain is None:
        return "" if advice.labels == 0 else "; it is too early to say what more would bring"
    return f"; {advice.labels} more may bring about {_points(advice.expected_gain)}"


def _pays_little(advice: Advice) -> bool:
    """Whether the last labels brought little, and as many more may bring little, both well enough measured."""
    known = (advice.gain, advice.expected_gain)
    return (
        not advice.is_coarse and advice.labels >= LABELS and all(gain is not None and gain < LITTLE for gain in known)
    )


def _points(gain: float) -> str:
    return f"{round(gain, 1) + 0.0:+.1f}"  # adding zero takes the sign from -0.0


def _labels(count: int) -> str:
    return "label" if count == 1 else f"{count} labels"
