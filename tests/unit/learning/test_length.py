"""How long a training goes on: by steps, by time, and by what few and many labels need."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from small_training import disc_job

from ml_backend.learning.training.length import LEAST_PASSES, MOST_PASSES, MOST_STEPS_OF_FEW, Length


class Clock:
    """Goes on by a number of seconds with each step."""

    def __init__(self, seconds_each: float) -> None:
        self.now, self.seconds_each = 100.0, seconds_each

    def __call__(self) -> float:
        return self.now


def played(length: Length, clock: Clock) -> list[float]:
    """Take steps until it is over; return the share before each."""
    shares: list[float] = []
    while not length.is_over(len(shares)):
        shares.append(length.share(len(shares)))
        clock.now += clock.seconds_each
    return shares


def length(clock: Clock, *, least: int = 5, most: int = 200, seconds: float = 120.0) -> Length:
    return Length(least, most, seconds, clock=clock, began=clock.now)


def test_a_number_of_steps_is_that_number_however_long_it_takes(tmp_path: Path) -> None:
    made = Length.of(disc_job(tmp_path, iterations=7), 3)
    clock = Clock(1000.0)
    assert len(played(dataclasses.replace(made, clock=clock, began=clock.now), clock)) == 7


@pytest.mark.parametrize(
    ("seconds_each", "steps"),
    [(2.0, 60), (0.1, 200), (100.0, 5)],  # as many as fit; enough before the time is over; the least
)
def test_a_budget_is_kept_between_the_least_and_the_most_steps(seconds_each: float, steps: int) -> None:
    clock = Clock(seconds_each)
    shares = played(length(clock), clock)
    assert len(shares) == steps
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] < 1


def test_a_machine_that_becomes_slow_does_not_make_the_share_fall() -> None:
    clock = Clock(0.5)
    made = length(clock)
    shares = []
    for step in range(60):
        shares.append(made.share(step))
        clock.now += 0.5 if step < 30 else 5.0
    assert shares == sorted(shares)


@pytest.mark.parametrize(("seconds_each", "left"), [(2.0, 100.0), (0.1, 19.0), (100.0, 400.0)])
def test_the_end_is_known_from_the_first_steps(seconds_each: float, left: float) -> None:
    clock = Clock(seconds_each)
    made = length(clock)
    steps = 10 if seconds_each < 100 else 1
    clock.now += steps * seconds_each
    assert made.seconds_left(steps) == pytest.approx(left)
    assert made.total(steps) == pytest.approx(steps + left / seconds_each)


def test_few_labels_need_less_than_the_budget_and_many_get_enough_passes(tmp_path: Path) -> None:
    job = disc_job(tmp_path, iterations=0, training_budget=2.0, batch_size=8)
    few, many = Length.of(job, 10), Length.of(job, 4000)
    assert (few.most, few.seconds) == (MOST_STEPS_OF_FEW, 120.0)
    assert many.least == LEAST_PASSES * 4000 / 8
    assert many.most == MOST_PASSES * 4000 / 8


def test_members_of_a_committee_share_the_budget(tmp_path: Path) -> None:
    job = disc_job(tmp_path, iterations=0, training_budget=2.0)
    assert Length.of(dataclasses.replace(job, committee_of=1, members=4), 10).seconds == 30.0
    assert math.isinf(Length.of(dataclasses.replace(job, iterations=3), 10).seconds)
