"""Where audit images stand in the queue: at a steady pace, whatever is labelled, skipped, or ranked anew."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wiring import task_of

from ml_backend.annotations.boxes import Box, Query
from ml_backend.learning.ranking import PoolRanking
from ml_backend.projects.audit import AuditSet
from ml_backend.store import Task
from ml_backend.worker.audit_places import in_turn, interleaved, places, progress, with_audits

ALL = AuditSet(1.0, seed=0)
"""An audit set that every image is of."""
SHARES = st.floats(0.01, 0.9)


def first(share: float, count: int, *, measured: int = 0, since: int = 0) -> list[int]:
    return list(islice(places(share, measured, since), count))


@pytest.mark.parametrize(
    ("measured", "since", "expected"),
    [
        (0, 0, [4, 8, 16, 24]),  # two of the first ten, then one in eight
        (0, 3, [1, 5, 13, 21]),
        (1, 0, [4, 12, 20, 28]),
        (2, 2, [6, 14, 22, 30]),
        (9, 0, [8, 16, 24, 32]),
        (9, 40, [1, 9, 17, 25]),  # labelled out of order, or skipped: the next one comes at once, and only one
    ],
)
def test_the_pace_of_the_default(measured: int, since: int, expected: list[int]) -> None:
    assert first(0.125, 4, measured=measured, since=since) == expected


@pytest.mark.parametrize(("share", "expected"), [(0.5, [2, 4, 6]), (0.9, [2, 4, 6]), (0.01, [4, 8, 108])])
def test_other_shares(share: float, expected: list[int]) -> None:
    assert first(share, 3) == expected


@given(st.integers(0, 60), st.integers(0, 20), SHARES, st.integers(0, 5), st.integers(0, 30), st.integers(0, 80))
def test_labelling_in_order_and_ranking_anew_changes_nothing(
    ranked: int, audits: int, share: float, measured: int, since: int, done: int
) -> None:
    order = interleaved(range(ranked), range(-audits, 0), places(share, measured, since))
    labelled, left = order[:done], order[done:]
    for task in labelled:
        measured, since = (measured + 1, 0) if task < 0 else (measured, since + 1)
    again = interleaved(
        [task for task in left if task >= 0], [task for task in left if task < 0], places(share, measured, since)
    )
    assert again == left


@given(st.lists(st.integers(0, 99), unique=True), st.lists(st.integers(100, 199), unique=True), SHARES)
def test_each_keeps_its_own_order_and_nothing_is_lost(
    ranked: Sequence[int], audits: Sequence[int], share: float
) -> None:
    order = interleaved(ranked, audits, places(share, 0, 0))
    assert [task for task in order if task < 100] == list(ranked)
    assert [task for task in order if task >= 100] == list(audits)


@given(st.integers(0, 40), st.integers(1, 12), SHARES, st.integers(0, 20))
def test_priorities_fall_strictly_in_the_order_of_the_queue(ranked: int, audits: int, share: float, since: int) -> None:
    given_priorities = {task: 1 - task / 50 for task in range(ranked)}
    tasks = [task_of(task, group_key="trains") for task in range(ranked)]
    tasks += [task_of(100 + number, group_key=f"g{number}") for number in range(audits)]
    tasks += [
        task_of(200 + number, group_key="trains", status="labelled", annotation_id=1 + number)
        for number in range(since)
    ]
    audit = AuditSet(share, 0, drawn=frozenset(f"g{number}" for number in range(audits)), trains=frozenset(["trains"]))
    ranking = with_audits(PoolRanking(given_priorities, ranked), tasks, audit)
    priorities = list(ranking.priorities.values())
    assert all(0 < value <= 1 for value in priorities)
    assert all(before > after for before, after in pairwise(priorities))
    assert list(ranking.priorities) == interleaved(
        range(ranked), [task.task_id for task in in_turn(tasks, audit)], places(share, 0, since)
    )


def test_without_audit_images_a_ranking_stays_as_it_is() -> None:
    ranking = PoolRanking({1: 0.9, 2: 0.3}, 2)
    assert with_audits(ranking, [task_of(1), task_of(2)], AuditSet(0, 0)) is ranking


def test_audit_images_come_between_the_regions_that_are_asked_for() -> None:
    tasks = [task_of(number, group_key="audit" if number > 6 else "pool") for number in range(1, 9)]
    ranking = PoolRanking({1: 1.0, 2: 0.9, 3: 0.8, 4: 0.7, 5: 0.6, 6: 0.5}, 6)
    ranking = PoolRanking(
        ranking.priorities, 6, queries={number: Query((Box(0, 0, 2, 2),), None) for number in (2, 4, 5, 6)}
    )
    audit = AuditSet(0.125, 0, drawn=frozenset(["audit"]), trains=frozenset(["pool"]))
    order = list(with_audits(ranking, tasks, audit).priorities)
    assert [number for number in order if number < 7] == [2, 4, 5, 6, 1, 3]
    assert {order[3], order[7]} == {7, 8}


def test_an_audit_image_that_cannot_be_had_or_is_done_takes_no_place() -> None:
    states: list[dict[str, str]] = [{"error": "not found"}, {"status": "skipped"}, {"status": "labelled"}, {}]
    tasks = [task_of(at, group_key=f"g{at}", **state) for at, state in enumerate(states, start=1)]
    assert list(with_audits(PoolRanking({}, 0), tasks, ALL).priorities) == [4]


# -- in turn ---------------------------------------------------------------------------------------------------------
def of_groups(**images: int) -> list[Task]:
    names = [(group, f"{group}{number}") for group, count in images.items() for number in range(count)]
    return [task_of(at, image=image, group_key=group) for at, (group, image) in enumerate(names, start=1)]


def test_groups_take_turns() -> None:
    turns = [task.group_key for task in in_turn(of_groups(a=3, b=1, c=2), ALL)]
    assert [set(turns[:3]), set(turns[3:5]), turns[5:]] == [{"a", "b", "c"}, {"a", "c"}, ["a"]]
    assert turns[3:5] == [group for group in turns[:3] if group != "b"]


@given(st.integers(0, 6))
def test_turns_go_on_where_they_were(done: int) -> None:
    tasks = of_groups(a=3, b=1, c=2)
    before = in_turn(tasks, ALL)
    labelled = {task.task_id for task in before[:done]}
    now = [
        task_of(
            t.task_id,
            image=t.image,
            group_key=t.group_key,
            status="labelled" if t.task_id in labelled else "unlabelled",
        )
        for t in tasks
    ]
    assert [task.task_id for task in in_turn(now, ALL) if task.status == "unlabelled"] == [
        t.task_id for t in before[done:]
    ]


# -- how far it is ---------------------------------------------------------------------------------------------------
def labels(*kinds: str) -> list[Task]:
    """Labels in the order in which they were submitted: `a` measures, `t` trains."""
    return [
        task_of(at, status="labelled", annotation_id=10 * at, held_out=kind == "a")
        for at, kind in enumerate(kinds, start=1)
    ]


@pytest.mark.parametrize(
    ("kinds", "expected"), [("", (0, 0)), ("ttt", (0, 3)), ("ta", (1, 0)), ("attat", (2, 1)), ("aatttt", (2, 4))]
)
def test_labels_since_the_newest_that_measures(kinds: str, expected: tuple[int, int]) -> None:
    assert progress(labels(*kinds)) == expected
    assert progress(reversed(labels(*kinds))) == expected
