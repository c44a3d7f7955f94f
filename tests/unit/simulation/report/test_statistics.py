"""Statistics of a simulation: hand-computed examples, other implementations as witnesses, and error rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from simulated_rows import row, simulated

from ml_backend.simulation.report import comparison, curves, statistics
from ml_backend.simulation.report.comparison import RANDOM, Effort
from ml_backend.simulation.report.curves import Curve
from ml_backend.simulation.results import FULL


def curve(miou: list[float], clicks: list[float] | None = None, strategy: str = "s", seed: int = 0) -> Curve:
    rows = [row(strategy, seed, number, value) for number, value in enumerate(miou)]
    if clicks is not None:
        rows = [row(strategy, seed, n, value, clicks=clicks[n]) for n, value in enumerate(miou)]
    (found,) = curves.curves_of(rows)
    return found


def family(effects: dict[str, float], draw: int, **options: object) -> list[comparison.Pair]:
    rows = simulated(effects, draw=draw, **options)  # type: ignore[arg-type]
    return comparison.compare_pairs(curves.areas_of(curves.curves_of(rows), "clicks"))


# -- curves ----------------------------------------------------------------------------------------------------------
def test_curves_are_ordered_by_round_and_leave_the_reference_out() -> None:
    rows = [row("b", 0, 1, 0.6), row("b", 0, 0, 0.5), row(FULL, 0, 0, 0.9), row("a", 1, 0, 0.4)]
    found = curves.curves_of(rows)
    assert [(one.strategy, one.seed, one.last_round, one.miou.tolist()) for one in found] == [
        ("a", 1, 0, [0.4]),
        ("b", 0, 1, [0.5, 0.6]),
    ]
    assert found[1].effort["pixels"].tolist() == [1000, 2000]


def test_the_reference_is_the_mean_over_its_seeds() -> None:
    rows = [row(FULL, seed, 0, value, images=40, clicks=900.0) for seed, value in enumerate((0.7, 0.8))]
    found = curves.reference_of(rows)
    assert found is not None
    assert found.miou.mean == pytest.approx(0.75)
    assert (found.totals["images"], found.totals["clicks"]) == (40, 900)
    assert curves.reference_of([row("random", 0, 0, 0.5)]) is None


def test_finished_are_the_curves_that_end_where_most_do() -> None:
    found = [curve([0.5] * length, seed=seed) for seed, length in enumerate((6, 6, 6, 3, 1))]
    assert [one.seed for one in curves.finished(found)] == [0, 1, 2]
    # one that went on does not make the others unfinished; of equally many ends the later one counts
    assert len(curves.finished([curve([0.5] * length) for length in (6, 6, 9)])) == 3
    assert [one.last_round for one in curves.finished([curve([0.5] * length) for length in (6, 2)])] == [5]
    assert curves.finished([]) == []


def test_rows_without_a_number_are_left_out() -> None:
    rows = [row("s", 0, 0, math.nan), row("s", 0, 1, 0.5), row("s", 0, 2, 0.5, clicks=math.inf)]
    assert curves.usable(rows) == [rows[1]]


# -- area ------------------------------------------------------------------------------------------------------------
def test_area_is_the_trapezoid_by_the_width() -> None:
    # (100, .2), (200, .4), (300, .4): 0.3 over the first hundred, 0.4 over the second
    assert curves.area(curve([0.2, 0.4, 0.4]), "clicks", 100, 300) == pytest.approx(0.35)
    # from 150 to 250: 0.3 to 0.4 over fifty, 0.4 over fifty
    assert curves.area(curve([0.2, 0.4, 0.4]), "clicks", 150, 250) == pytest.approx(0.375)


def test_area_where_two_rounds_stand_at_one_effort() -> None:
    jump = curve([0.2, 0.4, 0.8], [0.0, 10.0, 10.0])
    assert curves.area(jump, "clicks", 0, 10) == pytest.approx(0.3)
    jump = curve([0.2, 0.4, 0.8, 0.8], [0.0, 10.0, 10.0, 20.0])
    assert curves.area(jump, "clicks", 0, 20) == pytest.approx(0.55)


def test_areas_are_taken_over_what_all_curves_share() -> None:
    early = curve([0.0, 1.0], [0.0, 100.0], "early")
    late = curve([0.5, 0.5], [50.0, 200.0], "late")
    assert curves.common_range([early, late], "clicks") == (50, 100)
    assert curves.areas_of([early, late], "clicks") == {"early": {0: pytest.approx(0.75)}, "late": {0: 0.5}}
    apart = curve([0.5, 0.5], [150.0, 200.0])
    assert curves.common_range([early, apart], "clicks") is None
    assert curves.areas_of([early, apart], "clicks") == {}
    assert curves.common_range([], "clicks") is None


points = st.lists(st.tuples(st.floats(0, 50), st.floats(0, 1)), min_size=2, max_size=8)


@given(points, st.floats(0, 1), st.floats(0, 1))
def test_area_lies_within_the_curve_and_adds_up(found: list[tuple[float, float]], one: float, other: float) -> None:
    clicks = np.cumsum([1 + step for step, _ in found])
    drawn = curve([miou for _, miou in found], clicks.tolist())
    low, middle, high = np.sort(clicks[0] + np.array([0, min(one, other), 1]) * (clicks[-1] - clicks[0]))
    whole = curves.area(drawn, "clicks", low, high)
    assert drawn.miou.min() - 1e-9 <= whole <= drawn.miou.max() + 1e-9
    parts = [(low, middle), (middle, high)]
    total = sum(curves.area(drawn, "clicks", *part) * (part[1] - part[0]) for part in parts if part[1] > part[0])
    assert total == pytest.approx(whole * (high - low), rel=1e-6, abs=1e-9)


# -- effort ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (0.5, Effort(150, True)),
        (0.4, Effort(100, True)),
        (0.1, Effort(100, True)),
        (0.6, Effort(200, True)),
        (0.7, Effort(350, True)),
        (0.81, Effort(1000, False)),
    ],
)
def test_effort_is_the_first_crossing(target: float, expected: Effort) -> None:
    # falls back below 0.6 after its second round: what counts is when it first got there
    drawn = curve([0.4, 0.6, 0.6, 0.8], [100.0, 200.0, 300.0, 400.0])
    found = comparison.effort_to_reach(drawn, "clicks", target, 1000)
    assert (found.value, found.reached) == (pytest.approx(expected.value), expected.reached)


def test_effort_of_a_curve_that_falls_again() -> None:
    drawn = curve([0.4, 0.6, 0.3, 0.8], [100.0, 200.0, 300.0, 400.0])
    assert comparison.effort_to_reach(drawn, "clicks", 0.55, 1000).value == pytest.approx(175)


def test_what_was_spent_without_reaching_it_may_be_more_than_the_whole() -> None:
    assert comparison.effort_to_reach(curve([0.4, 0.5], [10.0, 90.0]), "clicks", 0.9, 80) == Effort(90, False)


@given(points, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_target_never_takes_less(found: list[tuple[float, float]], one: float, other: float) -> None:
    clicks = np.cumsum([step for step, _ in found])
    drawn = curve([miou for _, miou in found], clicks.tolist())
    lower, higher = (comparison.effort_to_reach(drawn, "clicks", target, 1000) for target in sorted((one, other)))
    assert lower.value <= higher.value + 1e-9
    assert lower.reached >= higher.reached


# -- ratio -----------------------------------------------------------------------------------------------------------
def test_ratio_is_the_geometric_mean_over_common_seeds() -> None:
    strategy = {0: Effort(50, True), 1: Effort(25, True), 7: Effort(1, True)}
    random = {0: Effort(100, True), 1: Effort(100, False), 2: Effort(100, True)}
    found = comparison.effort_ratio(strategy, random)
    assert found is not None
    assert found.value == pytest.approx(math.sqrt(0.5 * 0.25))
    assert (found.seeds, found.reached, found.random_reached) == (2, 2, 1)
    # t of one degree of freedom, 12.706, times the standard error of two logs that are log 2 apart
    assert found.high == pytest.approx(found.value * math.exp(12.7062 * math.log(2) / 2), rel=1e-4)


def test_ratio_interval_is_that_of_a_paired_t_test_on_the_logs() -> None:
    values = np.array([40.0, 55.0, 61.0, 38.0, 50.0])
    found = comparison.effort_ratio(
        {seed: Effort(float(value), True) for seed, value in enumerate(values)},
        {seed: Effort(100, True) for seed in range(5)},
    )
    expected = stats.ttest_1samp(np.log(values / 100), 0).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))


def test_ratio_that_says_nothing_is_none() -> None:
    missed, zero, some = Effort(100, False), Effort(0, True), Effort(50, True)
    assert comparison.effort_ratio({0: missed}, {0: missed}) is None  # 1, only since neither got there
    assert comparison.effort_ratio({0: zero}, {0: some}) is None
    assert comparison.effort_ratio({0: some}, {1: some}) is None
    single = comparison.effort_ratio({0: some}, {0: missed})
    assert single is not None
    assert (single.value, single.low, single.high) == (0.5, None, None)


def test_the_interval_covers_what_it_says() -> None:
    random = np.random.default_rng(5)
    within = 0
    for _ in range(600):
        interval = statistics.mean_interval(random.normal(0, 1, 5))
        assert interval.low is not None
        assert interval.high is not None
        within += interval.low <= 0 <= interval.high
    assert within / 600 == pytest.approx(0.95, abs=0.03)


# -- tests -----------------------------------------------------------------------------------------------------------
def test_holm_by_hand() -> None:
    # sorted: .005 * 4, .01 * 3, .03 * 2, .04 * 1, each at least the one before
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    assert statistics.holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_keeps_the_order_and_lies_between_none_and_bonferroni(values: list[float]) -> None:
    found = statistics.holm(values)
    for value, corrected in zip(values, found, strict=True):
        assert value <= corrected <= min(1.0, value * len(values)) + 1e-12
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 0).all()


def test_t_agrees_with_scipy() -> None:
    differences = np.array([0.01, 0.03, -0.002, 0.02, 0.015])
    assert statistics.paired_t(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)


def test_t_of_nothing() -> None:
    assert statistics.paired_t(np.zeros(5)) == 1.0
    assert statistics.paired_t(np.full(5, 1e-17)) == 1.0
    assert statistics.paired_t(np.array([0.1])) is None
    assert statistics.paired_t(np.array([])) is None


def test_pairs_compare_common_seeds_and_say_how_many() -> None:
    pairs = comparison.compare_pairs({"a": {0: 0.5, 1: 0.6, 2: 0.9}, "b": {0: 0.4, 1: 0.4, 3: 0.1}, "c": {9: 0.5}})
    assert [(pair.first, pair.second, pair.seeds) for pair in pairs] == [("a", "b", 2), ("a", "c", 0), ("b", "c", 0)]
    assert pairs[0].difference is not None
    assert pairs[0].difference.mean == pytest.approx(0.15)
    assert pairs[0].p == pairs[0].p_holm  # one test is nothing to correct for
    assert (pairs[1].difference, pairs[1].p, pairs[1].p_holm, pairs[1].winner) == (None, None, None, None)


def test_a_win_takes_the_corrected_p() -> None:
    # one pair with p of about 0.03, and two others to correct for
    values = {"a": [0.60, 0.63, 0.62, 0.66], "b": [0.59, 0.60, 0.60, 0.62], "c": [0.61, 0.60, 0.63, 0.63]}
    pairs = comparison.compare_pairs({name: dict(enumerate(found)) for name, found in values.items()})
    assert pairs[0].p is not None
    assert pairs[0].p_holm is not None
    assert pairs[0].p < 0.05 < pairs[0].p_holm
    assert pairs[0].winner is None
    (alone,) = comparison.compare_pairs({name: dict(enumerate(values[name])) for name in "ab"})
    assert alone.winner == "a"
    lead = alone.lead("b")
    assert lead is not None
    assert alone.difference is not None
    assert lead.mean == pytest.approx(-0.025)
    assert (lead.low, lead.high) == (-(alone.difference.high or 0), -(alone.difference.low or 0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(12)))
def test_the_order_of_rows_does_not_matter(draw: int, order: list[int]) -> None:
    rows = simulated({RANDOM: 0.0, "s": 0.2}, seeds=range(2), rounds=3, full=False, draw=draw)
    shuffled = [rows[index] for index in order]
    found = [curves.areas_of(curves.curves_of(some), "clicks") for some in (rows, shuffled)]
    assert found[0] == found[1]


def test_a_known_effect_is_found() -> None:
    won = sum(
        any(pair.winner == "good" and RANDOM in (pair.first, pair.second) for pair in family(effects, draw))
        for effects in [{RANDOM: 0.0, "good": 0.7, "none": 0.0, "bad": -0.5}]
        for draw in range(20)
    )
    assert won >= 18


def test_chance_is_not_called_a_win() -> None:
    """The family-wise error rate, over all pairs of five strategies that are the same: 5 % within its own error."""
    draws, claimed, uncorrected = 1500, 0, 0
    effects = dict.fromkeys((RANDOM, "a", "b", "c", "d"), 0.0)
    for draw in range(draws):
        pairs = family(effects, draw, rounds=3)
        claimed += any(pair.winner for pair in pairs)
        uncorrected += any(pair.p is not None and pair.p < 0.05 for pair in pairs)
    assert claimed / draws <= 0.065
    assert uncorrected / draws > 0.15  # what the correction is for


# -- bands -----------------------------------------------------------------------------------------------
def test_mean_curve_over_the_range_that_all_seeds_cover() -> None:
    found = curves.mean_curve(
        [curve([0.2, 0.4], [0.0, 100.0]), curve([0.4, 0.6, 0.6], [0.0, 100.0, 300.0], seed=1)], "clicks"
    )
    assert found is not None
    assert found.effort.tolist() == list(range(101))
    assert found.mean[[0, 50, 100]].tolist() == pytest.approx([0.3, 0.4, 0.5])
    assert found.high is not None
    assert found.high - found.mean == pytest.approx([12.7062 * 0.1] * 101, rel=1e-4)  # t times 0.1414 / sqrt(2)


def test_mean_curve_of_one_seed_of_one_round_and_of_none() -> None:
    single = curves.mean_curve([curve([0.2, 0.4])], "clicks")
    assert single is not None
    assert (single.low, single.high, single.seeds) == (None, None, 1)
    point = curves.mean_curve([curve([0.2]), curve([0.4], seed=1)], "clicks")
    assert point is not None
    assert (point.effort.tolist(), point.mean.tolist()) == ([100.0], [pytest.approx(0.3)])
    apart = [curve([0.2]), curve([0.4], [500.0], seed=1)]
    assert curves.mean_curve(apart, "clicks") is None
    assert curves.mean_curve([], "clicks") is None
