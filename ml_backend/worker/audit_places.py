"""The places of audit images in the queue: between the ranked ones, at a steady pace.

ranked    r r r a r r r a r r r r r r r a …      the first two measures early, later one in eight
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Final

from ml_backend.learning.ranking import PoolRanking
from ml_backend.projects.audit import AuditSet, place_of
from ml_backend.store import Task

EARLY: Final = 2
"""So many audit labels are asked for sooner, so that the first version has a measure, …"""
EARLY_PERIOD: Final = 4
"""… one in so many."""


def with_audits(ranking: PoolRanking, tasks: Sequence[Task], audit: AuditSet) -> PoolRanking:
    """Put the audit images that wait between the tasks that a strategy ranked.

    Priorities are spread anew, evenly: they are places, and those of a strategy are no more than that. Tasks of which
    regions are asked for come first then, since the others are not shown.

    Args:
        ranking: of the other images.
        tasks: those of audit images, of any status, and all labelled ones.
    """
    audits = [task.task_id for task in in_turn(tasks, audit) if task.status == "unlabelled" and not task.error]
    if not audits:
        return ranking
    ranked = sorted(ranking.priorities, key=lambda task: (task not in ranking.queries, -ranking.priorities[task]))
    order = interleaved(ranked, audits, places(audit.share, *progress(tasks)))
    return replace(ranking, priorities={task: 1 - at / len(order) for at, task in enumerate(order)})


def in_turn(tasks: Iterable[Task], audit: AuditSet) -> list[Task]:
    """Return the tasks of audit images in the order in which they are asked for: one of each group, in turn.

    Both the groups and the images of each are in the order of their hashes. All tasks count, labelled ones as well, so
    that the turns go on where they were.
    """
    groups: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        if audit.has(task.group_key):
            groups[task.group_key].append(task)
    turns = [
        (turn, place_of(group, audit.seed), task.task_id, task)
        for group, own in groups.items()
        for turn, task in enumerate(sorted(own, key=lambda task: (place_of(task.image, audit.seed), task.task_id)))
    ]
    return [task for *_, task in sorted(turns, key=lambda turn: turn[:3])]


def progress(tasks: Iterable[Task]) -> tuple[int, int]:
    """Return how many labels measure, and how many labels that train were made after the newest of those.

    Label Studio numbers annotations in the order in which they are submitted.
    """
    labelled = [task for task in tasks if task.status == "labelled"]
    measuring = [task.annotation_id or 0 for task in labelled if task.held_out]
    newest = max(measuring, default=0)
    return len(measuring), sum(1 for task in labelled if not task.held_out and (task.annotation_id or 0) > newest)


def places(share: float, measured: int, since: int) -> Iterator[int]:
    """Yield the places of audit images in the queue, from 1, without end.

    Args:
        share: of the images that measure: one image in 1 / share is of the audit set, and never all of them.
        measured: labels that measure.
        since: labels that train and are newer than those.

    >>> from itertools import islice
    >>> list(islice(places(0.125, measured=0, since=0), 4))
    [4, 8, 16, 24]
    >>> list(islice(places(0.125, measured=2, since=3), 3))
    [5, 13, 21]
    """
    period = max(2, round(1 / share))
    place = -since
    for number in count(measured):
        place = max(1, place + (min(period, EARLY_PERIOD) if number < EARLY else period))
        yield place


def interleaved(ranked: Sequence[int], audits: Sequence[int], at: Iterator[int]) -> list[int]:
    """Return both in one order, each in its own, the audit images at their places; what is left of either follows.

    >>> interleaved([1, 2, 3, 4, 5], [70, 80, 90], iter([2, 4, 9]))
    [1, 70, 2, 80, 3, 4, 5, 90]
    """
    order, waiting, place = list[int](), list(reversed(audits)), next(at)
    for task in ranked:
        while waiting and len(order) + 1 == place:
            order.append(waiting.pop())
            place = next(at)
        order.append(task)
    return order + waiting[::-1]
