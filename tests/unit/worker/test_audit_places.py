"""Where audit images stand in the queue: at a steady pace, whatever is labelled, skipped, or ranked anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wiring import task_of

from ml_backend.annotations.boxes import Box, Query
from ml_backend.learning.ranking import PoolRanking
from ml_backend.projects.audit import AuditSet, turns_of
from ml_backend.store import Task
from ml_backend.store.behind import Mixture
from ml_backend.worker.audit_places import most_audits, places, progress, with_audits

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


def mixed(ranked: Iterable[int], audits: Sequence[int], share: float, measured: int = 0, since: int = 0) -> list[int]:
    """The order of ranked tasks, the first best, and of audit images, after so many labels."""
    labels = [task_of(900 + at, status="labelled", annotation_id=1 + at, held_out=True) for at in range(measured)]
    labels += [task_of(950 + at, status="labelled", annotation_id=100 + at) for at in range(since)]
    priorities = {task: 1 - at / 100 for at, task in enumerate(ranked)}
    return list(with_audits(PoolRanking(priorities, len(priorities)), audits, share, labels).ranking.priorities)


@given(st.integers(0, 40), st.integers(1, 20), SHARES, st.integers(0, 5), st.integers(0, 30), st.integers(0, 80))
def test_labelling_in_order_and_ranking_anew_changes_nothing(
    ranked: int, audits: int, share: float, measured: int, since: int, done: int
) -> None:
    order = mixed(range(ranked), range(-audits, 0), share, measured, since)
    labelled, left = order[:done], order[done:]
    for task in labelled:
        measured, since = (measured + 1, 0) if task < 0 else (measured, since + 1)
    rest = [task for task in left if task < 0]
    again = mixed([task for task in left if task >= 0], rest, share, measured, since)
    assert again == left


@given(st.lists(st.integers(0, 99), unique=True), st.lists(st.integers(100, 199), unique=True), SHARES)
def test_each_keeps_its_own_order_and_nothing_is_lost(
    ranked: Sequence[int], audits: Sequence[int], share: float
) -> None:
    order = mixed(ranked, audits, share)
    assert [task for task in order if task < 100] == list(ranked)
    assert [task for task in order if task >= 100] == list(audits)


@given(st.integers(0, 40), st.integers(1, 12), SHARES, st.integers(0, 20))
def test_audit_images_are_at_their_places_and_priorities_fall(
    ranked: int, audits: int, share: float, since: int
) -> None:
    labels = [task_of(900 + at, status="labelled", annotation_id=1 + at) for at in range(since)]
    ranking = PoolRanking({task: 1 - task / 50 for task in range(ranked)}, ranked)
    order = with_audits(ranking, range(100, 100 + audits), share, labels).ranking.priorities
    assert all(0 < value <= 1 for value in order.values())
    assert all(before > after for before, after in pairwise(order.values()))
    last = max((place for place, task in enumerate(order, start=1) if task < 100), default=0)
    at = [place for place, task in enumerate(order, start=1) if task >= 100 and place < last]
    assert at == [place for place in first(share, audits, since=since) if place < last]


@given(st.integers(0, 30), st.integers(0, 12), SHARES, st.integers(0, 40), st.integers(8, 30))
def test_a_ranking_that_others_follow_begins_as_the_whole_one(
    behind: int, audits: int, share: float, since: int, ranked: int
) -> None:
    labels = [task_of(900 + at, status="labelled", annotation_id=1 + at) for at in range(since)]
    all_of_them = PoolRanking({task: 1 - task / 100 for task in range(ranked + behind)}, ranked)
    whole = with_audits(all_of_them, range(100, 100 + audits), share, labels).ranking.priorities
    some = PoolRanking({task: 1 - task / 100 for task in range(ranked)}, ranked, behind=behind)
    enough = min(audits, most_audits(ranked, share))
    part = with_audits(some, range(100, 100 + enough), share, labels, more=audits - enough)
    if not audits:
        assert part.ranking is some
        return
    begins = dict(part.ranking.priorities)
    if behind:
        assert len(begins) == ranked + part.used
        follow = Mixture(part.first, part.period, audits - part.used, behind)
        steps = [follow.audits_before(place + 1) > follow.audits_before(place) for place in range(follow.total)]
        assert [task >= 100 for task in list(whole)[len(begins) :]] == steps
    assert begins == dict(list(whole.items())[: len(begins)])


def test_without_audit_images_a_ranking_stays_as_it_is() -> None:
    ranking = PoolRanking({1: 0.9, 2: 0.3}, 2)
    assert with_audits(ranking, [], 0.0, []).ranking is ranking


def test_audit_images_come_between_the_regions_that_are_asked_for() -> None:
    ranking = PoolRanking({1: 1.0, 2: 0.9, 3: 0.8, 4: 0.7, 5: 0.6, 6: 0.5}, 6)
    ranking = PoolRanking(
        ranking.priorities, 6, queries={number: Query((Box(0, 0, 2, 2),), None) for number in (2, 4, 5, 6)}
    )
    order = list(with_audits(ranking, [7, 8], 0.125, []).ranking.priorities)
    assert order == [2, 4, 5, 7, 6, 1, 3, 8]


# -- in turn ---------------------------------------------------------------------------------------------------------
def of_groups(**images: int) -> list[tuple[int, str, str]]:
    names = [(group, f"{group}{number}") for group, count in images.items() for number in range(count)]
    return [(at, group, image) for at, (group, image) in enumerate(names, start=1)]


def test_groups_take_turns() -> None:
    images = of_groups(a=3, b=1, c=2)
    turns = turns_of(images, ALL)
    groups = [group for _, group, _ in sorted(images, key=lambda image: turns[image[0]])]
    assert [set(groups[:3]), set(groups[3:5]), groups[5:]] == [{"a", "b", "c"}, {"a", "c"}, ["a"]]
    assert groups[3:5] == [group for group in groups[:3] if group != "b"]
    assert turns_of(images[::-1], ALL) == turns


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
