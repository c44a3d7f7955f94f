"""Turns to train: one at a time, in the order of asking, and nobody waits for them."""

from __future__ import annotations

import time

import pytest

from ml_backend.errors import TrainingWaits
from ml_backend.learning.training.turns import TrainingTurns


@pytest.fixture
def turns() -> TrainingTurns:
    return TrainingTurns()


def is_refused(turns: TrainingTurns, project: int) -> bool:
    try:
        with turns.take(project, lambda _: None):
            return False
    except TrainingWaits:
        return True


def test_one_trains_at_a_time_and_whoever_asked_first_is_next(turns: TrainingTurns) -> None:
    woken: list[int] = []
    with turns.take(1, woken.append):
        assert is_refused(turns, 2)
        assert is_refused(turns, 3)
        assert is_refused(turns, 2), "asking again neither helps nor harms"
        assert woken == []
    assert woken == [2]
    assert is_refused(turns, 1), "new labels already, but others were earlier"
    assert is_refused(turns, 3)
    for expected in (3, 1):
        with turns.take(woken[-1], woken.append):
            pass
        assert woken[-1] == expected
    with turns.take(1, woken.append):
        pass
    assert woken == [2, 3, 1]


def test_a_training_that_fails_gives_its_turn_back(turns: TrainingTurns) -> None:
    with pytest.raises(ValueError, match="it failed"), turns.take(1, lambda _: None):
        raise ValueError("it failed")
    assert not is_refused(turns, 2)


def test_who_has_no_reason_any_more_holds_up_nobody(turns: TrainingTurns, monkeypatch: pytest.MonkeyPatch) -> None:
    with turns.take(1, lambda _: None):
        assert is_refused(turns, 2)
        assert is_refused(turns, 3)
        assert is_refused(turns, 4)
    turns.leave(2, lambda _: None)
    assert is_refused(turns, 4)
    later = time.monotonic() + 601  # 3 was disconnected, and does not come back
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not is_refused(turns, 4)


def test_whoever_is_behind_one_that_leaves_is_woken(turns: TrainingTurns) -> None:
    woken: list[int] = []
    with turns.take(1, woken.append):
        assert is_refused(turns, 2)
        assert is_refused(turns, 3)
        turns.leave(4, woken.append)
    assert woken == [2]
    turns.leave(2, woken.append)  # it was woken, and found nothing to train
    assert woken == [2, 3]
    with pytest.raises(TrainingWaits), turns.take(2, woken.append):  # but a committee, a moment later
        pytest.fail("3 was earlier")
    assert woken == [2, 3, 3]
    with turns.take(3, woken.append):
        assert is_refused(turns, 2)
        turns.leave(2, woken.append)
        assert woken == [2, 3, 3], "nobody can train while another does"
