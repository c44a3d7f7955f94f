"""The results file: one row for each training of a simulation, written as soon as it is measured.

A simulation resumes from the file, and the report reads it. Rows are only appended: of two rows with the same key the
later counts, and a last line that was cut off by a kill is left out.
"""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_backend.errors import ConfigurationError

RESULTS = "results.csv"
"""Name of the file in a folder of results."""
FULL = "full"
"""Name, in the column strategy, of the reference that is trained on all labels."""


@dataclass(frozen=True)
class Row:
    """A training: what was labelled, the clicks that this took, and how good the network became.

    Attributes:
        dataset: name of the data set.
        strategy: name of the strategy that chose the labels, or "full".
        seed: runs of the same seed start with the same images, and are compared in pairs.
        round: 0 is the training on the initial set, which is drawn at random.
        images: number of images of which anything is labelled.
        pixels: number of labelled pixels, of the original masks.
        clicks: clicks that drawing those masks took, as `simulation.polygons` counts it.
        miou: mean intersection over union of the test images, in [0, 1]; classes absent from them are left out.
        dice: mean Dice of the test images, in [0, 1], likewise.
        object_f1, object_dice: of the objects of all test images together, in [0, 1]; None where no class is measured
            in objects.
        seconds_train, seconds_select: seconds spent training, and choosing what this round added.
        settings: JSON of all that decides the outcome but strategy, seed and round.
        commit: of the code that ran; "+" at its end: with changes that were not committed. Empty when unknown.
        points: answers to points.
        opened: how often an image was opened.
        drawn: clicks of the masks alone, drawn from nothing.
        mended: what they take where the masks that the network of the round before predicts are mended; the first ones
            are drawn from nothing.
        rest: images without a mask, after the last round only.
        rest_mended: clicks that mending their masks takes, as the last network predicts them.

    The latter six are None in files of releases that did not count them.
    """

    dataset: str
    strategy: str
    seed: int
    round: int
    images: int
    pixels: int
    clicks: float
    miou: float
    dice: float
    object_f1: float | None
    object_dice: float | None
    seconds_train: float
    seconds_select: float
    settings: str
    commit: str
    points: int | None = None
    opened: int | None = None
    drawn: int | None = None
    mended: int | None = None
    rest: int | None = None
    rest_mended: int | None = None

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Data set, strategy, seed and round, which no other row shares."""
        return self.dataset, self.strategy, self.seed, self.round


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
_EARLIER = COLUMNS[: COLUMNS.index("points")]
"""Those of releases that counted no points."""
_INTEGERS = {"seed", "round", "images", "pixels"}
_COUNTS = {*COLUMNS[len(_EARLIER) :]}
_TEXTS = {"dataset", "strategy", "settings", "commit"}


def append(file: Path, row: Row) -> None:
    """Add a row, and the header before the first one; the row is on the disk when this returns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and not _ends_with_newline(file):
        _drop_last_line(file)
    with file.open("a+", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        opened.seek(0)
        columns = tuple(next(csv.reader(opened), ()))
        if not columns:
            writer.writerow(columns := COLUMNS)
        writer.writerow([_text(getattr(row, name)) for name in columns])
        opened.flush()
        os.fsync(opened.fileno())


def read(file: Path) -> list[Row]:
    """Read all rows, the last of each key, in the order of the file; none without a file.

    Raises:
        ConfigurationError: the file holds no results, or a wrong value.
    """
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as opened:
        lines = list(csv.reader(opened))
    whole = _ends_with_newline(file)
    if not lines or (len(lines) == 1 and not whole and ",".join(COLUMNS).startswith(",".join(lines[0]))):
        return []
    columns = tuple(lines[0])
    if columns not in (COLUMNS, _EARLIER):
        raise ConfigurationError(
            f"{file} is no results file of a simulation: its first line is {','.join(lines[0])[:200]!r}, expected "
            f"{','.join(COLUMNS)!r}. Give another --out."
        )
    rows: dict[tuple[str, str, int, int], Row] = {}
    for number, line in enumerate(lines[1:], start=2):
        cut_off = len(line) != len(columns) or (number == len(lines) and not whole)
        if not cut_off:
            row = _row(file, number, dict(zip(columns, line, strict=True)))
            rows.pop(row.key, None)
            rows[row.key] = row
    return list(rows.values())


def _row(file: Path, number: int, values: Mapping[str, str]) -> Row:
    try:
        return Row(**{name: _value(name, text) for name, text in values.items()})  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigurationError(f"{file}, line {number}: {error}. Mend or remove the line.") from None


def _value(name: str, text: str) -> str | int | float | None:
    if name in _TEXTS:
        return text
    if name in _INTEGERS or (name in _COUNTS and text):
        return int(text)
    return float(text) if text else None


def _text(value: str | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _drop_last_line(file: Path) -> None:
    """Take away a line that was cut off: its open quotation mark would swallow the line that is added after it."""
    os.truncate(file, file.read_bytes().rfind(b"\n") + 1)


def _ends_with_newline(file: Path) -> bool:
    with file.open("rb") as opened:
        if not opened.seek(0, os.SEEK_END):
            return True
        opened.seek(-1, os.SEEK_END)
        return opened.read(1) == b"\n"
