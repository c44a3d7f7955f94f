"""docs/strategies.md says what the methods are: their options and defaults, what they need, and a picture of each."""

from __future__ import annotations

import ast
import inspect
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from strategies.catalogue import ENTRIES, entry
from strategies.cereals import FUSIONS
from strategies.stream import StreamSelection
from strategies.training import Learner
from strategies.uncertainty import COMMITTEE_MEASURES, MEASURES

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "strategies.md").read_text()
PICTURES = ROOT / "docs" / "images" / "strategies"
STREAM = "Images that arrive one at a time"
OWN = [entry.name for entry in ENTRIES]
"""Methods of other packages may be installed, too; this page is about those of the repository."""


def sections() -> dict[str, str]:
    """Return heading -> text of all sections, whatever their level."""
    parts = re.split(r"^##+ (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented(section: str) -> dict[str, Any]:
    """Return option -> default of a section's table; the default must be a Python literal."""
    rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \| .*\w.* \|$", section, flags=re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\| `", section, flags=re.MULTILINE)), "a row of another form"
    return {name: ast.literal_eval(default) for name, default in rows}


def options_of(method: type) -> dict[str, Any]:
    return {name: one.default for name, one in inspect.signature(method).parameters.items()}


def glance() -> dict[str, dict[str, str]]:
    """Return method -> column -> cell of the first table."""
    lines = [line for line in sections()["At a glance"].splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {re.sub(r"^\[`(\w+)`\]\(#\1\)$", r"\1", row[0]): dict(zip(head, row, strict=True)) for row in rows}


# -- options ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", OWN)
def test_every_strategy_has_its_section_with_exactly_its_options(name: str) -> None:
    section = sections()[name]
    options = entry(name).options()
    found = documented(section)
    assert found == options
    assert {option: type(default) for option, default in found.items()} == {
        option: type(default) for option, default in options.items()
    }
    assert ("No options." in section) == (not options)


def test_the_options_of_the_stream_are_documented() -> None:
    assert documented(sections()[STREAM]) == options_of(StreamSelection)


@pytest.mark.parametrize("name", OWN)
def test_every_section_says_cost_source_and_deviations(name: str) -> None:
    for part in ("**Cost**:", "**Source**:", "**Deviations**:"):
        assert sections()[name].count(part) == 1, part


def test_the_measures_and_fusions_are_all_named() -> None:
    note = next(line for line in PAGE.split("\n- ") if line.startswith("A method with the option `measure`"))
    alone, committee = note.split("or of a committee")
    assert set(re.findall(r"`(\w+)`", alone)) - {"measure"} == MEASURES.keys() - COMMITTEE_MEASURES
    assert set(re.findall(r"`(\w+)`", committee.split(".")[0])) == COMMITTEE_MEASURES
    row = next(line for line in sections()["cereals"].splitlines() if line.startswith("| `fusion`"))
    assert set(re.findall(r'`"(\w+)"`', row)) == FUSIONS.keys()


# -- the first table -------------------------------------------------------------------------------------------------
def test_the_first_table_has_every_strategy() -> None:
    assert sorted(glance()) == OWN


@pytest.mark.parametrize("name", OWN)
def test_the_first_table_says_what_a_strategy_needs_and_trains(name: str) -> None:
    row = glance()[name]
    columns = {
        "Probabilities": "probabilities",
        "Committee": "committee",
        "Features": "features",
        "Labelled images": "labelled",
    }
    trains = {"examples"} if row["Trains"] else set()
    assert {need for column, need in columns.items() if row[column] == "yes"} | trains == entry(name).needs
    assert bool(row["Trains"]) == issubclass(entry(name).load(), Learner)
    facts = entry(name)
    assert row["Asks for"] == ("regions" if facts.asks_for_regions else "points" if facts.asks_for_points else "")


# -- pictures --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", OWN)
def test_every_strategy_has_its_picture(name: str) -> None:
    shown = re.findall(r"!\[[^\]]+\]\(images/strategies/(\w+)\.png\)", sections()[name])
    assert shown == [name]


def test_the_pictures_are_those_that_are_shown_and_made_and_are_small() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_strategy_pictures.py"))
    files = {path.stem: path for path in PICTURES.iterdir()}
    assert files.keys() == set(re.findall(r"\(images/strategies/(\w+)\.png\)", PAGE)) == script["PICTURES"].keys()
    for path in files.values():
        assert path.suffix == ".png"
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < 200_000, path.name
