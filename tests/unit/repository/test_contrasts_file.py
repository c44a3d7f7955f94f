"""The contrasts that are committed: fresh seeds, enough of them, and no part of their rows."""

from __future__ import annotations

from pathlib import Path

from ml_backend.simulation import results
from ml_backend.simulation.contrasts import read

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def test_the_committed_contrasts_are_few_with_fresh_seeds_and_ten_of_them() -> None:
    contrasts = read(BENCHMARKS / "contrasts.toml")
    assert 1 <= len(contrasts) <= 6
    searched = {row.seed for row in results.read(BENCHMARKS / "results/label_efficiency_search.csv")}
    for contrast in contrasts:
        assert len(contrast.seeds) >= 10
        assert not searched & set(contrast.seeds)


def test_the_committed_rows_hold_whole_runs_of_what_is_compared_or_none() -> None:
    """Some of the seeds that were planned are no result."""
    rows = results.read(BENCHMARKS / "results/label_efficiency.csv")
    for contrast in read(BENCHMARKS / "contrasts.toml"):
        seeds = {row.seed for row in rows if contrast.is_about(row)}
        assert seeds in (set(), set(contrast.seeds))
