"""The committed contrasts: fresh seeds, enough of them, commands that make their runs, and no part of their rows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ml_backend.simulation import results
from ml_backend.simulation.contrasts import read
from ml_backend.simulation.seeds import seeds_of

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
FILES = ("contrasts.toml", "contrasts_points.toml")


def commands(name: str) -> dict[str, list[str]]:
    """Return the words of the commands at the head of a file, by the name of the data set."""
    head = (BENCHMARKS / name).read_text(encoding="utf-8").split("[[contrast]]")[0]
    lines = re.sub(r"\\\n#\s*", "", head).splitlines()
    found = [shlex.split(line[1:]) for line in lines if "nextmask simulate " in line]
    return {Path(words[2]).name: words for words in found}


@pytest.mark.parametrize("name", FILES)
def test_the_committed_contrasts_are_few_with_fresh_seeds_and_ten_of_them(name: str) -> None:
    contrasts = read(BENCHMARKS / name)
    assert 1 <= len(contrasts) <= 15
    searched = {row.seed for row in results.read(BENCHMARKS / "results/label_efficiency_search.csv")}
    for contrast in contrasts:
        assert len(contrast.seeds) >= 10
        assert not searched & set(contrast.seeds)


@pytest.mark.parametrize("name", FILES)
def test_the_commands_make_the_runs_that_are_compared(name: str) -> None:
    for contrast in read(BENCHMARKS / name):
        words = commands(name)[contrast.dataset]
        strategies = {words[at + 1] for at, word in enumerate(words) if word == "--strategy"} | {"full"}
        assert {contrast.strategy, contrast.against} <= strategies
        assert words[words.index("--rounds") + 1] == str(contrast.rounds)
        assert seeds_of("--seeds", words[words.index("--seeds") + 1]) == contrast.seeds
        assert words[words.index("--contrasts") + 1] == f"benchmarks/{name}"


def test_the_two_files_share_no_seed() -> None:
    first, second = ({seed for one in read(BENCHMARKS / name) for seed in one.seeds} for name in FILES)
    assert not first & second


def test_the_committed_rows_hold_whole_runs_of_what_is_compared_or_none() -> None:
    """Some of the seeds that were planned are no result."""
    rows = results.read(BENCHMARKS / "results/label_efficiency.csv")
    for contrast in read(BENCHMARKS / "contrasts.toml"):
        seeds = {row.seed for row in rows if contrast.is_about(row)}
        assert seeds in (set(), set(contrast.seeds))
