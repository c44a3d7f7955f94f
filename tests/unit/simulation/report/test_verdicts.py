"""Contrasts that were named before the run: what is tested, when, and how often chance is called a win."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats
from simulated_rows import row, simulated

from ml_backend.simulation.contrasts import Contrast
from ml_backend.simulation.report.verdicts import Verdict, verdicts_on
from ml_backend.simulation.results import FULL, Row

SEEDS = tuple(range(10))
EFFORT = Contrast("glas", "good", "random", "effort", SEEDS, rounds=8)
AREA = dataclasses.replace(EFFORT, measure="area")


def judged(rows: list[Row], *contrasts: Contrast, target: float = 0.95) -> list[Verdict]:
    return verdicts_on(contrasts, rows, target, "clicks")


def drawn(effects: dict[str, float], draw: int = 0, **options: object) -> list[Row]:
    return simulated(effects, seeds=SEEDS, rounds=9, draw=draw, **options)  # type: ignore[arg-type]


def steps(strategy: str, seed: int, *miou: float) -> list[Row]:
    """Rounds at 10, 100, 1000, ... clicks."""
    return [row(strategy, seed, n, value, clicks=10.0 ** (n + 1)) for n, value in enumerate(miou)]


def test_a_known_effect_is_found() -> None:
    effects = {"random": 0.0, "good": 0.7}
    found = [one for draw in range(20) for one in judged(drawn(effects, draw), EFFORT, AREA)]
    assert sum(one.better == "good" for one in found) >= 38
    (first, *_) = found
    assert first.ratio is not None
    assert first.ratio.value < 0.8


@pytest.mark.parametrize("measure", ["effort", "area"])
def test_chance_is_not_called_a_win(measure: str) -> None:
    """Four contrasts of strategies that are the same: one of them is claimed in 5 % of all draws, within its error."""
    names = ("a", "b", "c", "d")
    contrasts = [dataclasses.replace(EFFORT, strategy=name, measure=measure) for name in names]
    claimed, draws = 0, 300
    for draw in range(draws):
        claimed += any(one.better for one in judged(drawn(dict.fromkeys(("random", *names), 0.0), draw), *contrasts))
    assert claimed / draws <= 0.09


def test_by_hand() -> None:
    """With 0.5 the target is 0.4: half way from 100 to 1000 clicks with one, from 10 to 100 with the other."""
    contrast = dataclasses.replace(EFFORT, seeds=(3, 4, 5), rounds=2)
    rows = [row(FULL, seed, 0, 0.8) for seed in (3, 4, 5)]
    for seed, shift in ((3, 0.0), (4, 0.05), (5, -0.05)):
        rows += steps("random", seed, 0.2, 0.3 + shift, 0.5 - shift)
        rows += steps("good", seed, 0.3 + shift, 0.5 - shift, 0.6)
    (found,) = judged(rows, contrast, target=0.5)
    logs = np.full(3, -np.log(10))
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(np.exp(logs.mean()))
    assert (found.ratio.seeds, found.ratio.missed, found.ratio.other_missed) == (3, 0, 0)
    assert (found.p, found.better) == (0.0, "good")  # all alike


def test_the_p_is_that_of_a_paired_t_test_on_the_logs() -> None:
    rows = drawn({"random": 0.0, "good": 0.2})
    (alone,) = judged(rows, EFFORT)
    assert alone.ratio is not None
    assert alone.ratio.low is not None
    half = np.log(alone.ratio.value / alone.ratio.low)
    t = np.log(alone.ratio.value) / (half / stats.t.ppf(0.975, alone.ratio.seeds - 1))
    assert alone.p == pytest.approx(2 * stats.t.sf(abs(t), alone.ratio.seeds - 1))
    assert alone.p_corrected == alone.p  # one test is nothing to correct for


def test_contrasts_that_are_not_decided_count_in_the_correction() -> None:
    rows = drawn({"random": 0.0, "good": 0.2})
    (alone,) = judged(rows, EFFORT)
    waiting = [dataclasses.replace(EFFORT, dataset="camvid"), dataclasses.replace(EFFORT, strategy="other")]
    (with_others, *rest) = judged(rows, EFFORT, *waiting)
    assert alone.p is not None
    assert with_others.p_corrected == pytest.approx(min(1, 3 * alone.p))
    assert [(one.finished, one.is_decided, one.p, one.p_corrected) for one in rest] == [(0, False, None, None)] * 2


@pytest.mark.parametrize("gone", ["random", "good", FULL])
def test_nothing_is_tested_before_all_named_runs_are_there(gone: str) -> None:
    rows = drawn({"random": 0.0, "good": 0.7})
    last = max(one.round for one in rows if one.strategy == gone)
    short = [one for one in rows if not (one.strategy == gone and one.seed == 4 and one.round == last)]
    for found in judged(short, EFFORT, AREA):
        assert (found.finished, found.is_decided) == (9, False)
        assert (found.ratio, found.lead, found.p, found.better) == (None, None, None, None)


def test_seeds_and_rounds_that_were_not_named_change_nothing() -> None:
    rows = drawn({"random": 0.0, "good": 0.3})
    more = [
        *rows,
        *[row("good", seed, 9, 0.99, clicks=99_999.0) for seed in SEEDS],
        *[one for seed in (77, 78) for one in steps("good", seed, *[0.9] * 9)],
        *[one for seed in (77, 78) for one in steps("random", seed, *[0.1] * 9)],
        row(FULL, 77, 0, 0.1),
    ]
    assert judged(more, EFFORT, AREA) == judged(rows, EFFORT, AREA)


def test_a_seed_that_missed_is_counted_and_no_number_stands_for_it() -> None:
    contrast = dataclasses.replace(EFFORT, seeds=(0, 1, 2, 3), rounds=2)
    rows = [row(FULL, seed, 0, 0.8) for seed in range(4)]
    for seed in range(4):
        rows += steps("random", seed, 0.2, 0.3 + seed / 100, 0.5)
        rows += steps("good", seed, 0.3, *((0.5, 0.6) if seed else (0.3, 0.3)))
    (found,) = judged(rows, contrast, target=0.5)
    assert found.ratio is not None
    assert (found.ratio.seeds, found.ratio.pairs, found.ratio.missed, found.ratio.other_missed) == (3, 4, 1, 0)
    assert found.p_corrected is not None
    assert found.p_corrected < 0.05
    assert found.better is None  # ahead where it got there, and it got there less often


def test_an_area_needs_no_reference_value_to_be_reached() -> None:
    (effort, area) = judged(drawn({"random": 0.0, "good": 0.7}), EFFORT, AREA, target=1.0)
    assert area.better == "good"
    assert effort.ratio is None or effort.ratio.missed
