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
from ml_backend.simulation.report.comparison import RANDOM
from ml_backend.simulation.report.curves import Curve
from ml_backend.simulation.results import FULL


def curve(miou: list[float], clicks: list[float] | None = None, strategy: str = "s", seed: int = 0) -> Curve:
    rows = [row(strategy, seed, number, value) for number, value in enumerate(miou)]
    if clicks is not None:
        rows = [row(strategy, seed, n, value, clicks=clicks[n]) for n, value in enumerate(miou)]
    (found,) = curves.curves_of(rows)
    return found


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


def test_a_curve_never_falls() -> None:
    """0.6 and 0.3 after it are both 0.45: the closest values that do not fall, of the same sum."""
    drawn = curve([0.4, 0.6, 0.3, 0.8])
    assert drawn.miou.tolist() == pytest.approx([0.4, 0.45, 0.45, 0.8])
    assert drawn.measured.tolist() == [0.4, 0.6, 0.3, 0.8]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_the_isotonic_curve_keeps_the_sum_and_rises_already_stay(values: list[float]) -> None:
    found = curves.rising(np.array(values))
    assert (np.diff(found) >= -1e-12).all()
    assert found.sum() == pytest.approx(sum(values))
    assert curves.rising(np.sort(values)).tolist() == pytest.approx(sorted(values))


# -- area ------------------------------------------------------------------------------------------------------------
def test_area_is_the_trapezoid_by_the_width_in_logarithms() -> None:
    # (10, .2), (100, .4), (1000, .4): 0.3 over the first decade, 0.4 over the second
    drawn = curve([0.2, 0.4, 0.4], [10.0, 100.0, 1000.0])
    assert curves.area(drawn, "clicks", 10, 1000) == pytest.approx(0.35)
    # from the middle of the first decade: 0.3 to 0.4 over half of it, 0.4 over the second
    assert curves.area(drawn, "clicks", math.sqrt(1000), 1000) == pytest.approx((0.5 * 0.35 + 0.4) / 1.5)


def test_area_where_two_rounds_stand_at_one_effort() -> None:
    jump = curve([0.2, 0.4, 0.8], [1.0, 10.0, 10.0])
    assert curves.area(jump, "clicks", 1, 10) == pytest.approx(0.3)
    jump = curve([0.2, 0.4, 0.8, 0.8], [1.0, 10.0, 10.0, 100.0])
    assert curves.area(jump, "clicks", 1, 100) == pytest.approx(0.55)


def test_a_first_label_that_took_nothing_counts_as_one_click() -> None:
    """An image without an object takes no click, and zero has no logarithm."""
    assert curves.area(curve([0.2, 0.4], [0.0, 10.0]), "clicks", 0, 10) == pytest.approx(0.3)
    assert comparison.effort_to_reach(curve([0.2, 0.4], [0.0, 10.0]), "clicks", 0.3) == pytest.approx(math.sqrt(10))


def test_areas_are_taken_over_what_all_curves_share() -> None:
    early = curve([0.0, 1.0], [1.0, 100.0], "early")
    late = curve([0.5, 0.5], [10.0, 200.0], "late")
    assert curves.common_range([early, late], "clicks") == (10, 100)
    assert curves.areas_of([early, late], "clicks") == {
        "early": {0: pytest.approx(0.75)},
        "late": {0: pytest.approx(0.5)},
    }
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
    middle = low if math.log(middle / low) < 1e-9 else high if math.log(high / middle) < 1e-9 else middle
    whole = curves.area(drawn, "clicks", low, high)
    assert drawn.miou.min() - 1e-9 <= whole <= drawn.miou.max() + 1e-9
    parts = [(low, middle), (middle, high)]
    total = sum(
        curves.area(drawn, "clicks", *part) * math.log(part[1] / part[0]) for part in parts if part[1] > part[0]
    )
    assert total == pytest.approx(whole * math.log(high / low), rel=1e-6, abs=1e-9)


# -- effort ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (0.5, 200 * math.sqrt(0.5)),  # half way between 100 and 200 in logarithms
        (0.4, 100),
        (0.1, 100),
        (0.6, 200),
        (0.7, math.sqrt(300 * 400)),
        (0.81, None),
    ],
)
def test_effort_is_the_crossing_in_logarithms(target: float, expected: float | None) -> None:
    drawn = curve([0.4, 0.6, 0.6, 0.8], [100.0, 200.0, 300.0, 400.0])
    assert comparison.effort_to_reach(drawn, "clicks", target) == (
        None if expected is None else pytest.approx(expected)
    )


