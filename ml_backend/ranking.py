"""Ranking: stream the pool through a strategy and return who comes first.

The map step (`observe`) sees one batch at a time, so memory does not grow with the pool beyond the strategy's own
small arrays; the reduce step (`rank`) orders them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_backend.errors import ConfigurationError

if TYPE_CHECKING:
    from strategies import Batch, Observation, Strategy

DRIVEN = ("entropy", "least_confidence", "margin", "random")
"""Strategies that the backend gives all they need; the library has more."""


@dataclass(frozen=True)
class PoolRanking:
    """Priorities in (0, 1), higher = label sooner; `scored` of them by the strategy, the rest after those by chance."""

    priorities: Mapping[int, float]
    scored: int


def make_strategy(name: str, options: Mapping[str, Any]) -> Strategy:
    """Return a strategy by its registered name.

    Raises:
        ConfigurationError: unknown name or option, or a method that this backend does not drive; the message lists
            the valid ones.
    """
    from strategies import available, create

    if name in available() and name not in DRIVEN:
        raise ConfigurationError(
            f"NEXTMASK_STRATEGY = {name!r}: the strategies library has it, but the backend does not yet give it what it"
            f" needs (committees, costs, its own training). Choose one of: {', '.join(DRIVEN)}."
        )
    try:
        return create(name, **options)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"NEXTMASK_STRATEGY = {name!r}, NEXTMASK_STRATEGY_OPTIONS = {options}: {error}"
        ) from error


def sample_order(task_ids: Sequence[int], seed: int) -> list[int]:
    """Return the tasks in a random order that depends on the seed and the ids only."""
    return sorted(task_ids, key=lambda task: hashlib.sha256(f"{seed}|{task}".encode()).digest())


def within_time(batches: Iterable[Batch], *, seconds: float, at_least: int) -> Iterator[Batch]:
    """Pass batches on until `seconds` are over, but at least so many images."""
    deadline, passed = time.monotonic() + seconds, 0
    for batch in batches:
        yield batch
        passed += len(batch.ids)
        if passed >= at_least and time.monotonic() >= deadline:
            return


def rank_pool(
    strategy: Strategy,
    unlabelled: Callable[[], Iterable[Batch]],
    labelled: Callable[[], Iterable[Batch]],
    *,
    budget: int,
    seed: int,
    round_number: int,
    progress: Callable[[int], None],
) -> dict[int, float]:
    """Score and order a pool.

    Args:
        unlabelled, labelled: make a stream of batches; called again for every pass over the data.
        budget: images wanted; set-aware strategies are set-aware up to it.
        progress: called with the number of images observed so far.

    Returns:
        Task id -> priority in [0, 1], strictly decreasing in the order of the ranking.
    """
    import torch

    from strategies import Budget

    generator = torch.Generator().manual_seed(seed)
    strategy.prepare(_Again(labelled), _Again(unlabelled), generator=generator)
    pool = _observe(strategy, unlabelled(), progress)
    known = _observe(strategy, labelled(), lambda _: None) if "labelled" in strategy.needs else None
    if pool is None:
        return {}
    ranking = strategy.rank(pool, known, budget=Budget(images=budget), round=round_number, generator=generator)
    return {int(task): float(priority) for task, priority in zip(ranking.ids, ranking.priority, strict=True)}


def append_unscored(priorities: Mapping[int, float], rest: Sequence[int]) -> PoolRanking:
    """Put tasks that were not scored behind the scored ones, in the order given.

    Scored priorities move to the upper half of the interval and keep their order; when nothing is left over they
    stay as they are.
    """
    if not rest:
        return PoolRanking(dict(priorities), len(priorities))
    upper = {task: 0.5 + value / 2 for task, value in priorities.items()}
    lower = {task: 0.5 * (1 - (position + 1) / (len(rest) + 1)) for position, task in enumerate(rest)}
    return PoolRanking(upper | lower, len(priorities))


def _observe(strategy: Strategy, batches: Iterable[Batch], progress: Callable[[int], None]) -> Observation | None:
    from strategies import Observation

    parts, seen = [], 0
    for batch in batches:
        parts.append(strategy.observe(batch))
        seen += len(batch.ids)
        progress(seen)
    return Observation.concatenate(parts) if parts else None


class _Again:
    """A stream that can be read any number of times."""

    def __init__(self, make: Callable[[], Iterable[Batch]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._make())
