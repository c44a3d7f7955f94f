"""The places of audit images in the queue: between the ranked ones, at a steady pace.

ranked    r r r a r r r a r r r r r r r a …      the first two measures early, later one in eight
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from ml_backend.learning.ranking import PoolRanking
from ml_backend.store import Task

EARLY: Final = 2
"""So many audit labels are asked for sooner, so that the first version has a measure, …"""
EARLY_PERIOD: Final = 4
"""… one in so many."""


@dataclass(frozen=True)
class Mixed:
    """A ranking with audit images between the others.

    Attributes:
        used: how many audit images are in it.
        first, period: where tasks follow behind the ranking, the place behind it of the next audit image, from 1, and
            how far each is from the next; 0 where no audit image waited. Of ten tasks that are ranked, the early ones
            are among them.
    """

    ranking: PoolRanking
    used: int = 0
    first: int = 0
    period: int = 0


def with_audits(
    ranking: PoolRanking, audits: Sequence[int], share: float, labelled: Iterable[Task], *, more: int = 0
) -> Mixed:
    """Put the audit images that wait between the tasks that a strategy ranked.

    Priorities are spread anew, evenly: they are places, and those of a strategy are no more than that. Tasks of which
    regions are asked for come first then, since the others are not shown.

    Args:
        ranking: of the other images.
        audits: tasks of audit images that wait, in turn. Where tasks follow behind the ranking, `most_audits` are
            enough, and those that find no place in it follow, too.
        share: of the images that measure: one image in 1 / share is of the audit set, and never all of them.
        labelled: all labelled tasks, of any side.
        more: audit images that wait, besides those given.
    """
    if not audits:
        return Mixed(ranking)
    ranked = sorted(ranking.priorities, key=lambda task: (task not in ranking.queries, -ranking.priorities[task]))
    at = places(share, *progress(labelled))
    order, waiting, place = list[int](), list(reversed(audits)), next(at)
    for task in ranked:
        while waiting and len(order) + 1 == place:
            order.append(waiting.pop())
            place = next(at)
        order.append(task)
    if not ranking.behind:
        order, waiting = order + waiting[::-1], []
    used, total = len(audits) - len(waiting), len(order) + len(waiting) + more + ranking.behind
    priorities = {task: 1 - at / total for at, task in enumerate(order)}
    mixed = replace(ranking, priorities=priorities, behind=total - len(order))
    return Mixed(mixed, used, max(1, place - len(order)), period_of(share))


def most_audits(ranked: int, share: float) -> int:
    """Return how many audit images find a place between so many ranked tasks, at most."""
    return ranked // (period_of(share) - 1) + EARLY + 1


def period_of(share: float) -> int:
    """Return one in how many images is of the audit set, at the pace that they are asked for.

    >>> period_of(0.125), period_of(0.9)
    (8, 2)
    """
    return max(2, round(1 / share)) if share else 2


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
    period = period_of(share)
    place = -since
    for number in count(measured):
        place = max(1, place + (min(period, EARLY_PERIOD) if number < EARLY else period))
        yield place
