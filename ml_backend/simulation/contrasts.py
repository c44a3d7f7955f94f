"""Contrasts: the few comparisons that a simulation is run for, named in a file before it runs.

Whoever compares sixteen strategies in pairs after the run finds a difference somewhere or, corrected for 120 pairs,
misses one that is there. So only what was named beforehand is tested. The file lies beside the results that it was
written for; it cannot be put there once the rows that it is about are there, and it cannot be replaced.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import tomllib

from ml_backend.errors import ConfigurationError
from ml_backend.simulation import results
from ml_backend.simulation.seeds import seeds_of
from ml_backend.system.whole_files import write_once

CONTRASTS: Final = "contrasts.toml"
"""Name of the file in a folder of results."""

_CHARGED: Final = ("point_clicks", "opening_clicks")
"""What a contrast may leave out."""

Measure = Literal["effort", "area", "product", "whole"]


@dataclass(frozen=True)
class Contrast:
    """Two strategies that are compared, and by what.

    Attributes:
        strategy, against: as results name them.
        measure: "effort": what is labelled until the target is reached; "area": the mean mIoU over the logarithm of
            what is labelled; "product" and "whole": as in `report.savings`, the latter against "full".
        seeds: of the runs that are compared; none is left out, and none is added.
        rounds: of each of these runs.
        point_clicks, opening_clicks: what is charged, see `Tariff`; None: as in the run.
    """

    dataset: str
    strategy: str
    against: str
    measure: Measure
    seeds: tuple[int, ...]
    rounds: int
    point_clicks: int | None = None
    opening_clicks: int | None = None

    def is_about(self, row: results.Row) -> bool:
        """Whether a row is one of those that are compared."""
        names = (self.strategy, self.against)
        return row.dataset == self.dataset and row.strategy in names and row.seed in self.seeds


def read(file: Path) -> tuple[Contrast, ...]:
    """Read contrasts; none where there is no file.

    Raises:
        ConfigurationError: the file is no list of contrasts; the message names the value and what to give.
    """
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"The contrasts in {file} cannot be read: {error}.") from error
    listed = values.get("contrast")
    if not isinstance(listed, list) or not listed or values.keys() != {"contrast"}:
        raise ConfigurationError(f"{file} names no contrasts: begin each with a line [[contrast]], and nothing before.")
    return tuple(_contrast(file, number, value) for number, value in enumerate(listed, start=1))


def keep(file: Path, folder: Path) -> None:
    """Put contrasts beside the results of a simulation that is going to run.

    Args:
        folder: of the results; made if need be.

    Raises:
        ConfigurationError: other contrasts are there, or rows that these are about; or see `read`.
    """
    if not file.is_file():
        raise ConfigurationError(f"--contrasts {file} is no file: give one that names what is compared.")
    given, there = read(file), read(folder / CONTRASTS)
    if given == there:
        return
    if there:
        raise ConfigurationError(
            f"{folder} has other contrasts than {file}: what is compared is named once, before the run. Give another "
            "--out."
        )
    if any(contrast.is_about(row) for contrast in given for row in results.read(folder / results.RESULTS)):
        raise ConfigurationError(
            f"{folder} has rows of runs that {file} names: what is compared is named before they run. Give other seeds "
            "there and in --seeds, or another --out."
        )
    write_once(folder / CONTRASTS, file.read_bytes())


def _contrast(file: Path, number: int, value: object) -> Contrast:
    names = [field.name for field in dataclasses.fields(Contrast) if field.default is dataclasses.MISSING]
    if not isinstance(value, Mapping) or sorted(value.keys() - _CHARGED) != sorted(names):
        raise ConfigurationError(
            f"Contrast {number} of {file} needs {_listed(names)}, perhaps {_listed(_CHARGED)}, and nothing else."
        )
    _check(file, number, value)
    seeds = seeds_of(f"The seeds of contrast {number} of {file}:", value["seeds"])
    return Contrast(**{**value, "seeds": seeds})


def _check(file: Path, number: int, value: Mapping[str, Any]) -> None:
    """Raise ConfigurationError where a value is not of its kind."""
    for name in ("dataset", "strategy", "against", "seeds"):
        if not isinstance(value[name], str) or not value[name]:
            raise ConfigurationError(f"{name} of contrast {number} of {file} is {value[name]!r}: give a text.")
    if value["measure"] not in get_args(Measure):
        raise ConfigurationError(
            f"measure of contrast {number} of {file} is {value['measure']!r}: use {', '.join(get_args(Measure))}."
        )
    if type(value["rounds"]) is not int or value["rounds"] < 0:
        raise ConfigurationError(
            f"rounds of contrast {number} of {file} is {value['rounds']!r}: give the rounds of each run, from 0."
        )
    for name in _CHARGED:
        if name in value and (type(value[name]) is not int or value[name] < 0):
            raise ConfigurationError(f"{name} of contrast {number} of {file} is {value[name]!r}: give clicks, from 0.")
    if (value["measure"] == "whole") != (value["against"] == results.FULL):
        raise ConfigurationError(
            f"Contrast {number} of {file} compares by {value['measure']!r} against {value['against']!r}: "
            f'"whole" is against {results.FULL!r}, and nothing else is.'
        )
    if value["strategy"] == value["against"]:
        raise ConfigurationError(f"Contrast {number} of {file} compares {value['strategy']!r} with itself.")


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
