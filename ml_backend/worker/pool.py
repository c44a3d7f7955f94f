"""The pool of a project in the order of chance, read from the store as far as it is scored."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ml_backend.learning.ranking import PoolRanking, append_unscored
from ml_backend.projects.candidates import Candidate
from ml_backend.store import Behind, Store, Task
from ml_backend.system.chance import draw


@dataclass(frozen=True)
class Waiting:
    """Unlabelled tasks of images that nobody has labelled: nearly all of a large project.

    Attributes:
        newest: highest id of a task; those that arrive later belong to the next ranking.
        count: number of tasks.
        without: ids of tasks to leave out.
    """

    store: Store
    project_id: int
    newest: int
    count: int
    without: Collection[int] = ()

    def __iter__(self) -> Iterator[Task]:
        tasks = self.store.drawn_tasks(self.project_id, newest=self.newest)
        return (task for task in tasks if task.task_id not in self.without)

    def count_behind(self, after: int, placed: Collection[int]) -> int:
        """Return how many tasks have larger numbers by chance, no error, and are not among those placed."""
        end = Behind(after, -1, self.newest)
        return self.store.count_behind(self.project_id, end, audit=False, placed=placed)


class Pool:
    """What a strategy chooses from, in the order of chance. It is read anew each time.

    Args:
        own: candidates that are in memory: those of images that are labelled in part, and others.
        waiting: further tasks; None: there are none.
        seed: of the order.
        most: candidates to give at most; None: all.
    """

    def __init__(self, own: Sequence[Candidate], waiting: Waiting | None, seed: int, most: int | None = None) -> None:
        self._seed, self._waiting, self._most = seed, waiting, most
        self.own = sorted(own, key=self._number)

    def first(self, most: int) -> Pool:
        """Return the first candidates of this pool."""
        return Pool(self.own, self._waiting, self._seed, most)

    def __len__(self) -> int:
        count = len(self.own) + (self._waiting.count if self._waiting else 0)
        return count if self._most is None else min(count, self._most)

    def __iter__(self) -> Iterator[Candidate]:
        waiting = map(Candidate, self._waiting or ())
        return islice(heapq.merge(self.own, waiting, key=self._number), self._most)

    def with_rest(self, ranking: PoolRanking, done: Collection[int], places: int | None) -> PoolRanking:
        """Put those behind a ranking that are neither in it nor done.

        Args:
            done: tasks that were scored, or have no image.
            places: how many tasks have a place of their own at least; None: all.
        """
        room = None if places is None else places - len(ranking.priorities)
        rest: list[int] = []
        for candidate in self:
            task = candidate.task
            if task.status != "unlabelled" or task.task_id in done:
                continue
            if self._waiting is not None and room is not None and len(rest) >= room:
                after = self._number(candidate)[0] - 1
                behind = self._waiting.count_behind(after, {*ranking.priorities, *rest})
                return append_unscored(ranking, rest, behind=behind, after=after)
            rest.append(task.task_id)
        return append_unscored(ranking, rest)

    def _number(self, candidate: Candidate) -> tuple[int, int]:
        task_id = candidate.task.task_id
        return draw(self._seed, task_id), task_id