def test_a_lucky_round_is_not_the_crossing() -> None:
    """A curve that falls again reached the target by chance; without falls it is 0.45 there."""
    drawn = curve([0.4, 0.6, 0.3, 0.8], [100.0, 200.0, 300.0, 400.0])
    found = comparison.effort_to_reach(drawn, "clicks", 0.55)
    assert found == pytest.approx(300 * (400 / 300) ** (0.1 / 0.35))


@given(points, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_target_never_takes_less(found: list[tuple[float, float]], one: float, other: float) -> None:
    clicks = np.cumsum([step for step, _ in found])
    drawn = curve([miou for _, miou in found], clicks.tolist())
    lower, higher = (comparison.effort_to_reach(drawn, "clicks", target) for target in sorted((one, other)))
    assert higher is None or (lower is not None and lower <= higher * (1 + 1e-9) + 1e-9)


# -- ratio -----------------------------------------------------------------------------------------------------------
def test_ratio_is_the_geometric_mean_over_the_seeds_in_which_both_reached_it() -> None:
    own = {0: 50.0, 1: 25.0, 2: None, 3: 10.0, 7: 1.0}
    other = {0: 100.0, 1: 100.0, 2: 100.0, 3: None, 8: 100.0}
    found = comparison.effort_ratio(own, other)
    assert found is not None
    assert found.value == pytest.approx(math.sqrt(0.5 * 0.25))
    assert (found.seeds, found.pairs, found.missed, found.other_missed) == (2, 4, 1, 1)
    # t of one degree of freedom, 12.706, times the standard error of two logs that are log 2 apart
    assert found.high == pytest.approx(found.value * math.exp(12.7062 * math.log(2) / 2), rel=1e-4)


def test_ratio_interval_is_that_of_a_paired_t_test_on_the_logs() -> None:
    values = np.array([40.0, 55.0, 61.0, 38.0, 50.0])
    found = comparison.effort_ratio(dict(enumerate(values.tolist())), dict.fromkeys(range(5), 100.0))
    expected = stats.ttest_1samp(np.log(values / 100), 0).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))


def test_ratio_that_says_nothing_is_none() -> None:
    assert comparison.effort_ratio({0: None}, {0: None}) is None
    assert comparison.effort_ratio({0: 50.0}, {0: None}) is None  # what it would have taken is not known
    assert comparison.effort_ratio({0: 0.0}, {0: 50.0}) is None
    assert comparison.effort_ratio({0: 50.0}, {1: 50.0}) is None
    single = comparison.effort_ratio({0: 50.0}, {0: 100.0})
    assert single is not None
    assert (single.value, single.low, single.high) == (pytest.approx(0.5), None, None)


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
    assert pairs[1].difference is None
    lead = pairs[0].lead("b")
    assert lead is not None
    assert lead.mean == pytest.approx(-0.15)
    assert (lead.low, lead.high) == (-(pairs[0].difference.high or 0), -(pairs[0].difference.low or 0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(12)))
def test_the_order_of_rows_does_not_matter(draw: int, order: list[int]) -> None:
    rows = simulated({RANDOM: 0.0, "s": 0.2}, seeds=range(2), rounds=3, full=False, draw=draw)
    shuffled = [rows[index] for index in order]
    found = [curves.areas_of(curves.curves_of(some), "clicks") for some in (rows, shuffled)]
    assert found[0] == found[1]


# -- bands -----------------------------------------------------------------------------------------------
def test_mean_curve_over_the_range_that_all_seeds_cover() -> None:
    found = curves.mean_curve(
        [curve([0.2, 0.4], [1.0, 100.0]), curve([0.4, 0.6, 0.6], [1.0, 100.0, 300.0], seed=1)], "clicks"
    )
    assert found is not None
    assert found.effort[[0, 50, 100]].tolist() == pytest.approx([1, 10, 100])
    assert found.mean[[0, 50, 100]].tolist() == pytest.approx([0.3, 0.4, 0.5])
    assert found.high is not None
    assert found.high - found.mean == pytest.approx([12.7062 * 0.1] * 101, rel=1e-4)  # t times 0.1414 / sqrt(2)


def test_mean_curve_of_one_seed_of_one_round_and_of_none() -> None:
    single = curves.mean_curve([curve([0.2, 0.4])], "clicks")
    assert single is not None
    assert (single.low, single.high, single.seeds) == (None, None, 1)
    point = curves.mean_curve([curve([0.2]), curve([0.4], seed=1)], "clicks")
    assert point is not None
    assert (point.effort.tolist(), point.mean.tolist()) == ([pytest.approx(100)], [pytest.approx(0.3)])
    apart = [curve([0.2]), curve([0.4], [500.0], seed=1)]
    assert curves.mean_curve(apart, "clicks") is None
    assert curves.mean_curve([], "clicks") is None
